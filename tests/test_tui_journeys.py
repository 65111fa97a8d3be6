"""Journeys through the wizard, by keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input
from tui_helpers import Machine, application, drive, overview, press, screen_text, settle

from qlora_tui.errors import RunError
from qlora_tui.tui.answers import load_draft
from qlora_tui.tui.screens.home import HomeScreen
from qlora_tui.tui.screens.question import QuestionScreen
from qlora_tui.tui.screens.wizard import WizardScreen

ROWS = Path(__file__).parent.parent / "examples" / "spam.jsonl"


async def _walk_to_review(pilot: Pilot[str]) -> None:
    await press(pilot, "enter", "2", "enter", "ctrl+n")
    source = pilot.app.screen.query_one("#data-source", Input)
    source.focus()
    source.value = str(ROWS)
    await press(pilot, "enter", "ctrl+n", "ctrl+n")


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)])
def test_a_run_is_started_by_keys_alone(size: tuple[int, int]) -> None:
    stand_in = Machine()
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        await _walk_to_review(pilot)
        assert not app.screen.query_one("#start", Button).disabled, screen_text(app)
        await press(pilot, "s")
        assert [config.data.source for config in stand_in.launched] == [str(ROWS)]
        assert load_draft() is None

    drive(app, steps, size)


def test_what_keeps_a_run_from_starting_is_told() -> None:
    stand_in = Machine()
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        await press(pilot, "enter", "5")
        text = screen_text(app)
        assert "No model is chosen: step 2." in text
        assert "No data is chosen: step 3." in text
        await press(pilot, "ctrl+p")
        await press(pilot, "escape")
        assert stand_in.launched == []

    drive(app, steps)


def test_a_failed_launch_is_shown_in_full_and_can_be_tried_again() -> None:
    stand_in = Machine(failure=RunError("Cannot create the run x.", "It exists [bold].", "Choose another name."))
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        await _walk_to_review(pilot)
        await press(pilot, "s")
        assert isinstance(app.screen, QuestionScreen)
        assert "It exists [bold]." in screen_text(app)
        assert "Choose another name." in screen_text(app)
        await press(pilot, "escape")
        stand_in.failure = None
        await press(pilot, "s")
        assert len(stand_in.launched) == 1

    drive(app, steps)


def test_answers_survive_a_crash() -> None:
    async def answer(pilot: Pilot[str]) -> None:
        await press(pilot, "enter", "4", "6", "4")
        await pilot.pause(0.5)
        await settle(pilot)

    drive(application(), answer)
    draft = load_draft()
    assert draft is not None
    assert draft.config.adapter.rank == 64
    app = application()

    async def go_on(pilot: Pilot[str]) -> None:
        assert "Go on where you were" in screen_text(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, WizardScreen)
        assert app.screen.step == 4
        assert app.screen.query_one("#field-adapter-rank", Input).value == "64"

    drive(app, go_on)


def test_home_lists_runs_live_and_past() -> None:
    app = application(Machine(runs=[overview("spam-2", "running", step=12), overview("spam")]))

    async def steps(pilot: Pilot[str]) -> None:
        assert isinstance(app.screen, HomeScreen)
        text = screen_text(app)
        assert "1 training now" in text
        assert "12 of 40" in text
        assert "2 h ago" in text

    drive(app, steps)
