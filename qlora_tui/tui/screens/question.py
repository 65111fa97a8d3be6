"""Questions with a few answers, and errors with all of their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from qlora_tui.errors import QloraError
from qlora_tui.text import one_line, printable


@dataclass(frozen=True, slots=True)
class Answer:
    """One way to answer: what is returned, and what its button says."""

    value: str
    label: str


class QuestionScreen(ModalScreen[str | None]):
    """Asks; the first answer has the focus, escape gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Cancel", id="question.cancel", tooltip="Leave everything as it is"),
        Binding("left,up", "app.focus_previous", "Previous", show=False, id="question.previous"),
        Binding("right,down", "app.focus_next", "Next", show=False, id="question.next"),
        Binding("c", "copy", "Copy text", id="question.copy", tooltip="Copy the whole text"),
    ]

    def __init__(self, title: str, text: str, answers: Sequence[Answer], *, danger: bool = False) -> None:
        super().__init__()
        self._title = one_line(title, 400)
        self._text = printable(text, 20_000)
        self._answers = answers
        self._danger = danger

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog" + (" -danger" if self._danger else ""), can_focus=False):
            yield Static(self._title, classes="dialog-title", markup=False)
            yield Static(self._text, markup=False)
            with Horizontal(classes="buttons"):
                for answer in self._answers:
                    yield Button(answer.label, id=f"answer-{answer.value}", compact=True)

    def on_mount(self) -> None:
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        self.dismiss((event.button.id or "").removeprefix("answer-"))

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(f"{self._title}\n{self._text}")
        self.app.notify("Copied the text of this message.")


def error_screen(error: QloraError, log: str | None = None) -> QuestionScreen:
    """An error with its three sentences and where more of it is."""
    text = f"{error.why}\n\nWhat to do: {error.hint}" + (f"\n\nLog: {log}" if log else "")
    return QuestionScreen(f"✗ {error.what}", text, [Answer("close", "Close")], danger=True)
