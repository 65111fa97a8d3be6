"""The engine's side of the event log: appends, flushes, and survives its own death."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qlora_tui.advice.health import Finding, Health
from qlora_tui.runs.events import Advice, Event, Phase, PhaseName, Progress, Record, Warned, from_line, to_line
from qlora_tui.runs.feed import tail_records

PROGRESS_SECONDS = 0.5


class EventLog:
    """Appends events to ``events.jsonl``, each durable before the call returns.

    Each event is also shown to the run's :class:`~qlora_tui.advice.health.Health`, and what that finds is written too.

    Opening a log whose last line was torn by a crash cuts that line off and goes on with the next number, so the
    numbers of all lives of a run follow each other without a gap.

    Raises:
        OSError: if the log cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._sequence = _repair(path)
        self._health: Health | None = Health(tail_records(path))
        # Unbuffered: a line that a full disk refused must not be written again with the next one.
        self._handle = path.open("ab", buffering=0)
        self._last_progress: dict[PhaseName, float] = {}
        self._opened = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since this life of the run began."""
        return round(time.monotonic() - self._opened, 3)

    def write(self, event: Event) -> None:
        """Append one event. Progress is only flushed; everything else is also synced to the disk."""
        record = Record(self._sequence + 1, time.time(), event)
        self._handle.write(to_line(record).encode())
        self._sequence += 1
        if not isinstance(event, Progress):
            os.fsync(self._handle.fileno())
        for finding in self._findings(record):
            self.write(Advice(topic=finding.topic, message=finding.message, change=finding.change))

    def _findings(self, record: Record) -> list[Finding]:
        """What the event shows of the run's health; a fault in there is no reason to lose a run."""
        try:
            return self._health.take(record) if self._health is not None else []
        except Exception:
            traceback.print_exc()
            self._health = None
            return []

    def progress(self, phase: PhaseName, done: int, total: int | None, unit: str, message: str = "") -> None:
        """Append a progress event, at most about two a second for each phase, the first and the last always."""
        now = time.monotonic()
        if 0 < done != total and now - self._last_progress.get(phase, 0.0) < PROGRESS_SECONDS:
            return
        self._last_progress[phase] = now
        self.write(Progress(phase=phase, done=done, total=total, unit=unit, message=message))

    def warn(self, topic: str, message: str) -> None:
        """Append a warning."""
        self.write(Warned(topic=topic, message=message))

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[dict[str, int | float | str | bool]]:
        """A phase from its start to its end; what is put into the yielded dict goes into the end's ``details``."""
        details: dict[str, int | float | str | bool] = {}
        self.write(Phase(phase=name, state="started"))
        start = time.monotonic()
        yield details
        seconds = round(time.monotonic() - start, 3)
        self.write(Phase(phase=name, state="finished", seconds=seconds, details=details))


def _repair(path: Path) -> int:
    """Cut a torn last line; the number of the last whole event, 0 for a new log."""
    if not path.exists():
        path.touch()
        return 0
    with path.open("rb+") as handle:
        content = handle.read()
        whole = content.rfind(b"\n") + 1
        handle.truncate(whole)
    for line in reversed(content[:whole].splitlines()):
        if (record := from_line(line)) is not None:
            return record.seq
    return 0
