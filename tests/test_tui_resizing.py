"""Terminals that change their size: each screen looks as it did before once the size is the old one again."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_stories import Story
from stand_in_session import StandInSession
from textual.pilot import Pilot
from tui_helpers import CHOSEN, LARGE, MIDDLE, SMALL, application, drive, screen_text, settle, shows, wait_for

from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.screens.chat import ChatScreen
from qlora_tui.tui.screens.train import TrainScreen

TINY = (60, 20)

Size = tuple[int, int]


async def there_and_back(pilot: Pilot[str], home: Size, *through: Size) -> None:
    """The screen looks the same after the detour."""
    app: QloraApp = pilot.app  # type: ignore[assignment]
    before = screen_text(app)
    for size in (*through, home):
        await pilot.resize_terminal(*size)
        await settle(pilot)
    await wait_for(pilot, lambda: screen_text(app) == before, f"what was there before:\n{before}\nbut there is:")


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize(("home", "through"), [(SMALL, (MIDDLE,)), (MIDDLE, (TINY,)), (SMALL, (LARGE, TINY))])
def test_a_step(step: int, home: Size, through: tuple[Size, ...]) -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        app.change(CHOSEN)
        app.open_wizard(step)
        await settle(pilot)
        await there_and_back(pilot, home, *through)

    drive(app, steps, home)


@pytest.mark.parametrize(("home", "through"), [(MIDDLE, (TINY, LARGE)), (LARGE, (TINY,))])
def test_a_run(tmp_path: Path, home: Size, through: tuple[Size, ...]) -> None:
    app, run = application(), Story(alive=False, end="completed").write(tmp_path)

    async def steps(pilot: Pilot[str]) -> None:
        screen = TrainScreen(run)
        app._show_alone(screen)
        await wait_for(pilot, shows(pilot, "smoothed"), "the curves")
        await wait_for(pilot, lambda: screen.panels.charted == screen.follower.view.changes > 0, "all of them")
        await settle(pilot)
        await there_and_back(pilot, home, *through)

    drive(app, steps, home)


def test_a_run_that_is_over_fills_the_room_for_its_log(tmp_path: Path) -> None:
    app, run = application(), Story(alive=False, end="completed").write(tmp_path)

    async def steps(pilot: Pilot[str]) -> None:
        app._show_alone(TrainScreen(run))
        await wait_for(pilot, shows(pilot, "prepare: started"), "the log from its beginning")

    drive(app, steps, LARGE)


def test_the_settings_of_the_chat_come_with_the_room_until_they_are_asked_for(tmp_path: Path) -> None:
    app, run = application(), Story(alive=False, end="completed", adapter=True).write(tmp_path)

    async def steps(pilot: Pilot[str]) -> None:
        app._show_alone(ChatScreen(run, StandInSession()))  # type: ignore[arg-type]
        await settle(pilot)

        async def shown(size: Size) -> bool:
            await pilot.resize_terminal(*size)
            await settle(pilot)
            return shows(pilot, "temperature")()

        assert [await shown(size) for size in (SMALL, MIDDLE, SMALL)] == [False, True, False]
        await pilot.press("f2")
        assert [await shown(size) for size in (SMALL, MIDDLE)] == [True, True]
        await pilot.press("f2")
        assert [await shown(size) for size in (MIDDLE, SMALL, LARGE)] == [False, False, False]

    drive(app, steps, SMALL)


@pytest.mark.parametrize("key", ["ctrl+p", "f10", "f4", "question_mark"])
def test_dialogs_survive_a_terminal_that_shows_next_to_nothing(tmp_path: Path, key: str) -> None:
    app, run = application(), Story(alive=False, end="completed", adapter=True).write(tmp_path)

    async def steps(pilot: Pilot[str]) -> None:
        app._show_alone(ChatScreen(run, StandInSession()))  # type: ignore[arg-type]
        await settle(pilot)
        app.screen.set_focus(None)
        await pilot.press(key)
        await settle(pilot)
        below = len(app.screen_stack)
        assert below > 2
        for width in (*range(14, 0, -1), 80):
            await pilot.resize_terminal(width, 10)
        assert len(app.screen_stack) == below

    drive(app, steps, SMALL)
