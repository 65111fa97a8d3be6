"""The recent past of a run, as far as its health can be told from it: bounded, whatever the run's length."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from qlora_tui.runs.events import Eval, Memory, Phase, Progress, Record, RunStarted, Step

STEPS = 400
SAMPLES = 360
FIRST = 10
"""Steps that stand for how the run began."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a run is telling.

    Attributes:
        topic: What it is about, in a word.
        message: The evidence, in numbers.
        change: What to change.
    """

    topic: str
    message: str
    change: str


@dataclass(frozen=True, slots=True)
class Point:
    """One step. ``gap`` is the time since the end of the step before that was not spent computing this one, in
    seconds; None where something else was done in between."""

    step: int
    loss: float | None
    learning_rate: float
    grad_norm: float | None
    seconds: float
    tokens_per_second: float
    reserved: int | None
    gap: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation during training, with the mean training loss of the steps before it."""

    step: int
    loss: float
    training_loss: float | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """One look at the memory and the device."""

    step: int
    event: Memory


@dataclass(slots=True)
class Window:
    """What the checks look at; feed it every record with :meth:`take`."""

    points: deque[Point] = field(default_factory=lambda: deque(maxlen=STEPS))
    samples: deque[Sampled] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    evals: list[Measured] = field(default_factory=list)
    first_losses: list[float] = field(default_factory=list)
    step: int = 0
    total_steps: int = 0
    peak_rate: float = 0.0
    peak_step: int = 0
    before: float | None = None
    """Held-out loss of the base."""
    lowest: float | None = None
    """Lowest mean of ten steps' losses so far."""
    lowest_step: int = 0
    fastest: float = 0.0
    """Highest median of twenty steps' tokens per second so far."""
    parameters: int | None = None
    bad_eval: int | None = None
    """Step of an evaluation whose loss was not a number."""
    _last_time: float | None = None

    def take(self, record: Record) -> None:
        """Take in one event."""
        match record.event:
            case RunStarted():
                self._last_time = None
            case Phase(phase="load", state="finished") as event:
                known = event.details.get("parameters")
                self.parameters = known if isinstance(known, int) else None
            case Step() as event:
                self._take_step(event, record.time)
            case Eval() as event:
                self._last_time = None
                self._take_eval(event)
            case Memory() as event:
                self.samples.append(Sampled(self.step, event))
            case Progress(phase="train"):
                pass
            case _:
                self._last_time = None

    def _take_step(self, event: Step, time: float) -> None:
        gap = None if self._last_time is None else max(0.0, time - self._last_time - event.step_seconds)
        self._last_time = time
        self.step, self.total_steps = event.step, event.total_steps
        self.points.append(
            Point(
                event.step,
                event.loss,
                event.learning_rate,
                event.grad_norm,
                event.step_seconds,
                event.tokens_per_second,
                event.memory_reserved,
                gap,
            )
        )
        if event.learning_rate > self.peak_rate:
            self.peak_rate, self.peak_step = event.learning_rate, event.step
        if event.loss is not None and event.step <= FIRST:
            self.first_losses.append(event.loss)
        self._note_bests()

    def _note_bests(self) -> None:
        recent = self.losses(10)
        if len(recent) == 10 and (self.lowest is None or statistics.fmean(recent) < self.lowest):
            self.lowest, self.lowest_step = statistics.fmean(recent), self.step
        speeds = self.speeds(20)
        if len(speeds) == 20:
            self.fastest = max(self.fastest, statistics.median(speeds))

    def _take_eval(self, event: Eval) -> None:
        if event.stage == "before":
            self.before = event.loss
        if event.stage != "during":
            return
        if event.loss is None:
            self.bad_eval = event.step
            return
        recent = self.losses(20)
        self.evals.append(Measured(event.step, event.loss, statistics.fmean(recent) if recent else None))

    def last(self, count: int) -> list[Point]:
        """The newest steps, at most ``count``."""
        points = self.points
        return [points[index] for index in range(max(0, len(points) - count), len(points))]

    def losses(self, count: int) -> list[float]:
        """The finite losses among the newest ``count`` steps."""
        return finite(point.loss for point in self.last(count))

    def speeds(self, count: int) -> list[float]:
        """Tokens per second of the newest ``count`` steps."""
        return [point.tokens_per_second for point in self.last(count)]

    def noise(self) -> float:
        """How far one step's loss lies from the next by chance, as the standard deviation of its logarithm."""
        logs = [math.log(loss + 0.05) for loss in self.losses(60)]
        jumps = [later - earlier for earlier, later in pairwise(logs)]
        return spread(jumps) / math.sqrt(2)

    @property
    def warmed_up(self) -> int:
        """Steps since the learning rate was at its peak."""
        return self.step - self.peak_step


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that are there."""
    return [value for value in values if value is not None]


def spread(values: Sequence[float]) -> float:
    """Standard deviation; 0 for fewer than two values. In floats: the exact one of the library is far slower."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
