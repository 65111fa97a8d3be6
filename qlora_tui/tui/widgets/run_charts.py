"""The curves of a run: loss and learning rate, and another run's loss beside them."""

from __future__ import annotations

import math

from textual.app import ComposeResult
from textual.containers import Container

from qlora_tui.runs.view import Other, RunView
from qlora_tui.tui.widgets.metric_chart import Line, MetricChart

ZOOMED = 0.2
"""Share of the run that the close look shows."""


class RunCharts(Container):
    """Loss above, learning rate below where there is room."""

    DEFAULT_CSS = """
    RunCharts { height: 1fr; layout: vertical; }
    RunCharts > #chart-loss { height: 3fr; }
    RunCharts > #chart-rate { height: 1fr; min-height: 7; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._logarithmic = False
        self._zoomed = False

    def compose(self) -> ComposeResult:
        yield MetricChart("loss", "chart-loss")
        yield MetricChart("learning rate", "chart-rate")

    @property
    def width(self) -> int:
        """Cells from side to side of a chart; 0 before it is laid out."""
        return self.query_one("#chart-loss").size.width

    def toggle_scale(self) -> None:
        """Between the loss and its logarithm."""
        self._logarithmic = not self._logarithmic

    def toggle_zoom(self) -> None:
        """Between the whole run and its last part."""
        self._zoomed = not self._zoomed

    def show(self, view: RunView, other: Other | None, *, plain: bool) -> None:
        """Draw the curves of ``view``.

        Args:
            other: A run whose loss is drawn too.
            plain: Without braille.
        """
        loss = self.query_one("#chart-loss", MetricChart)
        rate = self.query_one("#chart-rate", MetricChart)
        curves, points = view.curves, loss.points
        last = curves["loss"].x[-1] if curves["loss"].x else 0.0
        start = (1 - ZOOMED) * last if self._zoomed else -math.inf
        lines = [Line("step", curves["loss"].curve(points, start), "faint")]
        if other is not None:
            lines.append(Line(other.name, other.loss.curve(points, start), "second"))
        lines.append(Line("smoothed", curves["smoothed"].curve(points, start), "main"))
        if other is not None:
            lines.append(Line("held out there", other.held_out.curve(points, start), "second-points"))
        lines.append(Line("held out", curves["held_out"].curve(points, start), "points"))
        marks = [float(step) for step in view.resumes if step > start]
        loss.show(lines, marks=marks, logarithmic=self._logarithmic, plain=plain)
        if rate.display:
            rate.show([Line("", curves["learning_rate"].curve(points, start), "main")], plain=plain)
