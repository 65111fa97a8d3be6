"""What is kept of closed screens: nothing. And what is open is no work for collections."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_stories import Story
from stand_in_session import StandInSession
from textual.pilot import Pilot
from textual.screen import Screen
from tui_helpers import application, drive, press, settle, wait_for

from qlora_tui.runs.directory import RunDirectory
from qlora_tui.tui import collector
from qlora_tui.tui.screens.chat import ChatScreen
from qlora_tui.tui.screens.ship import ShipScreen
from qlora_tui.tui.screens.train import TrainScreen
from qlora_tui.tui.screens.wizard import WizardScreen


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Nothing is apart from the garbage collector during the test, and everything after it."""
    gc.unfreeze()
    yield
    collector.settle()


class Ring:
    """Something that only a collection can free."""

    def __init__(self) -> None:
        self.me = self


def test_what_a_screen_has_left_is_let_go_when_the_next_one_settles() -> None:
    ring = Ring()
    collector.settle()
    left = weakref.ref(ring)
    del ring
    assert left() is not None
    collector.settle()
    assert left() is None


def test_what_is_on_the_screen_is_kept_from_collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection that looks at everything takes longer than a key may."""
    monkeypatch.setattr("qlora_tui.tui.app.SETTLE_SECONDS", 0.05)
    monkeypatch.setattr("qlora_tui.tui.app.settle", collector.settle)
    run = Story(alive=False, end="completed").write(tmp_path)

    async def steps(pilot: Pilot[str]) -> None:
        screen = TrainScreen(run)
        app._show_alone(screen)
        await settle(pilot)
        await wait_for(pilot, lambda: screen.panels.charts is not None, "the curves are loaded")
        kept = screen.panels.charts
        await wait_for(pilot, lambda: not any(each is kept for each in gc.get_objects()), "they are set apart")
        assert len(gc.get_objects()) < gc.get_freeze_count()

    app = application()
    drive(app, steps)


SCREENS: dict[str, tuple[Callable[[RunDirectory], Screen[Any]], tuple[str, ...]]] = {
    "questions": (lambda _run: WizardScreen(), ("2", "3", "4", "5", "1")),
    "models": (lambda _run: WizardScreen(2), ("f10", "escape")),
    "training": (TrainScreen, ("question_mark", "escape")),
    "chat": (lambda run: ChatScreen(run, StandInSession()), ("f4", "escape")),  # type: ignore[arg-type]
    "ship": (ShipScreen, ("ctrl+p", "escape")),
}
"""By name, a screen and keys that open and close what belongs to it."""


@pytest.mark.parametrize("name", SCREENS)
def test_closed_screens_are_let_go(tmp_path: Path, name: str) -> None:
    """Textual keeps pictures of widgets that are gone, and what watches the application: its issues 6665 and 6666.

    One of two screens may be left as the context of a task.
    """
    run = Story(alive=False, end="completed", adapter=True).write(tmp_path)
    screen, keys = SCREENS[name]

    def gone() -> bool:
        collector.settle()
        return all(sum(each() is not None for each in kept) <= 1 for kept in (screens, pictures))

    async def steps(pilot: Pilot[str]) -> None:
        for _ in range(2):
            app._show_alone(screen(run))
            await settle(pilot)
            screens.append(weakref.ref(app.screen))
            pictures.append(weakref.ref(app.screen.children[0]._styles_cache))
            for key in keys:
                await press(pilot, key)
            app.go_home()
            await settle(pilot)
        await wait_for(pilot, gone, "they are gone")

    app = application()
    screens: list[weakref.ref[Any]] = []
    pictures: list[weakref.ref[Any]] = []
    drive(app, steps)
