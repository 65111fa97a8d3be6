"""Small numbers with their recent past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tile shows."""

    label: str
    value: str
    recent: Sequence[float] = ()
    tone: str = ""
    """``warning`` or ``error`` where the value deserves attention."""


class Tile(Widget):
    """One number: its name, its value, and a line of bars where there is room.

    One widget, not three: nine of them are drawn with each step of a run, and take part in every layout.
    """

    DEFAULT_CSS = """
    Tile { width: 1fr; height: 2; min-width: 14; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._reading = Reading("", "")

    def show(self, reading: Reading) -> None:
        """Draw a reading."""
        if reading != self._reading:
            self._reading = reading
            self.refresh()

    def render(self) -> Content:
        reading = self._reading
        words = Content.assemble(
            (f"{reading.label} ", "dim"), (reading.value, f"bold ${reading.tone}" if reading.tone else "bold")
        )
        width, height = self.size
        if height < 2 or width < 1 or len(reading.recent) < 2:
            return words
        return Content("\n").join([words, Content.styled(bars(reading.recent, width), "$primary 50%")])


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
        for number, tile in enumerate(self.query_children(Tile)):
            if tile.display != (number < len(readings)):
                tile.display = number < len(readings)
            if number < len(readings):
                tile.show(readings[number])


def bars(values: Sequence[float], width: int) -> str:
    """The values as ``width`` bars, or as many as there are: each stands for the highest of an equal part of them."""
    width = min(width, len(values))
    parts = [values[len(values) * place // width : len(values) * (place + 1) // width] for place in range(width)]
    heights = [max(part) for part in parts]
    low, high = min(heights), max(heights)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((height - low) * scale)] for height in heights)
