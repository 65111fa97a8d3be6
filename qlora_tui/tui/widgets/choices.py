"""A list to choose from, with the keys of vi besides the arrows, and plain text only."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import OptionList

from qlora_tui.tui.widgets.helped import Help


class Choices(OptionList):
    """An option list whose prompts are never markup."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False, id="list.down", tooltip="One down"),
        Binding("k", "cursor_up", "Up", show=False, id="list.up", tooltip="One up"),
        Binding("g", "first", "First", show=False, id="list.first", tooltip="To the top"),
        Binding("G", "last", "Last", show=False, id="list.last", tooltip="To the end"),
    ]

    def __init__(self, *content: Any, help: Help | None = None, id: str | None = None) -> None:  # noqa: A002
        super().__init__(*content, id=id, markup=False, compact=True)
        self._help = help

    def field_help(self) -> Help | None:
        return self._help
