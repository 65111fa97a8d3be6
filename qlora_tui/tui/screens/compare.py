"""Choose another run, whose loss is then drawn beside this one's."""

from __future__ import annotations

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from qlora_tui.runs.directory import RunDirectory, list_runs
from qlora_tui.runs.events import Eval, Step
from qlora_tui.runs.feed import EventFeed
from qlora_tui.runs.progress import SMOOTHING
from qlora_tui.runs.series import Series
from qlora_tui.runs.view import Other
from qlora_tui.text import one_line
from qlora_tui.tui.widgets.words import Words

NONE = "none"
MOST = 200


class CompareScreen(ModalScreen[Other | None]):
    """The other runs; the answer is the chosen one's loss, or one without points for no comparison."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Cancel", id="compare.cancel", tooltip="Leave the chart as it is"),
    ]

    def __init__(self, run: RunDirectory, present: str | None) -> None:
        super().__init__()
        self._run = run
        self._present = present
        self._others: list[RunDirectory] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Compare the loss with", classes="dialog-title", markup=False)
            yield OptionList(id="others")
            yield Words(id="compare-note", classes="muted")

    def on_mount(self) -> None:
        self._find()

    @work(thread=True, exit_on_error=False)
    def _find(self) -> None:
        folder = self._run.path.parent
        found = [run for run in list_runs(folder) if run.path != self._run.path and run.events.exists()][:MOST]
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._show, found)

    def _show(self, found: list[RunDirectory]) -> None:
        self._others = found
        options = [Option(Content(one_line(run.name, 64)), id=str(number)) for number, run in enumerate(found)]
        if self._present is not None:
            options.insert(0, Option(Content("no other run"), id=NONE))
        chooser = self.query_one("#others", OptionList)
        chooser.set_options(options)
        chooser.highlighted = 0 if options else None
        chooser.focus()
        if not options:
            self.query_one("#compare-note", Words).say("There is no other run in this folder.")

    @on(OptionList.OptionSelected, "#others")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option_id == NONE:
            self.dismiss(Other("", Series(), Series()))
            return
        self.query_one("#compare-note", Words).say("Reading its log …")
        self._read(self._others[int(event.option_id or 0)])

    @work(thread=True, exit_on_error=False)
    def _read(self, run: RunDirectory) -> None:
        other = read_losses(run)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.dismiss, other)


def read_losses(run: RunDirectory) -> Other:
    """The smoothed loss and the held-out loss of a run, from its log."""
    feed, loss, held_out = EventFeed(run.events), Series(), Series()
    total = weight = 0.0
    while records := feed.poll():
        for record in records:
            event = record.event
            if isinstance(event, Step) and event.loss is not None:
                total, weight = SMOOTHING * total + (1 - SMOOTHING) * event.loss, SMOOTHING * weight + 1 - SMOOTHING
                loss.add(event.step, total / weight)
            elif isinstance(event, Eval) and event.stage == "during":
                held_out.add(event.step, event.loss)
    return Other(one_line(run.name, 64), loss, held_out)
