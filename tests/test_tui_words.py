"""Texts that are drawn anew only when they change, and laid out only when their size does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import pytest
from textual.app import App, ComposeResult
from textual.content import Content
from textual.geometry import Region
from textual.pilot import Pilot
from tui_helpers import CHOSEN, application, drive, press, screen_text

from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.screens.wizard import WizardScreen
from qlora_tui.tui.widgets.words import Words


class Counting(Words):
    """Counts what it asks for."""

    paints = 0
    layouts = 0

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        self.paints += 1
        self.layouts += layout
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class Page(App[None]):
    """One text above another."""

    CSS = "#fixed { height: 1; } #short { width: auto; height: 1; }"

    def compose(self) -> ComposeResult:
        yield Counting("one line", id="above")
        yield Counting("below", id="fixed")
        yield Counting("abc", id="short")


def read(steps: Callable[[Pilot[None], Counting], Awaitable[None]], place: str) -> None:
    async def session() -> None:
        app = Page()
        async with app.run_test(size=(40, 10)) as pilot:
            await pilot.pause()
            words = app.query_one(f"#{place}", Counting)
            words.paints = words.layouts = 0
            await steps(pilot, words)

    asyncio.run(session())


def test_the_same_text_costs_nothing() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say("one line")
        assert words.paints == 0

    read(steps, "above")


def test_another_colour_is_another_text() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say(Content.styled("one line", "bold"))
        await pilot.pause()
        assert words.paints > 0
        assert any(segment.style.bold for segment in words.render_line(0) if segment.style is not None)

    read(steps, "above")


def test_another_text_of_the_same_height_needs_no_layout() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say("another one")
        await pilot.pause()
        assert (words.paints > 0, words.layouts) == (True, 0)
        assert "another one" in "".join(segment.text for strip in words.render_lines(words.region) for segment in strip)

    read(steps, "above")


def test_a_text_grows_and_shrinks() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        below = words.screen.query_one("#fixed")
        for text, height in (("a\nb\nc", 3), ("x\ny\nz", 3), ("word " * 20, 3), ("one", 1), ("w" * 41, 2)):
            words.say(text)
            await pilot.pause()
            assert (words.size.height, below.region.y) == (height, height), text

    read(steps, "above")


def test_a_text_is_measured_again_in_another_terminal() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say("w" * 38)
        await pilot.resize_terminal(20, 10)
        await pilot.pause()
        assert words.size.height == 2
        words.say("w" * 18)
        await pilot.pause()
        assert words.size.height == 1

    read(steps, "above")


def test_a_hidden_text_comes_back_in_its_size() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say(None)
        await pilot.pause()
        assert words.screen.query_one("#fixed").region.y == 0
        words.say("a\nb")
        await pilot.pause()
        assert words.screen.query_one("#fixed").region.y == 2

    read(steps, "above")


@pytest.mark.parametrize(("place", "layouts"), [("fixed", False), ("short", True)])
def test_what_the_stylesheet_fixes_is_not_laid_out(place: str, layouts: bool) -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say("a much longer text\nin two lines")
        assert bool(words.layouts) is layouts

    read(steps, place)


def test_nothing_in_a_text_is_markup() -> None:
    async def steps(pilot: Pilot[None], words: Counting) -> None:
        words.say("[bold]x[/bold]")
        assert str(words.content) == "[bold]x[/bold]"

    read(steps, "above")


def test_a_key_in_the_recipe_draws_only_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bool] = []
    refresh = WizardScreen.refresh

    def counted(screen: WizardScreen, *regions: Region, **how: bool) -> WizardScreen:
        drawn.append(True)
        return refresh(screen, *regions, **how)

    async def steps(pilot: Pilot[str]) -> None:
        app: QloraApp = pilot.app  # type: ignore[assignment]
        app.change(CHOSEN.with_value("model.source", "Qwen/Qwen3-8B"))  # large enough for the rank to count
        app.open_wizard(4)
        await press(pilot)
        bar = app.screen.query_one("#memory-words", Words)
        before = str(bar.content)
        monkeypatch.setattr(WizardScreen, "refresh", counted)
        await press(pilot, "4")
        assert str(bar.content) != before, screen_text(app)
        assert not drawn

    drive(application(), steps)
