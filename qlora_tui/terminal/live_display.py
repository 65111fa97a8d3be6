"""The display on a terminal: a bar for each phase, the training numbers, one line for the whole, news above.

Only text objects are given to rich, never strings it would search for markup.
"""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from qlora_tui.runs.events import (
    Advice,
    Comparison,
    Eval,
    Phase,
    Progress,
    Record,
    RunStarted,
    Sample,
    Step,
    Warned,
)
from qlora_tui.runs.progress import PhaseProgress, RunProgress
from qlora_tui.runs.telling import (
    amount,
    comparison_cells,
    describe,
    describe_remaining,
    duration,
    training_numbers,
)
from qlora_tui.text import one_line, printable

REFRESH_SECONDS = 0.125
LOW_TERMINAL = 16
"""With fewer lines than this only the phase that runs is shown."""
NARROW_TERMINAL = 72
_STYLES: dict[type, str] = {Warned: "yellow", Advice: "cyan", Eval: "green", Sample: "dim", RunStarted: "bold"}


class LiveNarrator:
    """Draws on stderr with rich. One thread draws, so a frame never shows a state half changed."""

    def __init__(self, keys: str) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._keys = keys
        self._progress = RunProgress()
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._frame,
        )
        self._drawn = 0.0

    def begin(self, progress: RunProgress) -> None:
        self._progress = progress
        self._live.start(refresh=True)

    def event(self, record: Record, progress: RunProgress) -> None:
        event = record.event
        moves_a_bar_only = isinstance(event, Progress | Step) or (isinstance(event, Phase) and event.state == "started")
        if not moves_a_bar_only and (line := describe(record)) is not None:
            self._console.print(Text(printable(line), style=_STYLES.get(type(event), "")), soft_wrap=True)
        self.tick(progress)

    def tick(self, progress: RunProgress) -> None:
        if time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.refresh()

    def say(self, text: str) -> None:
        self._console.print(Text(printable(text), style="bold"), soft_wrap=True)

    def close(self) -> None:
        self._keys = ""
        self._live.stop()

    def _frame(self) -> RenderableType:
        progress, now = self._progress, time.time()
        phases = list(progress.phases.values())
        if self._console.height < LOW_TERMINAL:
            phases = [phase for phase in phases if phase.active]
        narrow = self._console.width < NARROW_TERMINAL
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, min_width=8)
        grid.add_column(min_width=6 if narrow else 16, max_width=30, ratio=1)
        for _ in range(2 if narrow else 3):
            grid.add_column(no_wrap=True, justify="right", overflow="ellipsis")
        for phase in phases:
            cells = phase_cells(phase, now, over=progress.finished is not None)
            grid.add_row(*(cells[:2] + cells[-2:] if narrow else cells))
        lines: list[RenderableType] = [grid]
        if numbers := training_numbers(progress):
            lines.append(Text("  ".join(numbers), no_wrap=True, overflow="ellipsis"))
        lines.append(self._total(progress, now))
        if self._keys:
            lines.append(Text(self._keys, style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _total(self, progress: RunProgress, now: float) -> Text:
        if not progress.phases:
            return Text("waiting for the first event")
        if progress.finished is not None:
            text = f"all phases  {duration(progress.finished.seconds)} in all"
        else:
            elapsed = max(0.0, now - (progress.life_started or now))
            text = f"all phases  {duration(elapsed)} elapsed, {describe_remaining(progress.remaining(now))}"
        return Text(text, style="bold", no_wrap=True, overflow="ellipsis")

    def compare(self, comparison: dict[str, Comparison]) -> None:
        if not comparison:
            return
        table = Table(title=Text("before and after, on the same rows"), title_justify="left")
        for heading in ("metric", "before", "after", "difference (interval)", "rows"):
            table.add_column(Text(heading), justify="left" if heading == "metric" else "right")
        for metric, values in comparison.items():
            table.add_row(*(Text(cell) for cell in comparison_cells(metric, values)))
        self._console.print(table)


def phase_cells(phase: PhaseProgress, now: float, *, over: bool) -> tuple[RenderableType, ...]:
    """One phase as a row: name, bar, how much, elapsed, what is left; nothing is left in a run that is over."""
    style = "bold" if phase.active else "" if phase.ended is not None else "dim"
    elapsed = phase.elapsed(phase.latest_time if over else now)
    bar: RenderableType = Text("")
    if phase.ended is not None:
        bar = ProgressBar(total=1, completed=1)
    elif phase.total:
        bar = ProgressBar(total=phase.total, completed=min(phase.done, phase.total))
    elif phase.active:
        bar = Text(one_line(phase.message, 60) or "…", no_wrap=True, overflow="ellipsis", style="dim")
    return (
        Text(phase.name, style=style),
        bar,
        Text(amount(phase), style=style),
        Text("" if elapsed is None else duration(elapsed), style=style),
        Text("broken off" if over and phase.active else _left(phase, now), style=style),
    )


def _left(phase: PhaseProgress, now: float) -> str:
    if phase.ended is not None:
        return "done"
    left = phase.remaining(now)
    if left is not None:
        return f"{duration(left)} left"
    return "? left" if phase.active else ""
