"""How a run ended, as one value: for the last lines on a terminal, for the JSON summary and for the exit code."""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Comparison
from qlora_tui.runs.progress import RunProgress
from qlora_tui.runs.telling import duration, number, run_reference
from qlora_tui.terminal.narration import Narrator, write_error

Outcome = Literal["ended", "died", "killed", "left", "hung_up", "vanished"]
"""Why a watch over a run is over."""
_STATUS_CODES = {"completed": ExitCode.OK, "early_stopped": ExitCode.OK, "stopped": ExitCode.INTERRUPTED}


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Why a run failed."""

    kind: str
    message: str
    hint: str
    log: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended, or how it stood when its follower left."""

    run: Path | None
    status: str
    exit_code: int
    steps: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    adapter: str | None = None
    comparison: dict[str, Comparison] = field(default_factory=dict)
    error: ErrorReport | None = None
    drift: tuple[str, ...] = ()

    @classmethod
    def of_error(cls, error: QloraError, run: Path | None = None) -> Summary:
        """The summary of something that failed before there was a run to follow."""
        report = ErrorReport(error.kind, f"{error.what} {error.why}", error.hint, None)
        return cls(run, "failed", int(error.exit_code), error=report)

    def to_json(self) -> str:
        """One JSON object, strict: a number that is not finite stands as null."""
        error = self.error
        values = {
            "run": str(self.run) if self.run else None,
            "status": self.status,
            "exit_code": int(self.exit_code),
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "adapter": self.adapter,
            "comparison": {metric: values.model_dump() for metric, values in self.comparison.items()},
            "error": error and {"kind": error.kind, "message": error.message, "hint": error.hint, "log": error.log},
            "drift": list(self.drift),
        }
        return json.dumps(_finite(values), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summarise(
    run: RunDirectory, progress: RunProgress, outcome: Outcome, *, returncode: int | None, alive: bool
) -> Summary:
    """The summary of a run whose watch is over.

    Args:
        progress: What its events add up to.
        outcome: Why the watch is over.
        returncode: Exit status of the training process, where the follower is its parent.
        alive: Whether that process still is.
    """
    status, code = _status(progress, outcome)
    finished = progress.finished if outcome == "ended" else None
    best, started = progress.best_eval, progress.life_started
    error = _vanished(run, progress, alive) if outcome == "vanished" else _failure(run, progress, status, returncode)
    return Summary(
        run=run.path,
        status=status,
        exit_code=code,
        steps=finished.steps if finished else progress.step.step if progress.step else 0,
        seconds=finished.seconds if finished else max(0.0, time.time() - started) if started else 0.0,
        best_step=finished.best_step if finished else best.step if best else None,
        best_loss=finished.best_loss if finished else best.loss if best else None,
        adapter=_adapter(run, progress),
        comparison=finished.comparison if finished else {},
        error=None if outcome == "killed" else error,
        drift=tuple(progress.drift),
    )


def _status(progress: RunProgress, outcome: Outcome) -> tuple[str, int]:
    if outcome in ("left", "hung_up"):
        return "running", ExitCode.OK
    if outcome == "killed":
        return "interrupted", ExitCode.INTERRUPTED
    failed, finished = progress.failed, progress.finished
    failure = failed.exit_code if failed is not None and failed.exit_code else ExitCode.RUN_FAILED
    if outcome == "ended" and finished is not None:
        return finished.status, _STATUS_CODES.get(finished.status, failure)
    return "failed" if failed is not None else "interrupted", failure


def _adapter(run: RunDirectory, progress: RunProgress) -> str | None:
    """The adapter that is there to be used, as an absolute path."""
    named = progress.finished.adapter if progress.finished else None
    path = run.path / (named or progress.adapter or run.adapter)
    return str(path) if path.is_dir() else None


def _vanished(run: RunDirectory, progress: RunProgress, alive: bool) -> ErrorReport:
    still = f" Its process {progress.pid} is still there." if alive else ""
    message = f"The run {run.name} cannot be followed any more. Its directory {run.path} is gone.{still}"
    return ErrorReport("run", message, "It was removed or moved; see what is left with `qlora-tui runs`.", None)


def _failure(run: RunDirectory, progress: RunProgress, status: str, returncode: int | None) -> ErrorReport | None:
    """What a run that failed says of itself, or what can be said of one that broke off."""
    if status not in ("failed", "interrupted"):
        return None
    if (failed := progress.failed) is not None:
        return ErrorReport(failed.error, failed.message, failed.hint, failed.log or str(run.log))
    message = f"The run {run.name} ended without finishing. {_how_it_died(returncode)}"
    hint = (
        f"Read the last lines of {run.log}; `qlora-tui resume {run_reference(run)}` goes on from its last checkpoint."
    )
    return ErrorReport("training", message, hint, str(run.log))


def _how_it_died(returncode: int | None) -> str:
    if returncode is None:
        return "Its process is gone."
    if returncode == -signal.SIGKILL:
        return "Its process was killed (SIGKILL); the system does that when main memory runs out."
    if returncode < 0:
        return f"Its process was ended by signal {-returncode}."
    return f"Its process exited with status {returncode}."


def tell_end(run: RunDirectory, narrator: Narrator, summary: Summary, outcome: Outcome) -> None:
    """The last sentences: the result or the error, where the adapter is, and how to go on."""
    reference = run_reference(run)
    if outcome == "left":
        narrator.say(f"The run goes on. Watch it with `qlora-tui attach {reference}`.")
        return
    if summary.error is not None:
        log = summary.error.log
        write_error(summary.error.message, summary.error.hint, f"Log: {log}" if log else "")
    else:
        narrator.say(_headline(summary, killed=outcome == "killed"))
    narrator.compare(summary.comparison)
    if summary.adapter is not None:
        narrator.say(f"adapter: {summary.adapter}")
    if summary.error is None:
        if summary.status in ("stopped", "interrupted"):
            narrator.say(f"go on with: qlora-tui resume {reference}")
        if summary.adapter is not None:
            narrator.say(f'try it with: qlora-tui chat {reference} --prompt "…" --compare')


def _headline(summary: Summary, *, killed: bool) -> str:
    saved = "stopped on request and saved" if summary.adapter else "stopped on request, before there was an adapter"
    words = {"early_stopped": "stopped early, because the evaluation no longer improved", "stopped": saved}
    status = "ended at once; what was not saved is lost" if killed else words.get(summary.status, summary.status)
    line = f"{status}: {summary.steps:,} steps in {duration(summary.seconds)}"
    if summary.best_step is None:
        return line
    return f"{line}, best loss {number(summary.best_loss)} at step {summary.best_step:,}"
