"""Typing moves nothing but the text that is typed."""

from __future__ import annotations

import asyncio

import pytest
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widgets import Static
from tui_helpers import Counted, screen_text

from qlora_tui.tui.widgets.line_input import LineInput

WIDTH = 12


class Page(App[None]):
    """An editor above a text."""

    CSS = f"LineInput {{ width: {WIDTH}; }}"

    def compose(self) -> ComposeResult:
        yield LineInput(compact=True)
        yield Static("below")


def test_a_text_longer_than_its_place_is_followed_without_a_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = Counted(monkeypatch, Screen, "_refresh_layout")
    text = "a name longer than its place"

    async def session() -> None:
        app = Page()
        async with app.run_test(size=(40, 5)) as pilot:
            await pilot.pause()
            layouts.calls = 0
            await pilot.press(*("space" if letter == " " else letter for letter in text))
            assert app.query_one(LineInput).value == text
            assert screen_text(app).splitlines()[0].rstrip() == text[1 - WIDTH :]  # type: ignore[arg-type]
            await pilot.press("home")
            assert screen_text(app).splitlines()[0].rstrip() == text[:WIDTH].rstrip()  # type: ignore[arg-type]
            assert layouts.calls == 0

    asyncio.run(session())
