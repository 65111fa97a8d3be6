"""Where a question is written: enter asks, ctrl+j begins a new line."""

from __future__ import annotations

from dataclasses import dataclass

from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea

from qlora_tui.tui.widgets.helped import Help


class Prompt(TextArea):
    """A small editor; ``Submitted`` is posted with what is in it."""

    DEFAULT_CSS = """
    Prompt { height: auto; max-height: 8; min-height: 3; border: round $panel; padding: 0 1; background: $background; }
    Prompt:focus { border: round $primary; }
    """

    @dataclass
    class Submitted(Message):
        """A question is to be asked."""

        text: str

    def __init__(self, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, soft_wrap=True, show_line_numbers=False, tab_behavior="focus", compact=False)
        self.highlight_cursor_line = False

    def field_help(self) -> Help:
        return Help("Question", "Enter asks, ctrl+j begins a new line, escape ends an answer.")

    async def _on_key(self, event: Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            if self.text.strip():
                self.post_message(self.Submitted(self.text.strip("\n")))
            return
        if event.key == "ctrl+j":
            event.stop()
            event.prevent_default()
            self.insert("\n")
            return
        await super()._on_key(event)

    def take(self, text: str) -> None:
        """Put a text in, ready to be changed."""
        self.text = text
        self.move_cursor(self.document.end)
        self.focus()
