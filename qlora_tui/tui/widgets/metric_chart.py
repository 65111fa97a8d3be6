"""Curves over the steps of a run. The plotting library stays behind this widget.

However long a curve is, about two points for each column are drawn, the lowest and the highest of each stretch. Places
where a value was not a number are marked and counted, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from textual.app import ComposeResult
from textual.containers import Grid, Vertical
from textual.content import Content
from textual.events import Resize
from textual.geometry import Size
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget
from textual_plot.axis_formatter import NumericAxisFormatter
from textual_plot.plot_widget import Legend

from qlora_tui.runs.series import Curve
from qlora_tui.tui.widgets.one_style import OneStyle
from qlora_tui.tui.widgets.words import Words

Look = Literal["faint", "main", "points", "second", "second-points"]
# Colour of the theme, sign in the legend, and marker where there is no braille.
_LOOKS: dict[Look, tuple[str, str, str]] = {
    "faint": ("secondary", "⣀", "."),
    "main": ("primary", "━", "*"),
    "points": ("warning", "●", "o"),
    "second": ("success", "╌", "+"),
    "second-points": ("success", "◆", "x"),
}
LEAST_POINTS = 80
LEAST_ROWS, LEAST_COLUMNS = 4, 16
"""Below this there is no room for axes and a curve."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve with its name and how it looks."""

    name: str
    curve: Curve
    look: Look


class _LogFormatter(NumericAxisFormatter):
    """Labels of an axis whose values are decimal logarithms."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [_short(10**tick) for tick in ticks]


class _StepFormatter(NumericAxisFormatter):
    """Whole steps, with thousands as k."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return [_steps(tick) for tick in ticks]


class _ShortFormatter(NumericAxisFormatter):
    """Numbers in few characters, small ones with an exponent."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        if ticks and max(map(abs, ticks)) < 0.01:
            return [_short(tick) for tick in ticks]
        return super().get_labels_for_ticks(ticks)


class _Canvas(OneStyle, Canvas):
    """What a plot is drawn on."""


class _Plot(PlotWidget, can_focus=False):
    """The library's widget without its keys: those of the screen stay those of the screen."""

    BINDINGS = []  # noqa: RUF012
    _measured = Size(0, 0)
    _collecting = False

    def compose(self) -> ComposeResult:
        with Grid():
            for name in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield _Canvas(1, 1, id=name)
        yield Legend(id="legend")

    def on_mount(self) -> None:
        super().on_mount()
        self.margin_top, self.margin_bottom, self.margin_left = 0, 1, 8
        self.set_x_formatter(_StepFormatter())
        self.show_legend(is_visible=False)  # there is one above, and emptying this one asks for a new layout

    @contextmanager
    def changes(self) -> Iterator[None]:
        """Collect changes and draw them at the end. Each by itself asks for a picture, in which it asks for another."""
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False
            self.render()

    def _rerender(self) -> None:
        if self._collecting:
            self._needs_rerender = True
        else:
            super()._rerender()

    def _render_plot(self) -> None:
        if self.size.height < LEAST_ROWS or self.size.width < LEAST_COLUMNS:
            return
        with ExitStack() as pixels:
            canvases: Any = self.query("Canvas")
            for canvas in canvases:
                pixels.enter_context(canvas.batch_refresh())  # else each pixel asks for a new picture
            super()._render_plot()

    def on_resize(self, event: Resize) -> None:
        # The library measures its canvases only when it is laid out anew; coming back to the front is not a new size.
        if event.size != self._measured:
            self._measured = event.size
            self.call_after_refresh(self.refresh, layout=True)


class MetricChart(Vertical):
    """A chart with a legend above it."""

    DEFAULT_CSS = """
    MetricChart { height: 1fr; }
    MetricChart > .chart-legend { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    MetricChart > _Plot { height: 1fr; background: transparent; }
    MetricChart > _Plot > .plot--axis { color: $panel; }
    MetricChart > _Plot > .plot--tick { color: $text-muted; text-style: none; }
    MetricChart > _Plot > .plot--label { color: $text-muted; text-style: none; }
    """

    def __init__(self, title: str, name: str) -> None:
        super().__init__(id=name)
        self._title = title
        self._lines: tuple[Line, ...] = ()
        self._marks: tuple[float, ...] = ()
        self._logarithmic = False
        self._plain = False

    def compose(self) -> ComposeResult:
        yield Words(self._title, classes="chart-legend")
        yield _Plot()

    @property
    def points(self) -> int:
        """How many points of a curve are worth fetching for the present width."""
        return max(LEAST_POINTS, 2 * self.size.width)

    def show(
        self, lines: Sequence[Line], *, marks: Sequence[float] = (), logarithmic: bool = False, plain: bool = False
    ) -> None:
        """Draw these curves.

        Args:
            marks: Places of vertical lines, such as resumes.
            logarithmic: Draw the logarithm, and label its axis with the values.
            plain: Without braille.
        """
        self._lines, self._marks = tuple(lines), tuple(marks)
        self._logarithmic, self._plain = logarithmic, plain
        if self.is_mounted:
            self.draw()

    def draw(self) -> None:
        """Draw what :meth:`show` was given last."""
        plot = self.query_one(_Plot)
        self.query_one(".chart-legend", Words).say(self._legend())
        with plot.changes():
            plot.clear()
            plot.display = any(len(line.curve.x) for line in self._lines)
            if plot.display:
                self._fill(plot)

    def _fill(self, plot: Any) -> None:
        plot.set_y_formatter(_LogFormatter() if self._logarithmic else _ShortFormatter())
        self._limit(plot)
        for mark in self._marks:
            plot.add_v_line(mark, line_style=self._colour("panel"))
        for line in self._lines:
            self._draw_line(plot, line)

    def _draw_line(self, plot: Any, line: Line) -> None:
        colour, _, marker = _LOOKS[line.look]
        style = self._colour(colour)
        x, y = list(line.curve.x), [self._scaled(value) for value in line.curve.y]
        points = line.look.endswith("points")
        if x and points:
            plot.scatter(x, y, marker=marker if self._plain else _LOOKS[line.look][1], marker_style=style)
        elif x and self._plain:
            plot.scatter(x, y, marker=marker, marker_style=style)
        elif x:
            plot.plot(x, y, line_style=style, hires_mode=HiResMode.BRAILLE)
        for place in line.curve.broken:
            plot.add_v_line(place, line_style=self._colour("error"))

    def _limit(self, plot: Any) -> None:
        """The axes' ranges; odd single values do not flatten the rest."""
        values = [self._scaled(value) for line in self._lines for value in line.curve.y]
        places = [place for line in self._lines for place in line.curve.x]
        low, high = min(values), max(values)
        smooth = [self._scaled(value) for line in self._lines if line.look != "faint" for value in line.curve.y]
        if len(values) > 50 and smooth:
            ordered = sorted(values)
            top = max(ordered[int(0.98 * len(ordered))], max(smooth))
            high = min(high, top + 0.1 * (top - low))
        room = 0.04 * (high - low) or abs(high) * 0.05 or 0.5
        plot.set_ylimits(low - room, high + room)
        first, last = min(places), max(max(places), min(places) + 1)
        plot.set_xlimits(first, last)
        plot.set_xticks(step_ticks(first, last, max(2, (self.size.width - 8) // 9)))

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self._logarithmic else value

    def _colour(self, name: str) -> str:
        return self.app.theme_variables.get(name, "#888888")

    def _legend(self) -> Content:
        text = Content.styled(self._title + (" (log scale)" if self._logarithmic else ""), "bold")
        if not any(len(line.curve.x) or line.curve.broken for line in self._lines):
            return text.append(Content.styled("   begins with the first step", "dim"))
        for line in self._lines:
            if not len(line.curve.x) and not line.curve.broken:
                continue
            colour, sign, marker = _LOOKS[line.look]
            last = f" {_value(line.curve.y[-1])}" if len(line.curve.y) else ""
            text = text.append("   ").append(Content.styled(marker if self._plain else sign, f"${colour}"))
            text = text.append(Content(f" {line.name}{last}"))
            if line.curve.broken:
                text = text.append(Content.styled(f"  ✗ {len(line.curve.broken)} not a number", "$error"))
        return text


def step_ticks(first: float, last: float, most: int) -> list[float]:
    """At most ``most`` round steps between two steps."""
    spacing = 1
    for spacing in (factor * 10**power for power in range(9) for factor in (1, 2, 5)):
        if (last - first) / spacing <= most:
            break
    begin = math.ceil(first / spacing) * spacing
    return [float(tick) for tick in range(begin, int(last) + 1, spacing)]


def _value(value: float) -> str:
    return _short(value) if 0 < abs(value) < 0.001 else f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"


def _short(value: float) -> str:
    if value == 0 or 0.01 <= abs(value) < 10_000:
        return f"{value:.3g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _steps(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:.0f}"
