"""A text that costs nothing while it stays the same."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


class Words(Static):
    """Foreign text is welcome: nothing in it is read as markup.

    Args:
        fixed: Its height is given by the stylesheet, so a new text needs no new layout.
    """

    def __init__(self, *, id: str, fixed: bool = False) -> None:  # noqa: A002
        super().__init__("", id=id, markup=False)
        self._fixed = fixed
        self._said = Content("")

    def say(self, text: Content | None) -> None:
        """Show a text, if it is not there already; None takes the widget away."""
        if (text is None) == self.display:
            self.display = text is not None
        if text is not None and text != self._said:
            self._said = text
            self.update(text, layout=not self._fixed)
