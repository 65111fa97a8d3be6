"""For widgets of the libraries that are drawn line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip

if TYPE_CHECKING:
    from textual.widget import Widget as _Base
else:
    _Base = object  # a widget's stylesheet comes from the first of its bases that is a widget: that of the library


class OneStyle(_Base):
    """Works out its style once for a picture. It comes from all ancestors, and is asked for again by each line."""

    _of_picture: Style | None = None

    @property
    def rich_style(self) -> Style:
        return self._of_picture or super().rich_style

    def render_lines(self, crop: Region) -> list[Strip]:
        self._of_picture = super().rich_style
        try:
            return super().render_lines(crop)
        finally:
            self._of_picture = None
