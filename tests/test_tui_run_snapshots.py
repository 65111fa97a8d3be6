"""What the screens of a run look like. `pytest --snapshot-update` after looking at the report."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from run_stories import Story
from stand_in_session import StandInSession
from textual.content import Content
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, TextArea
from tui_helpers import LARGE, MIDDLE, SMALL, Machine, application, press, settle, wait_for

from qlora_tui.paths import cache_directory
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.tui import shipping
from qlora_tui.tui.screens.chat import ChatScreen
from qlora_tui.tui.screens.ship import ShipScreen
from qlora_tui.tui.screens.train import TrainScreen

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pictures are those of Python 3.11")

DARK, LIGHT = "qlora-dark", "qlora-light"
Compare = Callable[..., bool]
Steps = Callable[[Pilot[str]], Awaitable[None]]


@pytest.fixture(autouse=True)
def universal_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def looks_the_same(snap_compare: Compare) -> Callable[..., None]:
    """Compares a screen after some steps."""

    def check(
        screen: Screen[None],
        steps: Steps,
        size: tuple[int, int] = MIDDLE,
        theme: str = DARK,
        ascii_only: bool = False,
    ) -> None:
        app = application(Machine(), theme=theme, ascii=ascii_only)

        async def walk(pilot: Pilot[str]) -> None:
            app._show_alone(screen)
            await settle(pilot)
            for editor in (*screen.query(Input), *screen.query(TextArea)):
                editor.cursor_blink = False
            await steps(pilot)
            await settle(pilot)

        assert snap_compare(app, terminal_size=size, run_before=walk)

    return check


def read(screen: TrainScreen) -> Steps:
    """Until the log is read and drawn."""

    def is_drawn() -> bool:
        follower = screen.follower
        same = screen._drawn == screen.panels.charted == follower.view.changes > 0
        return same and screen._condition_drawn == follower.condition and not follower.condition.behind

    async def steps(pilot: Pilot[str]) -> None:
        await wait_for(pilot, is_drawn, "the run is drawn")
        screen.panels.redraw_charts()  # now that everything has its place

    return steps


@pytest.mark.parametrize("size", [SMALL, MIDDLE, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
def test_training(tmp_path: Path, looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    screen = TrainScreen(Story().write(tmp_path))
    looks_the_same(screen, read(screen), size)


def test_training_that_failed(tmp_path: Path, looks_the_same: Callable[..., None]) -> None:
    screen = TrainScreen(Story(gpu=False, alive=False, end="failed").write(tmp_path))
    looks_the_same(screen, read(screen), SMALL, LIGHT)


def test_training_in_ascii(tmp_path: Path, looks_the_same: Callable[..., None]) -> None:
    screen = TrainScreen(Story(alive=False, end="completed").write(tmp_path))
    looks_the_same(screen, read(screen), SMALL, ascii_only=True)


@pytest.mark.parametrize(("size", "theme"), [(SMALL, DARK), (MIDDLE, LIGHT)])
def test_chat(tmp_path: Path, looks_the_same: Callable[..., None], size: tuple[int, int], theme: str) -> None:
    run = Story(alive=False, end="completed", adapter=True).write(tmp_path)

    async def ask(pilot: Pilot[str]) -> None:
        await press(pilot, *"Where is my parcel?", "enter")

    looks_the_same(ChatScreen(run, StandInSession()), ask, size, theme)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "theme"), [(SMALL, LIGHT), (MIDDLE, DARK)])
def test_ship(
    tmp_path: Path,
    looks_the_same: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    theme: str,
) -> None:
    def found(run: RunDirectory) -> shipping.Shipment:
        """Places and sizes that are the same on every machine."""
        seen = shipping.read_shipment(run)

        def moved(text: str) -> str:
            return text.replace(str(tmp_path), "/runs").replace(str(cache_directory()), "/cache")

        ways = tuple(replace(way, snippet=replace(way.snippet, text=moved(way.snippet.text))) for way in seen.ways)
        return replace(seen, head=Content(moved(seen.head.plain)), memory=24 << 30, disk=200 << 30, ways=ways)

    monkeypatch.setattr("qlora_tui.tui.screens.ship.read_shipment", found)
    run = Story(alive=False, end="completed", adapter=True).write(tmp_path)
    looks_the_same(ShipScreen(run, StandInSession()), settle, size, theme)  # type: ignore[arg-type]
