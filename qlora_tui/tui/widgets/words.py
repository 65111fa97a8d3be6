"""A text that costs nothing while it stays the same, and no layout while its size does."""

from __future__ import annotations

from typing import cast

from textual.content import Content
from textual.widgets import Static


class Words(Static):
    """Foreign text is welcome: nothing in it is read as markup."""

    def __init__(
        self,
        text: Content | str = "",
        *,
        id: str | None = None,  # noqa: A002
        classes: str | None = None,
    ) -> None:
        super().__init__(_content(text), id=id, classes=classes, markup=False)

    def say(self, text: Content | str | None) -> None:
        """Show a text, if it is not there already; None takes the widget away."""
        if (text is None) == self.display:
            self.display = text is not None
        before = cast("Content", self.content)
        if text is None or (said := _content(text)).is_same(before):
            return
        self.update(said, layout=self._resizes(before, said))

    def _resizes(self, before: Content, after: Content) -> bool:
        """Whether the layout of the screen can change with the text."""
        width = self.content_size.width
        if self.styles.is_auto_width or not width:
            return True
        rules = self.styles.get_rules()
        return self.styles.is_auto_height and before.get_height(rules, width) != after.get_height(rules, width)


def _content(text: Content | str) -> Content:
    return Content(text) if isinstance(text, str) else text
