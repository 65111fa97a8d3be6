"""What the list of runs says of each: read from the event log in one pass, few lines of it parsed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from qlora_tui.runs.directory import RunDirectory, RunStatus, list_runs
from qlora_tui.text import one_line

_HEAD_BYTES = 120
"""The kind of an event stands within this many bytes of its line."""


@dataclass(frozen=True, slots=True)
class RunOverview:
    """One run of the list. ``changed`` is the time of its last sign of life, in seconds since the epoch."""

    name: str
    path: Path
    status: RunStatus
    step: int | None
    total_steps: int | None
    best_loss: float | None
    best_step: int | None
    changed: float

    def as_values(self) -> dict[str, str | int | float | None]:
        """The overview for JSON."""
        return {
            "name": self.name,
            "path": str(self.path),
            "status": self.status,
            "step": self.step,
            "total_steps": self.total_steps,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "age_seconds": round(max(0.0, time.time() - self.changed), 1),
        }

    def as_cells(self) -> tuple[str, ...]:
        """The overview as the cells of a table: name, status, step, best loss, age."""
        step = "" if self.step is None else f"{self.step:,}" + (f"/{self.total_steps:,}" if self.total_steps else "")
        loss = "" if self.best_loss is None else f"{self.best_loss:.4f}"
        return (one_line(self.name, 64), self.status.replace("_", " "), step, loss, age(time.time() - self.changed))


def overviews() -> list[RunOverview]:
    """Every run of the runs directory, newest first."""
    return [overview(run) for run in list_runs()]


def overview(run: RunDirectory) -> RunOverview:
    """What there is to say about one run."""
    from qlora_tui.runs.events import Eval, RunFinished, Step, from_line

    lines: dict[str, bytes] = {}
    try:
        with run.events.open("rb") as handle:
            for line in handle:
                head = line[:_HEAD_BYTES]
                if b'"event": "step"' in head:
                    lines["step"] = line
                elif b'"event": "eval"' in head and b'"best": true' in line:
                    lines["eval"] = line
                elif b'"event": "run_finished"' in head:
                    lines["run_finished"] = line
        changed = run.events.stat().st_mtime
    except OSError:
        changed = _folder_time(run.path)
    events = [record.event for line in lines.values() if (record := from_line(line)) is not None]
    step = next((event for event in events if isinstance(event, Step)), None)
    best = next((event for event in events if isinstance(event, Eval)), None)
    end = next((event for event in events if isinstance(event, RunFinished)), None)
    finished = end if end is not None and end.best_step is not None else None
    return RunOverview(
        name=run.name,
        path=run.path,
        status=run.status(),
        step=step.step if step else None,
        total_steps=step.total_steps if step else None,
        best_loss=best.loss if best else finished.best_loss if finished else None,
        best_step=best.step if best else finished.best_step if finished else None,
        changed=changed,
    )


def _folder_time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def age(seconds: float) -> str:
    """For example ``3 min ago``."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"
