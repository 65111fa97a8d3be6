"""Journeys through the wizard, by keys."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input
from tui_helpers import (
    CHOSEN,
    Machine,
    application,
    card,
    drive,
    focused,
    machine,
    overview,
    press,
    screen_text,
    settle,
)

from qlora_tui.errors import DataError, RunError
from qlora_tui.runs import launch
from qlora_tui.runs.directory import create_run
from qlora_tui.tui.answers import with_values
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.draft import load_draft
from qlora_tui.tui.fields import shown_text
from qlora_tui.tui.preferences import load_preferences
from qlora_tui.tui.screens.home import HomeScreen
from qlora_tui.tui.screens.question import QuestionScreen
from qlora_tui.tui.screens.wizard import WizardScreen
from qlora_tui.tui.services import Services
from qlora_tui.tui.widgets.form import FieldRow

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


def test_the_run_starts_on_the_gpu_that_was_chosen() -> None:
    stand_in = Machine(hardware=machine(card(0), card(1)))
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        app.change(replace(CHOSEN, gpu=1))
        app.open_wizard(5)
        await settle(pilot)
        await press(pilot, "s")
        assert stand_in.gpus == ["GPU-1"]

    drive(app, steps)


def test_a_single_gpu_is_left_to_the_environment() -> None:
    stand_in = Machine()
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        app.change(CHOSEN)
        app.open_wizard(5)
        await settle(pilot)
        await press(pilot, "s")
        assert stand_in.gpus == [None]

    drive(app, steps)


def test_the_chosen_gpu_is_the_engines_alone_and_that_of_its_later_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def popen(_command: object, *, env: dict[str, str], **_: object) -> None:
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))

    monkeypatch.setattr("subprocess.Popen", popen)
    monkeypatch.setattr(launch, "_wait_until_owned", lambda *_: None)
    monkeypatch.setattr(launch, "snapshot", lambda: machine(card(0), card(1)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    run = Services().launch(CHOSEN.config, "GPU-1")
    launch.start(run, resume=True)
    monkeypatch.setattr(launch, "snapshot", lambda: machine(card(0)))
    launch.start(run, resume=True)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    launch.start(run, resume=True)
    assert seen == ["GPU-1", "GPU-1", None, "0"]


def test_a_name_that_is_taken_is_told_before_the_start() -> None:
    stand_in = Machine()
    app = application(stand_in)
    create_run(with_values(CHOSEN.config, {"name": "spam"})).events.write_text(
        '{"v": 1, "seq": 1, "time": 1.0, "event": "run_finished", "status": "completed", "steps": 4, "seconds": 1.0}\n'
    )

    async def steps(pilot: Pilot[str]) -> None:
        await _walk_to_review(pilot)
        assert "A run of that name exists" in screen_text(app)
        assert "(completed)" in screen_text(app)
        await press(pilot, "s")
        assert stand_in.launched == []
        await press(pilot, "u")
        assert "A run of that name exists" not in screen_text(app)
        await press(pilot, "s")
        assert [config.name for config in stand_in.launched] == ["spam-2"]

    drive(app, steps)


def test_the_sample_is_offered_where_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in = Machine()
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        await press(pilot, "enter", "2", "enter", "ctrl+n", "down", "enter")
        assert app.answers.config.data.source == "bundled:spam"
        source = app.screen.query_one("#data-source", Input)
        source.focus()
        source.value = ""
        await press(pilot, "enter")
        assert not app.answers.data_chosen
        await press(pilot, "enter", "enter", "ctrl+n", "ctrl+n", "s")  # nothing typed: on to what is near at hand
        assert [config.name for config in stand_in.launched] == ["spam"]

    drive(app, steps)


def test_keys_can_be_changed_and_the_theme_is_kept() -> None:
    app = application(keymap={"wizard.next": "f8"})

    async def steps(pilot: Pilot[str]) -> None:
        await press(pilot, "enter", "f8")
        assert isinstance(app.screen, WizardScreen)
        assert app.screen.step == 2
        app.theme = "qlora-light"
        await settle(pilot)
        assert load_preferences().theme == "qlora-light"

    drive(app, steps)


def test_the_mouse_does_what_the_keys_do() -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        app.open_wizard(4)
        await settle(pilot)
        await pilot.click("#preset-thorough")
        await settle(pilot)
        assert app.answers.value("adapter.rank") == 32
        await pilot.click("#field-training-schedule", offset=(15, 0))
        await settle(pilot)
        assert app.answers.value("training.schedule") == "linear"
        await pilot.click("#rail-model")
        await settle(pilot)
        assert isinstance(app.screen, WizardScreen)
        assert app.screen.step == 2

    drive(app, steps, (120, 36))


def test_every_key_of_ours_has_a_name_and_a_tooltip() -> None:
    from textual.binding import Binding

    from qlora_tui.tui.app import QloraApp
    from qlora_tui.tui.screens.data import DataStep
    from qlora_tui.tui.screens.hardware import HardwareStep
    from qlora_tui.tui.screens.model import ModelStep
    from qlora_tui.tui.screens.recipe import RecipeStep
    from qlora_tui.tui.screens.review import ReviewStep

    owners = (QloraApp, HomeScreen, WizardScreen, HardwareStep, ModelStep, DataStep, RecipeStep, ReviewStep)
    bindings = [each for owner in owners for each in vars(owner)["BINDINGS"]]
    assert all(isinstance(each, Binding) and each.id for each in bindings)
    assert [each.id for each in bindings if not each.tooltip and not each.system] == []
    assert not {"shift+enter", "ctrl+enter", "alt+enter"} & {key for each in bindings for key in each.key.split(",")}


def test_what_is_typed_moves_the_memory_bar() -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        app.open_wizard(4)
        await settle(pilot)
        before = screen_text(app)
        await press(pilot, "2", "5", "6")
        bar = [line for line in screen_text(app).splitlines() if "needs" in line]
        assert bar != [line for line in before.splitlines() if "needs" in line]

    drive(app, steps)


def test_the_first_ctrl_c_only_explains() -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        await press(pilot, "ctrl+c")
        assert app.is_running
        assert app.return_code is None

    drive(app, steps)


def test_leaving_a_step_while_it_is_drawn_does_no_harm() -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        app.change(CHOSEN)
        app.inspect()
        for number in (3, 4, 3, 2, 5, 3, 1):
            app.open_wizard(number)  # without waiting for what the last one still had to do
        app.go_home()
        await settle(pilot)
        assert isinstance(app.screen, HomeScreen)

    drive(app, steps)


def test_resizing_all_the_time_does_no_harm() -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        app.change(CHOSEN)
        app.inspect()
        for number, sizes in ((3, ((200, 50), (20, 5))), (4, ((40, 10), (120, 36)))):
            app.open_wizard(number)
            for size in sizes:
                await pilot.resize_terminal(*size)
        await settle(pilot)
        assert app.is_running

    drive(app, steps)


def test_data_that_was_refused_starts_no_run() -> None:
    stand_in = Machine(said=[], refusal=DataError("The format is not recognised.", "No column fits.", "Name them."))
    app = application(stand_in)

    async def steps(pilot: Pilot[str]) -> None:
        app.change(CHOSEN)
        app.inspect()
        app.open_wizard(5)
        await settle(pilot)
        assert "The data cannot be used: step 3. The format is not recognised." in screen_text(app)
        await press(pilot, "s")
        assert stand_in.launched == []

    drive(app, steps)


async def _rank_field(pilot: Pilot[str], app: QloraApp) -> tuple[FieldRow, Input]:
    """The rank's row in the recipe, and its editor, which has the focus."""
    app.open_wizard(4)
    await settle(pilot)
    editor = focused(app)
    assert isinstance(editor, Input)
    return app.screen.query_one("#field-adapter-rank-row", FieldRow), editor


def test_who_types_is_not_corrected_with_what_was_typed_before() -> None:
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        row, editor = await _rank_field(pilot, app)
        await press(pilot, "home", "shift+end", "1", "6", "0")
        row._typed_texts.update(("1", "16"))
        row.show("16", "")
        assert (editor.value, editor.cursor_position) == ("160", 3)
        await press(pilot, *"0x")
        assert editor.value == "1600x"
        app.change(app.answers.with_preset("thorough"))
        await settle(pilot)
        assert editor.value == shown_text(app.answers, "adapter.rank")

    drive(app, steps)


def test_what_was_typed_is_not_lost_to_news_from_elsewhere() -> None:
    """Anything may have the field drawn again before its new text has reached the answers."""
    app = application()

    async def steps(pilot: Pilot[str]) -> None:
        row, editor = await _rank_field(pilot, app)
        await press(pilot, "end", "ctrl+u")
        editor.value = "3"
        row.show("", "")
        assert editor.value == "3"
        await settle(pilot)
        assert shown_text(app.answers, "adapter.rank") == "3"
        editor.value = "32"
        row.show("3", "")
        assert editor.value == "32"

    drive(app, steps)
