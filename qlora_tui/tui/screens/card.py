"""The model card, to read."""

from __future__ import annotations

import re
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Markdown

from qlora_tui.text import printable

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
LONGEST = 100_000


class CardScreen(ModalScreen[None]):
    """One card; any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,d", "dismiss", "Close", id="card.close", tooltip="Back to shipping"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = printable(_FRONT_MATTER.sub("", text), LONGEST)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog -tall", id="card"):
            yield Markdown(self._text, open_links=False)

    def on_mount(self) -> None:
        self.query_one("#card").focus()
