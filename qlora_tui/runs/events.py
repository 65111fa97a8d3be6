"""The typed, versioned events of a run, and how they stand as JSON lines in ``events.jsonl``.

A line is one JSON object: ``v`` (format version), ``seq`` (1, 2, 3 … over the whole life of the run, resumes
included), ``time`` (seconds since the epoch), ``event`` (its kind) and the event's own fields. Readers ignore fields
and kinds that they do not know.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import from_json

EVENT_VERSION = 1

PhaseName = Literal["prepare", "encode", "load", "baseline", "train", "evaluate", "save"]
"""The phases of a run, in their order. ``evaluate`` is the measurement after training; ``baseline`` the one before."""
PHASES: tuple[PhaseName, ...] = get_args(PhaseName)

FinishStatus = Literal["completed", "early_stopped", "stopped", "failed"]


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


FiniteFloat = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A float, or null where the number was not finite: JSON has no NaN."""


class Event(BaseModel):
    """Base of all events."""

    # Built at its first use: most commands see few kinds of events, or none.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
    kind: ClassVar[str]


class RunStarted(Event):
    """The engine has taken over the run directory."""

    kind: ClassVar[str] = "run_started"
    name: str
    pid: int
    phases: tuple[PhaseName, ...]
    resumed_from_step: int | None = None


class Phase(Event):
    """A phase began or ended; ``details`` holds its facts (rows, tokens, parameters, bytes, seconds)."""

    kind: ClassVar[str] = "phase"
    phase: PhaseName
    state: Literal["started", "finished"]
    seconds: float | None = None
    details: dict[str, int | float | str | bool] = {}


class Progress(Event):
    """How far a phase is, in its own unit; ``total`` is null where it is not known."""

    kind: ClassVar[str] = "progress"
    phase: PhaseName
    done: int
    total: int | None
    unit: str
    message: str = ""


class Step(Event):
    """One optimizer step. Memory in bytes, null on a machine without a GPU."""

    kind: ClassVar[str] = "step"
    step: int
    total_steps: int
    epoch: float
    loss: FiniteFloat
    learning_rate: float
    grad_norm: FiniteFloat
    tokens: int
    """Tokens of this step, padding left out."""
    tokens_per_second: float
    step_seconds: float
    memory_allocated: int | None = None
    memory_reserved: int | None = None


class Eval(Event):
    """A measurement on held-out rows; ``loss`` is the mean over trained tokens, in nats."""

    kind: ClassVar[str] = "eval"
    stage: Literal["before", "during", "after"]
    step: int
    epoch: float
    loss: FiniteFloat
    perplexity: FiniteFloat
    rows: int
    tokens: int
    seconds: float
    metrics: dict[str, float] = {}
    best: bool = False


class Sample(Event):
    """What the model answers to a fixed prompt at this step."""

    kind: ClassVar[str] = "sample"
    step: int
    prompt: str
    text: str


class Checkpoint(Event):
    """Something that can be gone on from, or used, is on the disk, complete."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    path: str
    what: Literal["checkpoint", "adapter"]
    seconds: float


MemoryMoment = Literal["probe", "step", "end"]


class Memory(Event):
    """Memory of the device and of the process, in bytes, and what the device is doing; null where it does not tell."""

    kind: ClassVar[str] = "memory"
    allocated: int | None
    reserved: int | None
    process: int
    device_free: int | None = None
    device_total: int | None = None
    device_process: int | None = None
    evaluation: int | None = None
    estimated_allocated: int | None = None
    moment: MemoryMoment = "end"
    utilisation: int | None = None
    temperature: int | None = None
    power: FiniteFloat = None
    power_limit: FiniteFloat = None
    throttled: tuple[str, ...] | None = None


class Advice(Event):
    """What the run is telling: the evidence, and what to change."""

    kind: ClassVar[str] = "advice"
    topic: str
    message: str
    change: str


class Replanned(Event):
    """The micro-batch changed, the effective batch did not."""

    kind: ClassVar[str] = "replanned"
    step: int
    micro_batch: int
    gradient_accumulation: int
    reason: str


class Warned(Event):
    """Something to know that does not stop the run."""

    kind: ClassVar[str] = "warning"
    topic: str
    message: str


class Failed(Event):
    """The run ends here: what and why in ``message``, what to do in ``hint``, the traceback in ``log``."""

    kind: ClassVar[str] = "error"
    error: str
    message: str
    hint: str
    log: str
    exit_code: int


class Comparison(BaseModel):
    """One metric before and after on the same rows, with a paired confidence interval of the difference."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)
    before: float
    after: float
    difference: float
    low: float
    high: float
    confidence: float
    rows: int


class RunFinished(Event):
    """The last event of a run, or of one of its lives."""

    kind: ClassVar[str] = "run_finished"
    status: FinishStatus
    steps: int
    seconds: float
    best_step: int | None = None
    best_loss: FiniteFloat = None
    adapter: str | None = None
    comparison: dict[str, Comparison] = {}


_KINDS: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        RunStarted, Phase, Progress, Step, Eval, Sample, Checkpoint, Memory, Advice, Replanned, Warned, Failed,
        RunFinished,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """An event with its place in the log."""

    seq: int
    time: float
    event: Event


def to_line(record: Record) -> str:
    """The record as one JSON line, newline included."""
    head = {"v": EVENT_VERSION, "seq": record.seq, "time": round(record.time, 3), "event": record.event.kind}
    return json.dumps(head | record.event.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n"


def from_line(line: bytes | str) -> Record | None:
    """The record of one line, or None for a line that is torn, foreign or of a kind not known here."""
    try:
        values = from_json(line)
        kind = _KINDS.get(values["event"])
        if kind is None or values["v"] > EVENT_VERSION:
            return None
        return Record(int(values["seq"]), float(values["time"]), kind.model_validate(values))
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None
