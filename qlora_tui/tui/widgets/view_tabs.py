"""The names of several views on one line, of which one is shown: the arrow keys or a click choose.

Textual's ``Tabs`` are nine widgets with a moving underline; each takes part in every layout of a screen that is drawn
four times a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget


class ViewTabs(Widget, can_focus=True):
    """A row of names.

    Args:
        views: Name and title of each.
    """

    DEFAULT_CSS = "ViewTabs { height: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "move(1)", "Next view", show=False, id="views.next", tooltip="The view to the right"),
        Binding("left", "move(-1)", "Previous view", show=False, id="views.previous", tooltip="The view to the left"),
    ]

    @dataclass
    class Chosen(Message):
        """Another view is wanted. Whoever shows it refreshes this widget then, so that one picture shows both."""

        name: str

    def __init__(self, views: Sequence[tuple[str, str]], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._titles = dict(views)
        self._counts: dict[str, int] = {}
        self.chosen = views[0][0]

    def count(self, name: str, number: int) -> None:
        """Say behind a title how much there is to see; nothing for zero."""
        if self._counts.get(name, 0) != number:
            self._counts[name] = number
            self.refresh()

    def choose(self, name: str) -> None:
        """Go to a view."""
        if name != self.chosen:
            self.chosen = name
            self.post_message(self.Chosen(name))

    def action_move(self, by: int) -> None:
        names = list(self._titles)
        self.choose(names[(names.index(self.chosen) + by) % len(names)])

    def on_click(self, event: Click) -> None:
        end = 0
        for name, title in self._labels():
            end += len(title)
            if event.x < end:
                self.choose(name)
                break

    def _labels(self) -> list[tuple[str, str]]:
        counts = {name: f" {number}" for name, number in self._counts.items() if number}
        return [(name, f" {title}{counts.get(name, '')} ") for name, title in self._titles.items()]

    def render(self) -> Content:
        marked = "bold $background on $primary" if self.has_focus else "bold $foreground on $primary 25%"
        return Content.assemble(
            *((title, marked if name == self.chosen else "$foreground 60%") for name, title in self._labels())
        )
