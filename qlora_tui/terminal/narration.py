"""Narrators: what shows a run while it is followed from a plain terminal, and how errors are written there."""

from __future__ import annotations

import os
import sys
from typing import Protocol, TextIO

from qlora_tui.runs.events import Comparison, Progress, Record, Step
from qlora_tui.runs.progress import PhaseProgress, RunProgress
from qlora_tui.runs.telling import comparison_cells, describe, describe_progress
from qlora_tui.text import printable

LINE_SECONDS = 10.0
"""Least time between two progress lines, unless a tenth of the phase has passed."""
SLOW_LINE_SECONDS = 60.0
"""The same once a phase is older than :data:`SLOW_AFTER_SECONDS`, so that a long run leaves a short log."""
SLOW_AFTER_SECONDS = 300.0


class Narrator(Protocol):
    """Something that shows a run while it is followed."""

    def begin(self, progress: RunProgress) -> None:
        """Start showing; ``progress`` is what happened before anyone looked."""

    def event(self, record: Record, progress: RunProgress) -> None:
        """Show one event, already taken into ``progress``."""

    def tick(self, progress: RunProgress) -> None:
        """Time has passed."""

    def say(self, text: str) -> None:
        """Show a sentence of our own."""

    def close(self) -> None:
        """Stop showing and leave the terminal as it was; sentences may still follow."""

    def compare(self, comparison: dict[str, Comparison]) -> None:
        """Show what was measured before and after, once closed."""


class QuietNarrator:
    """Shows nothing."""

    def begin(self, progress: RunProgress) -> None: ...

    def event(self, record: Record, progress: RunProgress) -> None: ...

    def tick(self, progress: RunProgress) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...

    def compare(self, comparison: dict[str, Comparison]) -> None: ...


class PlainNarrator:
    """Plain lines without any control code, few enough for a log file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line_time = 0.0
        self._line_tenth = 0
        self._line_phase = ""

    def begin(self, progress: RunProgress) -> None:
        if (current := progress.current) is not None:
            self.say(f"{current.name}: {describe_progress(current, progress, current.latest_time)}")

    def event(self, record: Record, progress: RunProgress) -> None:
        if isinstance(record.event, Progress | Step):
            name = "train" if isinstance(record.event, Step) else record.event.phase
            self._progress_line(progress.phase(name), progress, record.time)
        elif (line := describe(record)) is not None:
            self.say(line)

    def _progress_line(self, phase: PhaseProgress, progress: RunProgress, time: float) -> None:
        if phase.fraction == 1.0 and phase.name != "train":
            return  # the end of the phase says the same
        tenth = int(10 * (phase.fraction or 0.0))
        if phase.name != self._line_phase:
            self._line_phase, self._line_time, self._line_tenth = phase.name, phase.started or time, 0
        interval = LINE_SECONDS if (phase.elapsed(time) or 0.0) < SLOW_AFTER_SECONDS else SLOW_LINE_SECONDS
        if tenth > self._line_tenth or time - self._line_time >= interval:
            self._line_time, self._line_tenth = time, tenth
            self.say(f"{phase.name}: {describe_progress(phase, progress, time)}")

    def tick(self, progress: RunProgress) -> None: ...

    def say(self, text: str) -> None:
        self._stream.write(printable(text).replace("\t", " ") + "\n")
        self._stream.flush()

    def close(self) -> None: ...

    def compare(self, comparison: dict[str, Comparison]) -> None:
        for metric, values in comparison.items():
            name, before, after, difference, rows = comparison_cells(metric, values)
            self.say(f"{name}: {before} before, {after} after, difference {difference}, {rows} rows")


def colour_wanted(stream: TextIO) -> bool:
    """Whether colour codes may be written to ``stream``."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_error(*sentences: str, stream: TextIO | None = None) -> None:
    """Write an error's sentences to stderr: what, why, what to do."""
    stream = stream or sys.stderr
    head = "\x1b[1;31merror\x1b[0m" if colour_wanted(stream) else "error"
    text = "\n".join(printable(sentence, 4000) for sentence in sentences if sentence)
    stream.write(f"{head}: " + text.replace("\n", "\n  ") + "\n")
    stream.flush()
