"""Step 3: what the model learns from."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, Static

from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.widgets.helped import Help


class SourceInput(Input):
    """Where the rows are."""

    def field_help(self) -> Help:
        return Help("Data", "A file with one JSON object a line; enter takes it.")


class DataStep(StepPane):
    """A source, and what its rows teach."""

    NUMBER = 3
    TITLE = "Data"
    ABOUT = "What the model learns from, exactly as it will see it."

    def compose(self) -> ComposeResult:
        yield SourceInput(placeholder="a .jsonl file", compact=True, id="data-source")
        yield Static("", id="data-note", markup=False)

    def draw(self) -> None:
        answers = self.view.answers
        source = self.query_one(SourceInput)
        if answers.data_chosen and not source.has_focus:
            source.value = answers.config.data.source
        chosen = f"✓ {answers.config.data.source}" if answers.data_chosen else "Nothing is chosen yet."
        self.query_one("#data-note", Static).update(Content(chosen))

    @on(Input.Submitted)
    def _taken(self, event: Input.Submitted) -> None:
        from pathlib import Path

        if event.value.strip():
            path = Path(event.value.strip()).expanduser().absolute()
            self.application.change(self.application.answers.with_value("data.source", str(path)))
