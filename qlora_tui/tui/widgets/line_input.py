"""An editor for one line that keeps its place on the screen while one types in it."""

from __future__ import annotations

from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import Input


class LineInput(Input):
    """Textual's, but without a layout of the whole screen for each letter: its width is fixed, so there is no need."""

    virtual_size = Reactive(Size(0, 0))
    """Size of the text, in cells, of which a part is in sight."""
