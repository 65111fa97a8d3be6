"""What the focused thing is for: widgets that can say it, and the place that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.dom import DOMNode
from textual.widget import Widget

from qlora_tui.tui.widgets.words import Words


@dataclass(frozen=True, slots=True)
class Help:
    """Help on one widget: a title, a line, and more for who asks."""

    title: str
    line: str
    more: str = ""


def help_for(widget: Widget | None) -> Help | None:
    """The help of a widget or of the nearest one around it that has any: their method ``field_help``."""
    node: DOMNode | None = widget
    while node is not None:
        method = getattr(node, "field_help", None)
        if callable(method):
            found = method()
            if isinstance(found, Help):
                return found
        node = node.parent
    return None


class Hint(Words):
    """One line (a panel on very wide terminals) on whatever has the focus."""

    def __init__(self) -> None:
        super().__init__(id="hint")

    def show(self, found: Help | None) -> None:
        if found is None:
            self.say("")
            return
        text = Content.styled(found.title, "bold $primary").append(Content("  " + found.line))
        if found.more:
            text = text.append(Content.styled("\n\n" + found.more, "dim"))
        self.say(text)
