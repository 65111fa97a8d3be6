"""What stands above the panels of a run: its name and state, its phases, and what went wrong or came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import ProgressBar

from qlora_tui.tui import run_words
from qlora_tui.tui.widgets.words import Words

if TYPE_CHECKING:
    from qlora_tui.runs.view import RunView
    from qlora_tui.tui.follower import Condition


class RunHead(Vertical):
    """The head of the train screen."""

    DEFAULT_CSS = """
    RunHead { height: auto; }
    RunHead > #run-head, RunHead > #run-phases { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    RunHead > #run-bar { width: 1fr; height: 1; display: none; }
    RunHead > #run-bar Bar { width: 1fr; }
    RunHead > #run-bar Bar > .bar--bar { color: $primary; background: $panel; }
    RunHead > #run-bar Bar > .bar--complete { color: $success; background: $panel; }
    RunHead > #run-bar Bar > .bar--indeterminate { color: $primary; background: $panel; }
    RunHead > #run-trouble {
        height: auto; max-height: 3; background: $error 20%; color: $foreground; padding: 0 1; display: none;
    }
    RunHead > #run-result { height: auto; max-height: 4; display: none; }
    """

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self._run_name = run_name

    def compose(self) -> ComposeResult:
        yield Words(id="run-head")
        yield Words(id="run-phases")
        yield ProgressBar(id="run-bar", show_eta=False, show_percentage=False)
        yield Words(id="run-trouble")
        yield Words(id="run-result")

    def show(self, view: RunView, condition: Condition, now: float) -> None:
        """Draw the state of a run."""
        self._say("run-head", run_words.headline(self._run_name, view, condition, now))
        self._say("run-phases", run_words.phase_line(view, condition, self.app.size.width - 4))
        self._say("run-trouble", run_words.trouble_text(condition) if condition.trouble else None)
        self._say("run-result", run_words.result_text(view, condition))
        bar, current = self.query_one("#run-bar", ProgressBar), view.progress.current
        shown = current is not None and condition.status == "running"
        if bar.display != shown:
            bar.display = shown
        if current is not None and (bar.total, bar.progress) != (current.total, current.done):
            bar.update(total=current.total, progress=current.done)

    def _say(self, place: str, text: Content | None) -> None:
        self.query_one(f"#{place}", Words).say(text)
