"""What finished runs measured on this machine, and what the next estimate takes from it.

A run on a GPU leaves one JSON line. Context (what the process holds besides torch's memory) and speed against its
prediction differ from machine to machine and are taken over. Allocated memory is the formula's own claim: where a run
contradicts it by more than 5 %, that is said as a fault of the formula, and nothing is scaled.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlora_tui.paths import state_directory
from qlora_tui.runs.files import write_atomic
from qlora_tui.text import one_line

KEPT: Final = 400
"""Runs that are remembered; the oldest go first."""
FAULT: Final = 0.05
"""Relative deviation of allocated memory beyond which the formula is at fault."""
STACK: Final = ("torch", "transformers", "peft", "trl", "bitsandbytes", "liger-kernel")
"""The libraries that memory and speed depend on."""

_MOST_BYTES: Final = 4 << 20
_USED: Final = 20
"""Newest runs that a calibration looks at."""
_GIB: Final = 2**30

Bytes = Annotated[int, Field(ge=0, lt=1 << 50)]
Name = Annotated[str, Field(max_length=300)]


class MeasuredRun(BaseModel):
    """One run as measured. Sizes in bytes; what could not be read is null."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: int = 1
    time: float
    """When it ended, seconds since the epoch."""
    run: Name
    card: Name
    device_total: Bytes | None = None
    driver: Name | None = None
    stack: dict[Name, Name] = {}
    """Library versions by name, those of :data:`STACK`."""
    model: Name
    """Source of the base: hub id, folder, ``bundled:NAME``."""
    fingerprint: Name = ""
    recipe: dict[Name, int | float | str | bool | None] = {}
    allocated: Annotated[int, Field(gt=0, lt=1 << 50)]
    """Peak of training, as torch counts it."""
    reserved: Annotated[int, Field(gt=0, lt=1 << 50)]
    process: Bytes | None = None
    """What the driver showed for the process, reserved memory included."""
    context: Bytes | None = None
    """``process`` less what was reserved at that moment."""
    tokens_per_second: Annotated[float, Field(ge=0)] | None = None
    """Median over the steps after the first few."""
    estimated_allocated: Bytes | None = None
    estimated_process: Bytes | None = None
    estimated_tokens_per_second: Annotated[float, Field(ge=0)] | None = None

    @property
    def deviation(self) -> float | None:
        """How much more was allocated than estimated, relative to the estimate; None without an estimate."""
        return self.allocated / self.estimated_allocated - 1 if self.estimated_allocated else None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What earlier runs on the same card, driver and libraries say about the next one.

    Attributes:
        context: Bytes of the process besides torch's memory, None if no run could read it.
        speed: Measured over predicted tokens per second, the median; None where no run had a prediction.
        runs: Number of runs this rests on.
        notes: Sentences for whoever reads the estimate: where the figures come from, and faults of the formula.
    """

    context: int | None
    speed: float | None
    runs: int
    notes: tuple[str, ...]


def history_file() -> Path:
    """Where the runs are remembered."""
    return state_directory() / "measured-runs.jsonl"


def stack_versions() -> dict[str, str]:
    """Versions of the installed libraries of :data:`STACK`, without importing them."""
    versions = {}
    for name in STACK:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def read_history(path: Path | None = None) -> list[MeasuredRun]:
    """The remembered runs, oldest first; lines that are torn, foreign or absurd are passed over."""
    path = path or history_file()
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _MOST_BYTES))
            lines = file.read(_MOST_BYTES).splitlines()
    except OSError:
        return []
    return [run for line in lines if (run := _parse(line)) is not None][-KEPT:]


def _parse(line: bytes) -> MeasuredRun | None:
    try:
        return MeasuredRun.model_validate_json(line)
    except (ValidationError, ValueError, RecursionError):
        return None


def remember(run: MeasuredRun, path: Path | None = None) -> None:
    """Add a run to the file, which is replaced as a whole.

    Raises:
        OSError: if it cannot be written; what was there stays.
    """
    path = path or history_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".{path.name}.lock")):
        kept = [*read_history(path), run][-KEPT:]
        write_atomic(path, "".join(each.model_dump_json() + "\n" for each in kept))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two runs that end together wait for each other."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def calibration(
    card: str,
    *,
    driver: str | None = None,
    stack: Mapping[str, str] | None = None,
    model: str | None = None,
    path: Path | None = None,
) -> Calibration | None:
    """What the runs on this card with these libraries measured; None if there are none.

    Args:
        card: The GPU's name, as the driver gives it.
        driver: Its version; None does not compare it.
        stack: Library versions, those that are installed if None.
        model: Source of the base to be trained: faults of the formula with other models are left out.
        path: The file, :func:`history_file` if None.
    """
    versions = dict(stack if stack is not None else stack_versions())
    runs = [
        run
        for run in read_history(path)
        if run.card == card and run.stack == versions and (driver is None or run.driver in (None, driver))
    ][-_USED:]
    if not runs:
        return None
    contexts = [run.context for run in runs if run.context is not None]
    context = round(statistics.median(contexts)) if contexts else None
    speeds = [
        run.tokens_per_second / run.estimated_tokens_per_second
        for run in runs
        if run.tokens_per_second and run.estimated_tokens_per_second
    ]
    speed = statistics.median(speeds) if speeds else None
    notes = [*_source_note(len(runs), card, context, speed), *_faults(runs, model)]
    return Calibration(context, speed, len(runs), tuple(notes))


def _source_note(count: int, card: str, context: int | None, speed: float | None) -> Iterator[str]:
    figures = [] if context is None else [f"context {context / _GIB:.2f} GiB"]
    if speed is not None:
        figures.append(f"{speed:.0%} of the predicted speed")
    if figures:
        runs = "one earlier run" if count == 1 else f"{count} earlier runs"
        told = ", ".join(figures)
        yield f"Corrected by {runs} on this {one_line(card, 60)} with the same libraries: {told}."


def _faults(runs: Sequence[MeasuredRun], model: str | None) -> Iterator[str]:
    latest: dict[str, MeasuredRun] = {}
    for run in runs:
        if model is None or run.model == model:
            latest[run.model] = run
    for run in latest.values():
        if (fault := formula_fault(run.allocated, run.estimated_allocated)) is not None:
            yield f"In the run {one_line(run.run, 64)} of {one_line(run.model, 80)}: {fault}"


def formula_fault(measured: int, estimated: int | None) -> str | None:
    """A sentence if allocated memory was off the estimate by more than :data:`FAULT`, else None."""
    if not estimated or abs(measured - estimated) <= FAULT * estimated:
        return None
    return (
        f"training allocated {measured / _GIB:.2f} GiB where the estimate said {estimated / _GIB:.2f} GiB "
        f"({measured / estimated - 1:+.1%}). That is a fault of the formula, which is not scaled to hide it; please "
        "report it with the model's config.json and this run's config.yaml."
    )
