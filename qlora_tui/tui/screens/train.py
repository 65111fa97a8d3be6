"""A run under way, or one that is over: curves, numbers, samples, advice, log; and what can be done with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import ContentSwitcher, ProgressBar, RichLog, Static, Tab, Tabs
from textual.worker import get_current_worker

from qlora_tui.errors import QloraError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.text import one_line
from qlora_tui.tui import run_words
from qlora_tui.tui.follower import Condition, Follower
from qlora_tui.tui.run_log import log_text
from qlora_tui.tui.screens.question import Answer, QuestionScreen, error_screen
from qlora_tui.tui.widgets.helped import Help, Hint, help_for
from qlora_tui.tui.widgets.key_footer import KeyFooter
from qlora_tui.tui.widgets.rail import StepRail, station_keys
from qlora_tui.tui.widgets.tiles import Tiles

if TYPE_CHECKING:
    from qlora_tui.runs.view import Other, RunView
    from qlora_tui.tui.app import QloraApp
    from qlora_tui.tui.widgets.run_charts import RunCharts

STATION = 6
DRAW_SECONDS = 0.25
CHART_SECONDS = 0.5
LOG_LINES = 500
VIEWS = (("charts", "Charts"), ("samples", "Samples"), ("advice", "Advice"), ("log", "Log"))


class TrainScreen(Screen[None]):
    """One run. The engine trains in a process of its own: leaving this screen changes nothing about it."""

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
        Binding("c", "chat", "Chat", id="train.chat", tooltip="Ask what it has learnt"),
        Binding("escape,h,d", "leave", "Home", id="train.leave", tooltip="To the list of runs; training goes on"),
        *station_keys("train"),
    ]

    class Changed(Message):
        """The follower has something new."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, TrainScreen.Changed)

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self.run = run
        self.follower = Follower(run, self._tell, lambda: self.application.services.now())
        self._timer: Timer | None = None
        self._drawn = -1
        self._charted = -1
        self._plain = False
        """Whether the curves were drawn without braille."""
        self._condition_drawn: Condition | None = None
        self._chart_time = 0.0
        self._line = 0
        self._texts: dict[str, Content] = {}
        self._stop_asked = False
        self._other: Other | None = None
        """The run that is compared with."""

    @property
    def application(self) -> QloraApp:
        return cast("QloraApp", self.app)

    def compose(self) -> ComposeResult:
        with Container(id="frame"):
            yield StepRail(STATION, reachable=True)
            with Vertical(id="run"):
                yield Static("", id="run-head", markup=False)
                yield Static("", id="run-phases", markup=False)
                yield ProgressBar(id="run-bar", show_eta=False, show_percentage=False)
                yield Static("", id="run-trouble", markup=False)
                yield Static("", id="run-result", markup=False)
                yield Tiles(id="run-tiles")
                yield Tabs(*(Tab(title, id=f"view-{name}") for name, title in VIEWS), id="views")
                with Container(id="panels"):
                    with ContentSwitcher(id="switch", initial="charts"):
                        yield Container(id="charts")
                        with VerticalScroll(id="samples"):
                            yield Static("", id="samples-text", markup=False)
                        with VerticalScroll(id="advice"):
                            yield Static("", id="advice-text", markup=False)
                        yield RichLog(id="log", max_lines=LOG_LINES, wrap=True, min_width=20)
                    yield Static("", id="tail", markup=False)
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
        self.query_one(StepRail).show(STATION, {}, with_run=True)
        self.query_one("#run-trouble").display = False
        self.query_one("#run-result").display = False
        self.query_one("#run-bar").display = False
        self.query_one(Hint).show(self.field_help())
        self.query_one("#views").focus()
        self.watch(self.app, "theme", self._take_theme, init=False)
        self.follower.start()
        self._add_charts()
        self._timer = self.set_interval(DRAW_SECONDS, self._tick)
        self.draw()

    def _take_theme(self) -> None:
        self.call_after_refresh(self._redraw_charts)  # their colours are not those of a stylesheet

    def on_unmount(self) -> None:
        self.follower.close()

    def on_resize(self) -> None:
        self._drawn = self._charted = -1  # how much fits is another matter now

    def on_screen_suspend(self) -> None:
        if self._timer is not None:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        if self._timer is not None:
            self._timer.resume()

    def _tell(self) -> None:
        if self.is_mounted:
            self.post_message(self.Changed())

    # Drawing

    @work(thread=True, group="charts", exit_on_error=False)
    def _add_charts(self) -> None:
        """Load the plotting library, which takes a moment, beside the first picture."""
        from qlora_tui.tui.widgets.run_charts import RunCharts

        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._mount_charts, RunCharts())

    def _mount_charts(self, charts: RunCharts) -> None:
        if self.is_mounted:
            self.query_one("#charts").mount(charts)
            self.call_after_refresh(self._draw_charts)
            self.application.settle_soon()

    @property
    def _charts(self) -> RunCharts | None:
        found = self.query_one("#charts").children
        return cast("RunCharts", found[0]) if found else None

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
        elif self._charted != view.changes:
            self._draw_charts()  # they are drawn less often, so the last events may still be missing

    def draw(self) -> None:
        """Draw what has changed."""
        with self.follower.lock:
            view, condition = self.follower.view, self.follower.condition
            now = self.application.services.now()
            self._draw_head(view, condition, now)
            if view.changes != self._drawn or condition != self._condition_drawn:
                self.query_one(Tiles).show(run_words.readings(view, now))
                self._draw_panel(view, condition)
            if self._caught_up or time.monotonic() - self._chart_time >= CHART_SECONDS:
                self._draw_charts()
            self._drawn = view.changes
        before, self._condition_drawn = self._condition_drawn, condition
        if before is None or (before.status, before.trouble) != (condition.status, condition.trouble):
            self.refresh_bindings()
            self.query_one(Hint).show(self.field_help())

    def _draw_charts(self) -> None:
        charts, view = self._charts, self.follower.view
        if charts is None or self._panel != "charts" or not charts.is_mounted:
            return
        with self.follower.lock:
            plain = self.application.ascii_only
            if (view.changes, plain) != (self._charted, self._plain):
                self._charted, self._plain, self._chart_time = view.changes, plain, time.monotonic()
                charts.show(view, self._other, plain=plain)

    def _say(self, place: str, text: Content | None, *, layout: bool = False) -> None:
        """Put a text where it belongs, if it is not there already; None hides the place."""
        widget = self.query_one(f"#{place}", Static)
        if (text is None) == widget.display:
            widget.display = text is not None
        if text is not None and self._texts.get(place) != text:
            self._texts[place] = text
            widget.update(text, layout=layout)

    def _draw_head(self, view: RunView, condition: Condition, now: float) -> None:
        self._say("run-head", run_words.headline(self.run.name, view, condition, now))
        self._say("run-phases", run_words.phase_line(view, condition, self.size.width - 4))
        self._say("run-trouble", run_words.trouble_text(condition) if condition.trouble else None, layout=True)
        self._say("run-result", run_words.result_text(view, condition), layout=True)
        bar, current = self.query_one("#run-bar", ProgressBar), view.progress.current
        bar.display = current is not None and condition.status == "running"
        if current is not None and (bar.total, bar.progress) != (current.total, current.done):
            bar.update(total=current.total, progress=current.done)

    @property
    def _panel(self) -> str:
        return self.query_one("#switch", ContentSwitcher).current or "charts"

    def _draw_panel(self, view: RunView, condition: Condition) -> None:
        """What stands in the chosen panel; the others are drawn when they are chosen."""
        for name, shown in (("advice", len(view.advice)), ("samples", len(view.samples))):
            title = dict(VIEWS)[name] + (f" {shown}" if shown else "")
            tab = self.query_one(f"#view-{name}", Tab)
            if tab.label.plain != title:
                tab.label = Content(title)
        match self._panel:
            case "samples":
                self._say("samples-text", run_words.samples_text(view), layout=True)
            case "advice":
                self._say("advice-text", run_words.advice_text(view), layout=True)
            case "log" if not condition.behind:
                self._draw_log(view)
            case _:
                pass
        if self.query_one("#tail").display and not condition.behind:
            self._say("tail", self._tail_text(view))

    def _tail_text(self, view: RunView) -> Content:
        """The log's last lines, as many as there is room for."""
        room = self.query_one("#tail").size.height or 5
        lines = view.lines_after(view.lines[-1].number - room) if view.lines else []
        return Content("\n").join(run_words.log_line(line) for line in lines)

    def _draw_log(self, view: RunView) -> None:
        log = self.query_one("#log", RichLog)
        if view.lines and view.lines[-1].number < self._line:  # the log was read anew
            self._line = 0
            log.clear()
        for line in view.lines_after(self._line)[-LOG_LINES:]:
            log.write(log_text(line, self.app.theme_variables))
            self._line = line.number

    # Views

    @on(Tabs.TabActivated, "#views")
    def _view_chosen(self, event: Tabs.TabActivated) -> None:
        name = (event.tab.id or "").removeprefix("view-")
        self.query_one("#switch", ContentSwitcher).current = name
        self.query_one("#tail").set_class(name == "log", "-away")
        with self.follower.lock:
            self._draw_panel(self.follower.view, self.follower.condition)
        self.call_after_refresh(self._draw_charts)

    def action_next_view(self) -> None:
        self.query_one("#views", Tabs).action_next_tab()

    def action_scale(self) -> None:
        if self._charts is not None:
            self._charts.toggle_scale()
            self._redraw_charts()

    def action_zoom(self) -> None:
        if self._charts is not None:
            self._charts.toggle_zoom()
            self._redraw_charts()

    def _redraw_charts(self) -> None:
        self._charted = -1
        self._draw_charts()

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

        chosen = await self.app.push_screen_wait(CompareScreen(self.run, self._other.name if self._other else None))
        if chosen is not None:
            self._other = chosen if chosen.name else None
            self._redraw_charts()

    def action_copy(self) -> None:
        self.application.copy(str(self.run.path), "the path of the run's folder")

    def action_chat(self) -> None:
        self.application.open_station("chat", self.run)

    def action_leave(self) -> None:
        self.application.go_home()

    @on(StepRail.Picked)
    def _station_picked(self, event: StepRail.Picked) -> None:
        self.action_go(event.number)

    def action_go(self, number: int) -> None:
        """Go to a station of the rail."""
        if number != STATION:
            self.application.go_to(number, self.run)

    def on_descendant_focus(self) -> None:
        self.query_one(Hint).show(help_for(self.focused) or self.field_help())
