"""A choice among a few words on one line: the arrow keys, space or a click move on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget


class Cycle(Widget, can_focus=True):
    """Shows one of its options between two arrows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space,enter", "move(1)", "Next", show=False, id="choice.next", tooltip="The next option"),
        Binding("left", "move(-1)", "Previous", show=False, id="choice.previous", tooltip="The option before"),
    ]

    @dataclass
    class Changed(Message):
        """Another option was chosen."""

        cycle: Cycle
        value: str

        @property
        def control(self) -> Cycle:
            return self.cycle

    def __init__(self, options: Sequence[str], value: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.options = list(options)
        self.value = value

    def show(self, value: str) -> None:
        """Show an option without telling anyone."""
        if value != self.value:
            self.value = value
            self.refresh()

    def render(self) -> Content:
        room = max(1, self.size.width - 4)
        value = self.value if len(self.value) <= room else self.value[: room - 1] + "…"
        arrow = "bold $primary" if self.has_focus else "dim"
        return Content.styled("‹ ", arrow).append(Content(value.center(room))).append(Content.styled(" ›", arrow))

    def action_move(self, by: int) -> None:
        place = self.options.index(self.value) if self.value in self.options else -1 if by > 0 else 0
        self.value = self.options[(place + by) % len(self.options)]
        self.refresh()
        self.post_message(self.Changed(self, self.value))

    def on_click(self, event: Click) -> None:
        event.stop()
        self.action_move(-1 if event.x < 2 else 1)
