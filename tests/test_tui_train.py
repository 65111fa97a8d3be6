"""The train screen on real run directories: it shows what the log says, obeys keys, and tells trouble in words."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_stories import HOSTILE, Story, abandon, claim, make_adapter
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import RichLog, Static
from tui_helpers import Counted, Machine, application, drive, overview, press, screen_text, settle, shows, wait_for

from qlora_tui.runs import launch
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Advice, Progress
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.screens.home import HomeScreen
from qlora_tui.tui.screens.question import QuestionScreen
from qlora_tui.tui.screens.ship import ShipScreen
from qlora_tui.tui.screens.train import TrainScreen
from qlora_tui.tui.screens.wizard import WizardScreen
from qlora_tui.tui.widgets.metric_chart import _Plot

Steps = Callable[[Pilot[str], TrainScreen], Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers and screens that do not dawdle."""
    monkeypatch.setattr("qlora_tui.tui.follower.POLL_SECONDS", 0.01)
    monkeypatch.setattr("qlora_tui.tui.follower.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("qlora_tui.tui.screens.train.DRAW_SECONDS", 0.05)
    monkeypatch.setattr("qlora_tui.tui.widgets.run_panels.CHART_SECONDS", 0.1)


def watch(run: RunDirectory, steps: Steps, size: tuple[int, int] = (120, 36), app: QloraApp | None = None) -> QloraApp:
    """Open a run, wait until it is read, and do something."""
    app = app or application(Machine())

    async def session(pilot: Pilot[str]) -> None:
        app.open_station("train", run)
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, TrainScreen)
        await wait_for(pilot, lambda: screen._drawn > 0 and not screen.follower._feed.behind, "the log is read")
        await wait_for(pilot, lambda: screen._condition_drawn == screen.follower.condition, "and drawn")
        await steps(pilot, screen)

    drive(app, session, size)
    return app


# --- what is shown


def test_a_live_run_shows_its_numbers(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(
            pilot, shows(pilot, "● training", "step 400 of 1,200", "33%", "tokens/s", "18.4/24.0 GiB"), "all"
        )
        await wait_for(pilot, shows(pilot, "smoothed", "held out", "learning rate", "355/420 W"), "all")
        assert "✓ baseline" in screen_text(screen.app)  # type: ignore[arg-type]

    watch(Story().write(tmp_path), steps)


def test_what_happens_appears_without_a_key(tmp_path: Path) -> None:
    story = Story(steps=20)
    run = story.write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        story.append(
            run, story.step(21, random.Random(0)), Advice(topic="plateau", message="It stands.", change="Stop.")
        )
        await wait_for(pilot, shows(pilot, "step 21 of 1,200", "Advice 1"), "the new step and the advice")

    watch(run, steps)


def test_a_run_that_is_over_shows_its_result(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "✓ completed", "2.6100 → 0.9900", "no clear difference"), "the comparison")
        assert not screen.check_action("stop", ())
        assert not screen.check_action("resume", ())

    watch(Story(end="completed", alive=False).write(tmp_path), steps)


def test_a_failure_shows_what_why_and_what_to_do(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "✗ failed", "not a number", "Lower training.learning_rate"), "the error")
        assert screen.check_action("resume", ())

    watch(Story(end="failed", alive=False).write(tmp_path), steps)


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
def test_every_view_can_be_reached_by_key_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        for text in ("warehouse", "starving", "sample at step"):
            await press(pilot, "v")
            await wait_for(pilot, shows(pilot, text), text)
        await press(pilot, "v", "l", "z")
        await wait_for(pilot, shows(pilot, "log scale"), "the chart again")

    watch(Story().write(tmp_path), steps, size)


def test_tabs_answer_to_the_mouse(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await pilot.click("#views", offset=(len(" Charts  Samples 5  A"), 0))
        await wait_for(pilot, shows(pilot, "waits for its next batch"), "the advice")

    watch(Story().write(tmp_path), steps)


def test_a_loss_that_is_no_number_is_marked(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "1 not a number"), "the mark in the legend")

    watch(Story(broken_at=200).write(tmp_path), steps)


def test_hostile_text_is_text(tmp_path: Path) -> None:
    story = Story(text=HOSTILE, name="a-run")
    run = story.write(tmp_path)
    story.append(run, Advice(topic=HOSTILE, message=HOSTILE * 50, change=HOSTILE))

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        for _ in range(4):
            await press(pilot, "v")
            text = screen_text(pilot.app)  # type: ignore[arg-type]
            assert "\x1b" not in text
            assert "\u202e" not in text
        assert "[red]" in str(screen.query_one("#samples-text", Static).content)

    watch(run, steps)


def test_without_braille_the_curves_are_ascii(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "* smoothed", "o held out"), "the legend in ASCII")
        assert not any("\u2800" <= character <= "\u28ff" for character in screen_text(pilot.app))  # type: ignore[arg-type]

    watch(Story().write(tmp_path), steps, app=application(Machine(), ascii=True))


def test_the_stage_of_a_long_preparation_is_named(tmp_path: Path) -> None:
    story = Story(until="prepare")
    run = story.write(tmp_path)
    story.append(run, Progress(phase="prepare", done=0, total=3, unit="stages", message="reading the GGUF tensors"))

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "▸ prepare 0% (reading the GGUF tensors)"), "what it does")

    watch(run, steps)


def test_a_run_that_has_not_begun_waits(tmp_path: Path) -> None:
    run = Story().write(tmp_path)
    run.events.unlink()
    app = application(Machine())

    async def session(pilot: Pilot[str]) -> None:
        app.open_station("train", run)
        await wait_for(pilot, shows(pilot, "waiting for the first event"), "it says that it waits")

    drive(app, session)


# --- trouble, within three seconds


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (lambda run: abandon(run), "gone without a last word"),
        (lambda run: run.path.rename(run.path.with_name("away")), "deleted"),
        (lambda run: run.events.write_bytes(run.events.read_bytes()[:20_000]), "was cut or replaced"),
    ],
    ids=["dead", "vanished", "cut"],
)
def test_trouble_is_told_in_words(tmp_path: Path, trouble: Callable[[RunDirectory], Any], told: str) -> None:
    run = Story().write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        start = time.monotonic()
        trouble(run)
        await wait_for(pilot, shows(pilot, told), told)
        assert time.monotonic() - start < 3

    watch(run, steps)


# --- what can be done


def test_the_first_stop_asks_the_run_and_the_second_asks_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, killed = Story().write(tmp_path), []
    monkeypatch.setattr(launch, "kill", lambda each: killed.append(each.name))

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "s")
        assert (run.control / "stop").exists()
        await press(pilot, "s")
        assert isinstance(pilot.app.screen, QuestionScreen)
        await press(pilot, "enter")
        assert killed == []
        await press(pilot, "s", "right", "enter")
        assert killed == [run.name]

    watch(run, steps)


def test_a_checkpoint_and_a_sample_are_asked_for(tmp_path: Path) -> None:
    run = Story().write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "k", "e")
        assert (run.control / "checkpoint").exists()
        assert (run.control / "sample").exists()

    watch(run, steps)


def test_a_request_that_cannot_be_left_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launch, "request", refuse)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "k")
        await wait_for(pilot, shows(pilot, "No space left on device", "What to do"), "the error")

    watch(Story().write(tmp_path), steps)


def test_a_run_that_broke_off_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, started = Story(alive=False).write(tmp_path), []

    def start(each: RunDirectory, *, resume: bool = False) -> None:
        started.append((each.name, resume))
        claim(each)

    monkeypatch.setattr(launch, "start", start)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "r")
        assert started == [(run.name, True)]
        await wait_for(pilot, shows(pilot, "● training"), "it trains again")

    watch(run, steps)


def test_deleting_asks_first(tmp_path: Path) -> None:
    run = Story(alive=False, end="completed").write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "x", "enter")
        assert run.path.exists()
        await press(pilot, "x", "right", "enter")
        await wait_for(pilot, lambda: not run.path.exists(), "it is deleted")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, HomeScreen), "and the runs are shown")

    watch(run, steps)


def test_a_live_run_cannot_be_deleted(tmp_path: Path) -> None:
    run = Story().write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "x")
        assert not isinstance(pilot.app.screen, QuestionScreen)

    watch(run, steps)


def test_a_recipe_is_taken_to_the_wizard(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "p")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, WizardScreen), "the wizard opens")
        answers = pilot.app.answers  # type: ignore[attr-defined]
        assert answers.config.data.source == "mails.jsonl"
        assert answers.config.name != "support-mails"

    watch(Story(alive=False, end="completed").write(tmp_path), steps)


def test_another_run_is_drawn_beside(tmp_path: Path) -> None:
    run = Story().write(tmp_path)
    Story(name="older", steps=200, alive=False, end="stopped").write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "o")
        await wait_for(pilot, shows(pilot, "older"), "the other run is offered")
        await press(pilot, "enter")
        await wait_for(pilot, shows(pilot, "╌ older"), "it is in the legend")
        await press(pilot, "o")
        await wait_for(pilot, shows(pilot, "no other run"), "it can be taken away")
        await press(pilot, "home", "enter")
        await wait_for(pilot, lambda: "╌ older" not in screen_text(pilot.app), "it is gone")  # type: ignore[arg-type]

    watch(run, steps)


def test_two_runs_are_compared_from_the_list(tmp_path: Path) -> None:
    run = Story(alive=False, end="completed").write(tmp_path)
    Story(name="older", steps=200, alive=False, end="stopped").write(tmp_path)
    app = application(Machine(runs=[overview(run.name, path=run.path)]))

    async def session(pilot: Pilot[str]) -> None:
        await press(pilot, "tab", "o")
        await wait_for(pilot, shows(pilot, "older"), "the other run is offered")
        await press(pilot, "enter")
        await wait_for(pilot, shows(pilot, "╌ older", "support-mails"), "both are drawn")

    drive(app, session, (120, 36))


def test_the_stations_are_a_digit_away(tmp_path: Path) -> None:
    run = Story(end="completed", alive=False, adapter=True).write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "8")
        assert isinstance(pilot.app.screen, ShipScreen)
        await press(pilot, "6")
        assert isinstance(pilot.app.screen, TrainScreen)
        await press(pilot, "4")
        assert isinstance(pilot.app.screen, WizardScreen)

    watch(run, steps)


def test_comparing_without_other_runs_says_so(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "o")
        await wait_for(pilot, shows(pilot, "no other run in this folder"), "it says so")

    watch(Story().write(tmp_path), steps)


def test_chat_and_home_are_a_key_away(tmp_path: Path) -> None:
    run = Story(end="completed", alive=False).write(tmp_path)
    make_adapter(run)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, HomeScreen)
        assert not screen.follower._thread.is_alive(), "nothing goes on reading"

    watch(run, steps)


# --- leaving


def test_quitting_detaches_by_default_and_says_how_to_come_back(tmp_path: Path) -> None:
    run = Story().write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "q")
        assert isinstance(pilot.app.screen, QuestionScreen)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, TrainScreen)
        await press(pilot, "q")
        await pilot.press("enter")
        await pilot.pause()

    app = watch(run, steps)
    assert app.return_value is not None
    assert "qlora-tui attach" in app.return_value
    assert not (run.control / "stop").exists()


def test_quitting_can_stop_and_save(tmp_path: Path) -> None:
    run = Story().write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await press(pilot, "q", "right")
        await pilot.press("enter")
        await pilot.pause()

    app = watch(run, steps)
    assert app.return_value is not None
    assert "qlora-tui resume" in app.return_value
    assert (run.control / "stop").exists()


def test_two_interrupts_leave_with_the_same_words(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await pilot.press("ctrl+c")
        await pilot.press("ctrl+c")
        await pilot.pause()

    app = watch(Story().write(tmp_path), steps)
    assert "qlora-tui attach" in (app.return_value or "")


def test_nothing_is_asked_when_nothing_trains(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await pilot.press("q")
        await pilot.pause()

    app = watch(Story(end="completed", alive=False).write(tmp_path), steps)
    assert app.return_value is None


# --- length


@pytest.mark.full
def test_a_long_run_shows_its_newest_numbers_before_its_log_is_read(tmp_path: Path) -> None:
    """100,000 steps: the first picture does not wait for the log, and keys act while it is read."""
    run = Story(steps=100_000, total=120_000, every=5_000).write(tmp_path)
    app = application(Machine())
    times: dict[str, float] = {}

    async def session(pilot: Pilot[str]) -> None:
        start = time.monotonic()
        app.open_station("train", run)
        screen = app.screen
        assert isinstance(screen, TrainScreen)
        await wait_for(pilot, shows(pilot, "step 100,000 of"), "the newest step", seconds=30)
        times["first"] = time.monotonic() - start
        await wait_for(pilot, lambda: screen.follower.view.step == 100_000, "all of it", seconds=120)
        times["all"] = time.monotonic() - start

    drive(app, session, (120, 36))
    assert times["first"] < 10, times


def test_a_full_log_does_not_fill_the_screen(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        screen.panels.tabs.choose("log")
        await wait_for(pilot, lambda: len(screen.query_one("#log", RichLog).lines) > 0, "lines are there")
        assert len(screen.query_one("#log", RichLog).lines) <= 500

    watch(Story(steps=3000, every=3, total=4000).write(tmp_path), steps)


# --- a long run


def alive_widgets() -> int:
    """Every widget that something still holds, on the screen or not."""
    gc.collect()
    return sum(isinstance(each, Widget) for each in gc.get_objects())


def test_nothing_is_left_behind_by_what_a_run_says(tmp_path: Path) -> None:
    story, source = Story(steps=100, total=100_000), random.Random(5)
    run = story.write(tmp_path)

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await pilot.pause(0.2)
        before, last = alive_widgets(), 100
        for _ in range(2):
            with screen.follower.lock:  # the screen falls behind, as beside a busy machine
                story.append(run, *(story.step(last + each, source) for each in range(1, 101)))
                await pilot.pause(0.12)
            last += 100
            await wait_for(pilot, shows(pilot, f"step {last:,} of"), "all of it")
            screen.refresh_bindings()  # as when the run's status changes; Textual's own footer keeps its keys of before
            await press(pilot, "tab", "shift+tab")
        await pilot.pause(0.2)
        assert alive_widgets() <= before

    watch(run, steps)


def test_what_a_run_says_asks_for_no_new_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and curves change in their places: laying out the whole screen takes longer than drawing them."""
    story, source = Story(steps=100, total=100_000), random.Random(5)
    run, layouts = story.write(tmp_path), Counted(monkeypatch, TrainScreen, "_refresh_layout")

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "smoothed"), "the curves are there")
        await pilot.pause(0.3)
        layouts.calls = 0
        for number in range(101, 106):
            story.append(run, story.step(number, source))
            await wait_for(pilot, shows(pilot, f"step {number} of"), "the step is there")
            await wait_for(pilot, lambda: screen.panels.charted == screen.follower.view.changes, "its point too")
        await pilot.pause(0.2)
        assert layouts.calls == 0

    watch(run, steps)


def test_curves_that_come_back_unchanged_are_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Counted(monkeypatch, _Plot, "_render_plot")

    async def steps(pilot: Pilot[str], screen: TrainScreen) -> None:
        await wait_for(pilot, shows(pilot, "smoothed"), "the curves are there")
        await pilot.pause(0.3)
        drawn.calls = 0
        for name in ("samples", "charts", "advice", "charts"):
            screen.panels.tabs.choose(name)
            await pilot.pause(0.1)
        assert "smoothed" in screen_text(screen.app)  # type: ignore[arg-type]
        assert drawn.calls == 0

    watch(Story(end="completed", alive=False).write(tmp_path), steps)
