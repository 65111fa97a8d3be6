"""Home: begin, go on with what was begun, and all runs, live and past."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from qlora_tui import __version__
from qlora_tui.errors import QloraError
from qlora_tui.text import one_line
from qlora_tui.tui.screens.question import Answer, QuestionScreen, error_screen
from qlora_tui.tui.widgets.choices import Choices
from qlora_tui.tui.widgets.columns import fitted
from qlora_tui.tui.widgets.helped import Help, Hint, help_for
from qlora_tui.tui.widgets.key_footer import KeyFooter
from qlora_tui.tui.widgets.words import Words

if TYPE_CHECKING:
    from qlora_tui.runs.directory import RunDirectory
    from qlora_tui.runs.overview import RunOverview
    from qlora_tui.tui.app import QloraApp

_POLL_SECONDS = 2.0
_MARKS = {
    "running": ("●", "$success"),
    "completed": ("✓", "$foreground"),
    "early_stopped": ("✓", "$foreground"),
    "stopped": ("■", "$warning"),
    "interrupted": ("✗", "$warning"),
    "failed": ("✗", "$error"),
    "created": ("○", "dim"),
}
_COLUMNS = {"name": 40, "status": 15, "step": 15, "best loss": 11, "changed": 12}
"""Widths at most; a narrow terminal takes from the name."""
_HELP_RUN = Help(
    "Runs",
    "Enter opens a run; the keys at the foot stop it, go on with it, repeat it with changes or delete it.",
    "A run is a folder of its own and trains in a process of its own: closing this program does not end it.",
)


class HomeScreen(Screen[None]):
    """What one can do, and what was done."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "begin", "New", id="home.new", tooltip="A new adapter from the first step on"),
        Binding("s", "stop", "Stop", id="home.stop", tooltip="Ask the run to finish its step, save and stop"),
        Binding("r", "resume", "Resume", id="home.resume", tooltip="Go on from the last checkpoint"),
        Binding("p", "repeat", "Repeat", id="home.repeat", tooltip="Take the run's recipe into the wizard, to change"),
        Binding("o", "compare", "Compare", id="home.compare", tooltip="Draw its loss and another run's in one chart"),
        Binding("c", "chat", "Chat", show=False, id="home.chat", tooltip="Ask what it has learnt"),
        Binding("y", "copy", "Copy path", show=False, id="home.copy", tooltip="Copy the path of the run's folder"),
        Binding("delete,x", "delete", "Delete", id="home.delete", tooltip="Delete the run's folder, after a question"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[RunOverview] = []
        self._timer: Timer | None = None
        self._busy = False

    @property
    def application(self) -> QloraApp:
        return cast("QloraApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(id="home"):
            yield Static(self._banner(), id="banner", markup=False)
            yield Choices(id="begin", help=Help("Begin", "Enter or a click chooses; n begins anew from anywhere."))
            yield Words(id="runs-title")
            yield Choices(id="runs", help=_HELP_RUN)
        yield Hint()
        yield KeyFooter()

    @staticmethod
    def _banner() -> Content:
        return Content.styled("qlora-tui", "bold $primary").append(
            Content.styled(f" {__version__}   from a pile of text to a trained, tested adapter", "dim")
        )

    def on_mount(self) -> None:
        self._draw_beginnings()
        self._draw_runs()
        self.query_one("#begin").focus()
        self._timer = self.set_interval(_POLL_SECONDS, self._poll)
        self.call_after_refresh(self._poll)

    def on_screen_suspend(self) -> None:
        if self._timer is not None:
            self._timer.pause()

    def on_screen_resume(self) -> None:
        if self._timer is not None:
            self._timer.resume()
            self._poll()

    def on_descendant_focus(self) -> None:
        self.query_one(Hint).show(help_for(self.focused))

    # Runs

    def _poll(self) -> None:
        if not self._busy:
            self._busy = True
            self._read_runs()

    @work(thread=True, group="runs", exit_on_error=False)
    def _read_runs(self) -> None:
        try:
            found = self.application.services.runs()
        except OSError:
            found = []
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take_runs, found)

    def _take_runs(self, found: list[RunOverview]) -> None:
        self._busy = False
        self._runs = found
        if self.is_attached:
            self._draw_runs()

    def _draw_runs(self) -> None:
        title, table = self.query_one("#runs-title", Words), self.query_one("#runs", Choices)
        table.display = title.display = bool(self._runs)
        if not self._runs:
            return
        place = table.highlighted
        live = sum(run.status == "running" for run in self._runs)
        words = f"Runs  {len(self._runs)}" + (f", {live} training now" if live else "")
        title.say(Content.styled(words, "bold"))
        now, widths = self.application.services.now(), self._widths()
        heading = "  " + "".join(fitted(name, width) for name, width in widths.items())
        rows = (Option(_row(run, now, list(widths.values()))) for run in self._runs)
        table.set_options([Option(Content.styled(heading, "dim"), disabled=True), *rows])
        table.highlighted = min(max(1, place or 1), len(self._runs))

    def _widths(self) -> dict[str, int]:
        rest = sum(_COLUMNS.values()) - _COLUMNS["name"] + 2
        return _COLUMNS | {"name": max(12, min(_COLUMNS["name"], self.size.width - 5 - rest))}

    def on_resize(self) -> None:
        self._draw_runs()

    def _chosen(self) -> RunOverview | None:
        table = self.query_one("#runs", Choices)
        place = table.highlighted
        return self._runs[place - 1] if self._runs and place and place <= len(self._runs) else None

    @staticmethod
    def _directory(run: RunOverview) -> RunDirectory:
        from qlora_tui.runs.directory import RunDirectory

        return RunDirectory(run.path)

    # Beginnings

    def _draw_beginnings(self) -> None:
        options = []
        if self.application.begun:
            answers = self.application.answers
            chosen = [answers.config.model.source] if answers.model_chosen else []
            chosen += [answers.config.data.source] if answers.data_chosen else []
            detail = one_line(", ".join(chosen) or "a recipe", 90)
            options.append(Option(_choice("Go on where you were", f"step {answers.step}: {detail}"), id="continue"))
        options.append(Option(_choice("Train a new adapter", "hardware, model, data, recipe, review"), id="new"))
        self.query_one("#begin", Choices).set_options(options)
        self.query_one("#begin", Choices).highlighted = 0

    @on(OptionList.OptionSelected, "#begin")
    def _begin_chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option_id == "continue":
            self.application.open_wizard(self.application.answers.step)
        else:
            self.action_begin()

    @on(OptionList.OptionSelected, "#runs")
    def _run_chosen(self) -> None:
        run = self._chosen()
        if run is not None:
            self.application.open_station("train", self._directory(run))

    def action_begin(self) -> None:
        if self.application.begun:
            self._ask_before_new()
        else:
            self.application.open_wizard()

    @work(group="question")
    async def _ask_before_new(self) -> None:
        question = QuestionScreen(
            "Begin anew?",
            "What was answered so far is forgotten.",
            [Answer("keep", "Go on where I was"), Answer("new", "Begin anew")],
        )
        answer = await self.app.push_screen_wait(question)
        if answer == "new":
            self.application.start_anew()
        if answer is not None:
            self.application.open_wizard(self.application.answers.step)

    # What can be done with a run

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action not in ("stop", "resume", "repeat", "compare", "chat", "copy", "delete"):
            return True
        run = self._chosen() if self.is_attached else None
        if run is None or self.focused is None or self.focused.id != "runs":
            return False
        live = run.status == "running"
        over = run.status in ("completed", "early_stopped")
        return {"stop": live, "resume": not live and not over, "delete": not live}.get(action, True)

    @on(OptionList.OptionHighlighted, "#runs")
    def _other_run(self) -> None:
        self.refresh_bindings()

    def action_compare(self) -> None:
        if run := self._chosen():
            self.application.compare(self._directory(run))

    def action_chat(self) -> None:
        if run := self._chosen():
            self.application.open_station("chat", self._directory(run))

    def action_copy(self) -> None:
        if run := self._chosen():
            self.application.copy(str(run.path), "the path of the run's folder")

    def action_stop(self) -> None:
        if run := self._chosen():
            self._act(run, "stop")

    def action_resume(self) -> None:
        if run := self._chosen():
            self._act(run, "resume")

    def action_repeat(self) -> None:
        if run := self._chosen():
            self._act(run, "repeat")

    @work(group="question")
    async def action_delete(self) -> None:
        run = self._chosen()
        if run is None:
            return
        text = f"{run.path}\n\nIts adapter, checkpoints and log are deleted. This cannot be undone."
        answers = [Answer("keep", "Keep it"), Answer("delete", "Delete")]
        question = QuestionScreen(f"Delete the run {one_line(run.name, 64)}?", text, answers, danger=True)
        if await self.app.push_screen_wait(question) == "delete":
            self._act(run, "delete")

    @work(thread=True, group="run-action", exit_on_error=False)
    def _act(self, run: RunOverview, what: str) -> None:
        """Do something with a run in a thread; errors are shown in full."""
        from qlora_tui.tui import run_actions

        directory, tell = self._directory(run), self.app.call_from_thread
        try:
            match what:
                case "stop":
                    tell(self.app.notify, run_actions.stop(directory))
                case "resume":
                    tell(self.app.notify, run_actions.resume(directory))
                case "delete":
                    tell(self.app.notify, run_actions.delete(directory))
                case _:
                    answers = run_actions.answers_of(directory)
                    tell(self._take_recipe, answers)
        except QloraError as error:
            tell(self.app.push_screen, error_screen(error, str(directory.log)))
        tell(self._poll)

    def _take_recipe(self, answers: object) -> None:
        from qlora_tui.tui.answers import Answers

        assert isinstance(answers, Answers)
        self.application.change(answers)
        self.application.open_wizard(answers.step)


def _choice(title: str, detail: str) -> Content:
    return Content.styled(title.ljust(24), "bold").append(Content.styled(detail, "dim"))


def _row(run: RunOverview, now: float, widths: list[int]) -> Content:
    from qlora_tui.runs.overview import age

    mark, colour = _MARKS.get(run.status, ("?", "dim"))
    step = "" if run.step is None else f"{run.step:,}" + (f" of {run.total_steps:,}" if run.total_steps else "")
    loss = "" if run.best_loss is None else f"{run.best_loss:.4f}"
    cells = (one_line(run.name, 64), run.status.replace("_", " "), step, loss, age(max(0.0, now - run.changed)))
    shown = [fitted(cell, width) for cell, width in zip(cells, widths, strict=True)]
    line = Content.styled(f"{mark} ", colour).append(Content(shown[0])).append(Content.styled(shown[1], colour))
    return line.append(Content("".join(shown[2:])))
