"""Choose among a run's best adapter and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.runs.adapters import saved_adapters
from qlora_tui.runs.directory import RunDirectory


class AdapterScreen(ModalScreen[Path | None]):
    """The answer is a folder."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Cancel", id="adapters.cancel", tooltip="Stay with the present one"),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._found = saved_adapters(run)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Which weights", classes="dialog-title", markup=False)
            options = [Option(Content(name)) for name, _ in self._found]
            yield OptionList(*options, id="adapters")
            if not options:
                yield Static("The run has saved nothing yet.", classes="muted", markup=False)

    @on(OptionList.OptionSelected, "#adapters")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._found[event.option_index][1])
