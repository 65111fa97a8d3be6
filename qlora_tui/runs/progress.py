"""What a run's events add up to: how far each phase is, how fast it goes, and how long the rest takes.

Times are those of the events, so the answer is the same for whoever watched from the start and whoever came later.
Speeds are those of the present life of the run: what was done before a resume says nothing about the time it takes now.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qlora_tui.runs.events import (
    Checkpoint,
    Eval,
    Failed,
    Phase,
    PhaseName,
    Progress,
    Record,
    RunFinished,
    RunStarted,
    Step,
    Warned,
)

SMOOTHING = 0.9
"""Weight of the past in the smoothed loss."""
STEP_UNITS = ("step", "steps")


@dataclass(slots=True)
class PhaseProgress:
    """How far one phase is, in its own unit."""

    name: PhaseName
    done: int = 0
    total: int | None = None
    unit: str = ""
    message: str = ""
    started: float | None = None
    ended: float | None = None
    first_time: float = 0.0
    first_done: int | None = None
    """Where the first measurement of this life stood; speed counts from there."""
    latest_time: float = 0.0

    def measure(self, time: float, done: int, total: int | None, unit: str, message: str = "") -> None:
        """Take in how far the phase is at ``time``."""
        if self.started is None:
            self.started = time
        if self.first_done is None or done < self.first_done:
            self.first_time, self.first_done = time, done
        self.done, self.total, self.unit, self.message, self.latest_time = done, total, unit, message, time

    @property
    def active(self) -> bool:
        """Whether the phase has begun and not ended."""
        return self.started is not None and self.ended is None

    @property
    def fraction(self) -> float | None:
        """Share that is done, or None where the total is not known."""
        if self.ended is not None:
            return 1.0
        return min(1.0, self.done / self.total) if self.total else None

    def elapsed(self, now: float) -> float | None:
        """Seconds the phase took, or takes by now; None before it begins."""
        if self.started is None:
            return None
        return max(0.0, (self.ended if self.ended is not None else now) - self.started)

    def remaining(self, now: float) -> float | None:
        """Seconds to the phase's end at the speed of this life, or None while that is not known."""
        if self.ended is not None:
            return 0.0
        if self.total is None or self.first_done is None:
            return None
        advance, seconds = self.done - self.first_done, self.latest_time - self.first_time
        if advance <= 0 or seconds <= 0:
            return None
        left = max(0, self.total - self.done) * seconds / advance
        return max(0.0, left - max(0.0, now - self.latest_time))


@dataclass(frozen=True, slots=True)
class Remaining:
    """Time to the end of the run: the part that can be told, and the phases that cannot be told yet."""

    seconds: float
    unknown: tuple[PhaseName, ...]


@dataclass(slots=True)
class RunProgress:
    """The state of a run as its events tell it; feed it every record with :meth:`add`."""

    phases: dict[PhaseName, PhaseProgress] = field(default_factory=dict)
    pid: int | None = None
    life_started: float | None = None
    resumed_from_step: int | None = None
    step: Step | None = None
    smoothed_loss: float | None = None
    last_eval: Eval | None = None
    best_eval: Eval | None = None
    adapter: str | None = None
    save_seconds: float | None = None
    finished: RunFinished | None = None
    failed: Failed | None = None
    drift: list[str] = field(default_factory=list)
    _loss_sum: float = 0.0
    _loss_weight: float = 0.0

    def add(self, record: Record) -> None:
        """Take in one event."""
        match record.event:
            case Step() as event:  # nearly all of a log, and each kind asked for before takes its time
                self._take_step(event, record.time)
            case RunStarted() as event:
                self._begin_life(event, record.time)
            case Phase() as event:
                self._change_phase(event, record.time)
            case Progress() as event:
                self._measure(event, record.time)
            case Eval() as event:
                self.last_eval = event
                if event.best:
                    self.best_eval = event
            case Checkpoint() as event if event.what == "adapter":
                self.adapter, self.save_seconds = event.path, event.seconds
            case Warned(topic="drift") as event:
                self.drift.append(event.message)
            case Failed() as event:
                self.failed = event
            case RunFinished() as event:
                self.finished = event
            case _:
                pass

    def _begin_life(self, event: RunStarted, time: float) -> None:
        self.phases = {name: PhaseProgress(name) for name in event.phases}
        self.pid, self.life_started, self.resumed_from_step = event.pid, time, event.resumed_from_step
        self.finished = self.failed = None
        self.drift = []

    def phase(self, name: PhaseName) -> PhaseProgress:
        """The phase of that name, also one that the run did not announce."""
        return self.phases.setdefault(name, PhaseProgress(name))

    @property
    def current(self) -> PhaseProgress | None:
        """The phase that runs now: the latest of those that have begun and not ended."""
        active = [phase for phase in self.phases.values() if phase.active]
        return max(active, key=lambda phase: phase.started or 0.0) if active else None

    def _change_phase(self, event: Phase, time: float) -> None:
        if event.state == "started":
            self.phases[event.phase] = PhaseProgress(event.phase, started=time)
            return
        phase = self.phase(event.phase)
        phase.ended = time
        if phase.started is None:
            phase.started = time - (event.seconds or 0.0)

    def _measure(self, event: Progress, time: float) -> None:
        phase = self.phase(event.phase)
        # The train phase counts steps; anything else reported in it (rows of an evaluation) is only a remark.
        if event.phase == "train" and event.unit not in STEP_UNITS:
            phase.message = event.message
        elif phase.ended is None:
            phase.measure(time, event.done, event.total, event.unit, event.message)

    def _take_step(self, event: Step, time: float) -> None:
        self.step = event
        self.phase("train").measure(time, event.step, event.total_steps, "steps")
        if event.loss is not None:
            self.smooth(event.loss)

    def smooth(self, loss: float) -> None:
        """Take the loss of one step into the smoothed loss."""
        self._loss_sum = SMOOTHING * self._loss_sum + (1 - SMOOTHING) * loss
        self._loss_weight = SMOOTHING * self._loss_weight + (1 - SMOOTHING)
        self.smoothed_loss = self._loss_sum / self._loss_weight

    def remaining(self, now: float) -> Remaining:
        """Time to the end of the run over all its phases, as far as it can be told at ``now``."""
        seconds = 0.0
        unknown: list[PhaseName] = []
        names = list(self.phases)
        latest = max((place for place, name in enumerate(names) if self.phases[name].started is not None), default=-1)
        for place, name in enumerate(names):
            phase = self.phases[name]
            if phase.started is None and place < latest and self._training_began:
                continue  # passed over: a resume, for one, does not measure the baseline again
            estimate = phase.remaining(now) if phase.started is not None else self._expected(name)
            if estimate is None:
                unknown.append(name)
            else:
                seconds += estimate
        return Remaining(seconds, tuple(unknown))

    @property
    def _training_began(self) -> bool:
        return (train := self.phases.get("train")) is not None and train.started is not None

    def _expected(self, name: PhaseName) -> float | None:
        """What a phase will take by what this life has measured of the same work, or None."""
        if name == "evaluate" and (baseline := self.phases.get("baseline")) and baseline.ended is not None:
            return baseline.elapsed(baseline.ended)
        if name == "evaluate" and self._training_began and self.resumed_from_step is None:
            return 0.0  # a first life that trains without a baseline has no rows to measure on
        return self.save_seconds if name == "save" else None
