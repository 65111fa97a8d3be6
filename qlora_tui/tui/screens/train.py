"""A run under way, or one that is over: curves, numbers, samples, advice, log; and what can be done with it."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.message import Message
from textual.timer import Timer

from qlora_tui.errors import QloraError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.text import one_line
from qlora_tui.tui import run_words
from qlora_tui.tui.follower import Condition, Follower
from qlora_tui.tui.screens.question import Answer, QuestionScreen, error_screen
from qlora_tui.tui.screens.station import StationScreen
from qlora_tui.tui.widgets.helped import Help, Hint
from qlora_tui.tui.widgets.key_footer import KeyFooter
from qlora_tui.tui.widgets.rail import StepRail, station_keys
from qlora_tui.tui.widgets.run_head import RunHead
from qlora_tui.tui.widgets.run_panels import RunPanels
from qlora_tui.tui.widgets.tiles import Tiles

DRAW_SECONDS = 0.25


class TrainScreen(StationScreen):
    """One run. The engine trains in a process of its own: leaving this screen changes nothing about it."""

    STATION = 6
    CSS_PATH = "train.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stop", "Stop and save", id="train.stop", tooltip="Finish the step, save everything, end the run"),
        Binding("k", "checkpoint", "Checkpoint", id="train.checkpoint", tooltip="Write a checkpoint after this step"),
        Binding("r", "resume", "Resume", id="train.resume", tooltip="Go on from the last checkpoint"),
        Binding("v", "next_view", "View", id="train.view", tooltip="Charts, samples, advice, log"),
        Binding("o", "compare", "Compare", id="train.compare", tooltip="Draw another run's loss beside this one's"),
        Binding("l", "scale", "Log scale", show=False, id="train.scale", tooltip="Logarithm of the loss, or the loss"),
        Binding("z", "zoom", "Zoom", show=False, id="train.zoom", tooltip="The whole run, or its last fifth"),
        Binding("e", "sample", "Sample", show=False, id="train.sample", tooltip="Answer the config's prompts now"),
        Binding("p", "repeat", "Repeat", show=False, id="train.repeat", tooltip="Take the recipe to the wizard"),
        Binding("y", "copy", "Copy path", show=False, id="train.copy", tooltip="Copy the path of the run's folder"),
        Binding("x,delete", "delete", "Delete", show=False, id="train.delete", tooltip="Delete it, after a question"),
        Binding("c,ctrl+n", "chat", "Chat", id="train.chat", tooltip="Ask what it has learnt"),
        Binding("escape,h,d", "leave", "Home", id="train.leave", tooltip="To the list of runs; training goes on"),
        *station_keys("train"),
    ]

    class Changed(Message):
        """The follower has something new."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TrainScreen.Changed)

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run: RunDirectory = run
        self.follower = Follower(run, self._tell, lambda: self.application.services.now())
        self._timer: Timer | None = None
        self._drawn = -1
        self._condition_drawn: Condition | None = None
        self._stop_asked = False

    def compose(self) -> ComposeResult:
        with Container(id="frame"):
            yield StepRail(self.STATION, reachable=True)
            with Vertical(id="run"):
                yield RunHead(self.run.name)
                yield Tiles(id="run-tiles")
                yield RunPanels(self.follower)
                yield Hint()
        yield KeyFooter()

    def field_help(self) -> Help:
        live = self.follower.condition.status == "running"
        goes_on = "It goes on without this terminal; `qlora-tui attach` comes back."
        return Help(
            "Training",
            goes_on if live else "c asks the adapter, 8 ships it, o compares the loss of two runs.",
            "Faint: the loss of each step. Bold: smoothed. Points: held-out rows, which tell whether it learns or only "
            "remembers.",
        )

    def on_mount(self) -> None:
        self.query_one(Hint).show(self.field_help())
        self.panels.tabs.focus()
        self.follower.start()
        self._timer = self.set_interval(DRAW_SECONDS, self._tick)
        self.draw()

    def on_unmount(self) -> None:
        self.follower.close()

    def on_resize(self) -> None:
        self._drawn = -1  # how much fits is another matter now

    def on_screen_suspend(self) -> None:
        if self._timer is not None:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        if self._timer is not None:
            self._timer.resume()

    @property
    def panels(self) -> RunPanels:
        """Charts, samples, advice, log."""
        return self.query_one(RunPanels)

    # Drawing

    def _tell(self) -> None:
        if self.is_mounted:
            self.post_message(self.Changed())

    @on(Changed)
    def _something_new(self) -> None:
        if (self._drawn < 0 and self.follower.view.changes) or self._caught_up:
            self.draw()  # the first events are shown at once, and the end of a long log; else the timer sets the pace

    @property
    def _caught_up(self) -> bool:
        """Whether the log has been read to its end, and what is drawn does not say so yet."""
        drawn = self._condition_drawn
        return drawn is not None and drawn.behind > 0 and not self.follower.condition.behind

    def _tick(self) -> None:
        view, condition = self.follower.view, self.follower.condition
        if view.changes != self._drawn or condition != self._condition_drawn or condition.status == "running":
            self.draw()
        else:
            self.panels.show_charts()  # they are drawn less often, so the last events may still be missing

    def draw(self) -> None:
        """Draw what has changed."""
        with self.follower.lock:
            view, condition = self.follower.view, self.follower.condition
            now = self.application.services.now()
            self.query_one(RunHead).show(view, condition, now)
            if view.changes != self._drawn or condition != self._condition_drawn:
                self.query_one(Tiles).show(run_words.readings(view, now))
                self.panels.show()
            if self._caught_up or self.panels.charts_due:
                self.panels.show_charts()
            self._drawn = view.changes
        before, self._condition_drawn = self._condition_drawn, condition
        if before is None or (before.status, before.trouble) != (condition.status, condition.trouble):
            self.refresh_bindings()
            self.query_one(Hint).show(self.field_help())

    # Views

    def action_next_view(self) -> None:
        self.panels.tabs.action_move(1)

    def action_scale(self) -> None:
        if (charts := self.panels.charts) is not None:
            charts.toggle_scale()
            self.panels.redraw_charts()

    def action_zoom(self) -> None:
        if (charts := self.panels.charts) is not None:
            charts.toggle_zoom()
            self.panels.redraw_charts()

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        status = self.follower.condition.status
        live, over = status == "running", status in ("completed", "early_stopped")
        gone = self.follower.condition.trouble == "vanished"
        allowed = {
            "stop": live,
            "checkpoint": live,
            "sample": live,
            "resume": not live and not over and not gone,
            "delete": not live and not gone,
            "chat": not gone,
        }
        return allowed.get(action, True)

    def action_stop(self) -> None:
        if self._stop_asked:
            self._ask_to_kill()
        else:
            self._stop_asked = True
            self._do("stop", "It finishes its step, saves and stops. s once more ends it at once.")

    @work(group="question")
    async def _ask_to_kill(self) -> None:
        question = QuestionScreen(
            "End it at once?",
            "The run was asked to stop and is finishing its step. Ended at once, it loses what came after its last "
            "checkpoint.",
            [Answer("wait", "Wait"), Answer("kill", "End it now")],
            danger=True,
        )
        if await self.app.push_screen_wait(question) == "kill":
            self._do("kill", "Ended. r goes on from the last checkpoint.")

    def action_checkpoint(self) -> None:
        self._do("checkpoint", "A checkpoint is written after this step.")

    def action_sample(self) -> None:
        self._do("sample", "The prompts of the config are answered after this step.")

    def action_resume(self) -> None:
        self._stop_asked = False
        self._do("resume", "Going on from the last checkpoint.")

    @work(group="question")
    async def action_delete(self) -> None:
        text = f"{self.run.path}\n\nIts adapter, checkpoints and log are deleted. This cannot be undone."
        answers = [Answer("keep", "Keep it"), Answer("delete", "Delete")]
        question = QuestionScreen(f"Delete the run {one_line(self.run.name, 64)}?", text, answers, danger=True)
        if await self.app.push_screen_wait(question) == "delete":
            self._do("delete", f"{self.run.name} is deleted.")

    @work(thread=True, group="run-action", exit_on_error=False)
    def _do(self, what: str, told: str) -> None:
        from qlora_tui.tui import run_actions

        tell = self.app.call_from_thread
        try:
            run_actions.perform(self.run, what)
        except QloraError as error:
            if what == "stop":
                self._stop_asked = False
            tell(self.app.push_screen, error_screen(error, str(self.run.log)))
            return
        tell(self.app.notify, told)
        if what == "delete":
            tell(self.application.go_home)

    @work(thread=True, group="run-action", exit_on_error=False)
    def action_repeat(self) -> None:
        from qlora_tui.tui import run_actions

        tell = self.app.call_from_thread
        try:
            answers = run_actions.answers_of(self.run)
        except QloraError as error:
            tell(self.app.push_screen, error_screen(error, str(self.run.config)))
            return
        tell(self.application.change, answers)
        tell(self.application.open_wizard, answers.step)

    @work(group="question")
    async def action_compare(self) -> None:
        from qlora_tui.tui.screens.compare import CompareScreen

        other = self.panels.other
        chosen = await self.app.push_screen_wait(CompareScreen(self.run, other.name if other else None))
        if chosen is not None:
            self.panels.compare_with(chosen if chosen.name else None)

    def action_copy(self) -> None:
        self.application.copy(str(self.run.path), "the path of the run's folder")

    def action_chat(self) -> None:
        self.application.open_station("chat", self.run)

    def action_leave(self) -> None:
        self.application.go_home()
