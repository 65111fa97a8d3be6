"""All that a screen shows of one run: what its events add up to, in bounded memory.

The state of phases and times is :class:`~qlora_tui.runs.progress.RunProgress`; here are the curves, the samples, the
advice and the log's last lines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from qlora_tui.runs.events import (
    Advice,
    Checkpoint,
    Eval,
    Failed,
    Memory,
    Record,
    RunStarted,
    Sample,
    Step,
    Warned,
)
from qlora_tui.runs.progress import RunProgress
from qlora_tui.runs.series import Series
from qlora_tui.runs.telling import describe
from qlora_tui.text import printable

LOG_LINES = 2_000
SAMPLES = 400
ADVICE = 200
LINE_CHARACTERS = 2_000

Tone = Literal["plain", "good", "notice", "bad"]
RECENT = 120
"""Values kept of what is shown as a line of bars."""
CURVES = ("loss", "smoothed", "held_out", "learning_rate")
READINGS = (
    "tokens_per_second", "step_seconds", "grad_norm", "device_used", "utilisation", "temperature", "power", "process",
)  # fmt: skip


def _recent() -> dict[str, deque[float]]:
    return {name: deque(maxlen=RECENT) for name in READINGS}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log, printable; ``number`` counts all lines, also those that are forgotten by now."""

    number: int
    time: float
    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Told:
    """Something with the step at which it was said."""

    step: int
    event: Advice | Sample


@dataclass(frozen=True, slots=True)
class Other:
    """The loss of another run, to compare with."""

    name: str
    loss: Series
    held_out: Series


@dataclass(slots=True)
class RunView:
    """The state of a run as its events tell it; feed it every record with :meth:`add`."""

    progress: RunProgress = field(default_factory=RunProgress)
    curves: dict[str, Series] = field(default_factory=lambda: {name: Series() for name in CURVES})
    recent: dict[str, deque[float]] = field(default_factory=_recent)
    resumes: list[int] = field(default_factory=list)
    lines: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    samples: deque[Told] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    advice: deque[Told] = field(default_factory=lambda: deque(maxlen=ADVICE))
    memory: Memory | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_time: float | None = None
    last_seq: int = 0
    last_time: float | None = None
    changes: int = 0
    """Grows with every event; equal numbers mean an equal view."""
    _line_number: int = 0

    @property
    def step(self) -> int:
        """The newest optimizer step; 0 before the first."""
        return self.progress.step.step if self.progress.step is not None else 0

    def add(self, record: Record) -> None:
        """Take in one event; one that was there already is passed over."""
        if record.seq <= self.last_seq:
            return
        self.last_seq, self.last_time = record.seq, record.time
        self.changes += 1
        self.progress.add(record)
        if isinstance(record.event, Step):  # nearly all of a log, and nothing to say: asked for first, once
            self._take_step(record.event)
            return
        self._keep(record)
        if (line := describe(record)) is not None:
            self._say(record.time, line, _tone(record))
        elif isinstance(record.event, Failed):
            self._say(record.time, f"error: {record.event.message} {record.event.hint}", "bad")

    def _keep(self, record: Record) -> None:
        match record.event:
            case RunStarted(resumed_from_step=int(step)):
                self.resumes.append(step)
            case Eval(stage="during") as event:
                self.curves["held_out"].add(event.step, event.loss)
            case Eval(stage="before") as event:
                self.curves["held_out"].add(0, event.loss)
            case Memory() as event:
                self._take_memory(event)
            case Sample() as event:
                self.samples.append(Told(event.step, event))
            case Advice() as event:
                self.advice.append(Told(self.step, event))
            case Checkpoint() as event:
                self.checkpoint, self.checkpoint_time = event, record.time
            case _:
                pass

    def _take_step(self, event: Step) -> None:
        curves, step = self.curves, event.step
        curves["loss"].add(step, event.loss)
        if self.progress.smoothed_loss is not None:
            curves["smoothed"].add(step, self.progress.smoothed_loss)
        curves["learning_rate"].add(step, event.learning_rate)
        self.recent["tokens_per_second"].append(event.tokens_per_second)
        self.recent["step_seconds"].append(event.step_seconds)
        if event.grad_norm is not None:
            self.recent["grad_norm"].append(event.grad_norm)

    def _take_memory(self, event: Memory) -> None:
        self.memory = event
        used = None
        if event.device_total is not None and event.device_free is not None:
            used = event.device_total - event.device_free
        for name, value in (
            ("device_used", used),
            ("utilisation", event.utilisation),
            ("temperature", event.temperature),
            ("power", event.power),
            ("process", event.process),
        ):
            if value is not None:
                self.recent[name].append(float(value))

    def _say(self, time: float, text: str, tone: Tone) -> None:
        for part in printable(text, LINE_CHARACTERS).splitlines():
            self._line_number += 1
            self.lines.append(LogLine(self._line_number, time, part.replace("\t", " "), tone))

    def lines_after(self, number: int) -> list[LogLine]:
        """The lines behind that number that are still known, oldest first."""
        fresh = min(len(self.lines), self._line_number - number)
        return [self.lines[index] for index in range(len(self.lines) - fresh, len(self.lines))] if fresh > 0 else []


def _tone(record: Record) -> Tone:
    match record.event:
        case Eval(best=True) | Checkpoint(what="adapter"):
            return "good"
        case Warned() | Advice():
            return "notice"
        case _:
            return "plain"
