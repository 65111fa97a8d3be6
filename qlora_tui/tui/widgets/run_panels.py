"""The panels of a run: charts, samples, advice, log. One is shown; where there is room, the log's end is there too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import ContentSwitcher, RichLog
from textual.worker import get_current_worker

from qlora_tui.tui import run_words
from qlora_tui.tui.run_log import log_text
from qlora_tui.tui.widgets.one_style import OneStyle
from qlora_tui.tui.widgets.view_tabs import ViewTabs
from qlora_tui.tui.widgets.words import Words

if TYPE_CHECKING:
    from textual.theme import Theme

    from qlora_tui.runs.view import Other, RunView, Told
    from qlora_tui.tui.app import QloraApp
    from qlora_tui.tui.follower import Condition, Follower
    from qlora_tui.tui.widgets.run_charts import RunCharts

CHART_SECONDS = 1.0
"""Between two pictures of the curves."""
LOG_LINES = 500
VIEWS = (("charts", "Charts"), ("samples", "Samples"), ("advice", "Advice"), ("log", "Log"))


class _Log(OneStyle, RichLog):
    """The log's lines."""


class _Tail(Words):
    """The end of the log, as much of it as there is room for."""

    class Resized(Message):
        """There is room for more or fewer lines."""

    def on_resize(self) -> None:
        self.post_message(self.Resized())


class RunPanels(Vertical):
    """Draws what its follower has read, and only in the panel that is shown.

    Args:
        follower: Of the run; its view is read under its lock.
    """

    def __init__(self, follower: Follower) -> None:
        super().__init__(id="run-panels")
        self._follower = follower
        self._charted: tuple[int, bool, int] | None = None
        """The state of the view that the curves were drawn from, whether without braille, and for what width."""
        self._chart_time = 0.0
        self._line = 0
        self._sample: Told | None = None
        """The newest one that is shown."""
        self.other: Other | None = None
        """The run that is compared with."""

    def compose(self) -> ComposeResult:
        yield ViewTabs(VIEWS, id="views")
        with Container(id="panels"):
            with ContentSwitcher(id="switch", initial="charts"):
                yield Container(id="charts")
                with VerticalScroll(id="samples"):
                    yield Words(id="samples-text")
                with VerticalScroll(id="advice"):
                    yield Words(id="advice-text")
                yield _Log(id="log", max_lines=LOG_LINES, wrap=True, min_width=20)
            yield _Tail(id="tail")

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._take_theme)
        self._add_charts()

    def on_unmount(self) -> None:
        self.app.theme_changed_signal.unsubscribe(self)

    def _take_theme(self, _theme: Theme) -> None:
        self.call_after_refresh(self.redraw_charts)  # their colours are not those of a stylesheet

    @property
    def tabs(self) -> ViewTabs:
        """The names of the panels, which take the keys."""
        return self.query_one(ViewTabs)

    @on(ViewTabs.Chosen)
    def _view_chosen(self, event: ViewTabs.Chosen) -> None:
        event.stop()
        self.query_one("#switch", ContentSwitcher).current = event.name
        self._show_tail(event.name != "log")
        self.show()
        self.tabs.refresh()
        self.call_after_refresh(self.show_charts)

    @on(_Tail.Resized)
    def _say_tail(self) -> None:
        tail = self.query_one(_Tail)
        with self._follower.lock:
            if tail.display and not self._follower.condition.behind:
                tail.say(run_words.tail_text(self._follower.view, tail.size.height or 5))

    def _show_tail(self, wanted: bool) -> None:
        # Not by a class: styles are applied a moment later, and everything would be laid out and drawn twice.
        tail = self.query_one(_Tail)
        if not wanted:
            tail.display = False
        elif tail.styles.inline.clear_rule("display"):
            tail.refresh(layout=True)

    def show(self) -> None:
        """Draw the chosen panel, except for the curves; the others are drawn when they are chosen."""
        with self._follower.lock:
            view, condition = self._follower.view, self._follower.condition
            self.tabs.count("advice", len(view.advice))
            self.tabs.count("samples", len(view.samples))
            self._show_panel(view, condition)
            self._say_tail()

    def _show_panel(self, view: RunView, condition: Condition) -> None:
        match self.tabs.chosen:
            case "samples":
                self._show_samples(view)
            case "advice":
                self.query_one("#advice-text", Words).say(run_words.advice_text(view))
            case "log" if not condition.behind:
                self._show_log(view)
            case _:
                pass

    def _show_samples(self, view: RunView) -> None:
        newest = view.samples[-1] if view.samples else None
        if newest is None or newest is not self._sample:
            self._sample = newest
            self.query_one("#samples-text", Words).say(run_words.samples_text(view))

    def _show_log(self, view: RunView) -> None:
        log = self.query_one("#log", RichLog)
        if view.lines and view.lines[-1].number < self._line:  # the log was read anew
            self._line = 0
            log.clear()
        for line in view.lines_after(self._line)[-LOG_LINES:]:
            log.write(log_text(line, self.app.theme_variables))
            self._line = line.number

    # Charts

    @work(thread=True, group="charts", exit_on_error=False)
    def _add_charts(self) -> None:
        """Load the plotting library, which takes a moment, beside the first picture."""
        from qlora_tui.tui.widgets.run_charts import RunCharts

        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._mount_charts, RunCharts())

    def _mount_charts(self, charts: RunCharts) -> None:
        if self.is_mounted:
            self.query_one("#charts").mount(charts)
            self.call_after_refresh(self.show_charts)
            cast("QloraApp", self.app).settle_soon()

    @property
    def charts(self) -> RunCharts | None:
        """The curves, once the plotting library is loaded."""
        found = self.query_one("#charts").children
        return cast("RunCharts", found[0]) if found else None

    @property
    def charted(self) -> int:
        """The state of the view that the curves were drawn from; -1 before the first."""
        return -1 if self._charted is None else self._charted[0]

    @property
    def charts_due(self) -> bool:
        """Whether the last picture of the curves is old enough for a new one."""
        return time.monotonic() - self._chart_time >= CHART_SECONDS

    def show_charts(self) -> None:
        """Draw the curves if they are shown and have changed."""
        charts = self.charts
        if charts is None or self.tabs.chosen != "charts" or not charts.is_mounted:
            return
        with self._follower.lock:
            view, plain = self._follower.view, cast("QloraApp", self.app).ascii_only
            state = (view.changes, plain, charts.width)
            if charts.width and state != self._charted:
                self._charted, self._chart_time = state, time.monotonic()
                charts.show(view, self.other, plain=plain)

    def redraw_charts(self) -> None:
        """Draw the curves again, as they look different now."""
        self._charted = None
        self.show_charts()

    def compare_with(self, other: Other | None) -> None:
        """Draw another run's loss too."""
        self.other = other
        self.redraw_charts()
