"""Small numbers with their recent past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Sparkline, Static


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tile shows."""

    label: str
    value: str
    recent: Sequence[float] = ()
    tone: str = ""
    """``warning`` or ``error`` where the value deserves attention."""


class Tile(Vertical):
    """One number: its name, its value, and a line of bars."""

    DEFAULT_CSS = """
    Tile { width: 1fr; height: 2; min-width: 14; padding: 0 1; }
    Tile > .tile-words { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    Tile > Sparkline { height: 1; }
    Tile > Sparkline.-empty { visibility: hidden; }
    Tile > Sparkline > .sparkline--max-color { color: $primary; }
    Tile > Sparkline > .sparkline--min-color { color: $primary 50%; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._words = Content("")

    def compose(self) -> ComposeResult:
        yield Static("", classes="tile-words", markup=False)
        yield Sparkline([])

    def show(self, reading: Reading) -> None:
        """Draw a reading."""
        words = Content.styled(f"{reading.label} ", "dim").append(
            Content.styled(reading.value, f"bold ${reading.tone}" if reading.tone else "bold")
        )
        if words != self._words:
            self._words = words
            self.query_one(".tile-words", Static).update(words, layout=False)
        bars = self.query_one(Sparkline)
        bars.data = list(reading.recent) or None
        bars.set_class(len(reading.recent) < 2, "-empty")


class Tiles(Horizontal):
    """As many tiles as there are readings."""

    DEFAULT_CSS = """
    Tiles { height: auto; layout: grid; grid-size: 4; grid-gutter: 0 1; grid-rows: 2; }
    """

    MOST = 9

    def compose(self) -> ComposeResult:
        for _ in range(self.MOST):
            yield Tile()

    def show(self, readings: Sequence[Reading]) -> None:
        """Draw these readings; tiles that are left over disappear."""
        self.set_class(len(readings) == 5, "-five")
        for number, tile in enumerate(self.query(Tile)):
            if tile.display != (number < len(readings)):
                tile.display = number < len(readings)
            if number < len(readings):
                tile.show(readings[number])
