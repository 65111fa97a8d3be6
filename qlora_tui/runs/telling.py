"""A run told in words: one line for each thing worth a line, and the pieces of text that every display shares.

Event text is foreign (model output, file contents, exception messages): it passes :mod:`qlora_tui.text` before it comes
out of here, and nothing here is markup.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from qlora_tui.paths import runs_directory
from qlora_tui.runs.events import (
    Advice,
    Checkpoint,
    Comparison,
    Eval,
    Memory,
    Phase,
    Record,
    Replanned,
    RunStarted,
    Sample,
    Warned,
)
from qlora_tui.runs.progress import PhaseProgress, Remaining, RunProgress
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from qlora_tui.runs.directory import RunDirectory


def describe(record: Record) -> str | None:
    """One line for an event, or None for those that only move numbers or that the end tells."""
    match record.event:
        case RunStarted() as event:
            resumed = f", goes on from step {event.resumed_from_step}" if event.resumed_from_step is not None else ""
            return f"run {one_line(event.name, 80)} (process {event.pid}){resumed}"
        case Phase(state="started") as event:
            return f"{event.phase}: started"
        case Phase() as event:
            return describe_phase_end(event)
        case Eval() as event:
            return describe_eval(event)
        case Sample() as event:
            return f"sample at step {event.step}: {one_line(event.prompt, 80)} → {one_line(event.text, 240)}"
        case Checkpoint() as event:
            return f"{event.what} of step {event.step} saved in {event.seconds:.1f} s: {one_line(event.path, 300)}"
        case Advice() as event:
            return f"advice: {one_line(event.message, 400)} {one_line(event.change, 300)}"
        case Memory(moment="probe", allocated=int(allocated)) as event:
            said = f"; the estimate said {size(event.estimated_allocated)}" if event.estimated_allocated else ""
            measured = f", evaluation {size(event.evaluation)}" if event.evaluation else ""
            return f"memory tried before the first step: training takes {size(allocated)}{measured}{said}"
        case Replanned() as event:
            batch = f"micro-batch {event.micro_batch} × {event.gradient_accumulation} accumulated"
            return f"step {event.step}: {batch}, the effective batch stays: {one_line(event.reason, 300)}"
        case Warned() as event:
            return f"warning ({one_line(event.topic, 40)}): {one_line(event.message, 500)}"
        case _:
            return None


def describe_phase_end(event: Phase) -> str:
    """For example ``encode: done in 3.1 s (rows 900, tokens 120,000)``; choices follow, one a line."""
    facts, choices = [], []
    for name, value in event.details.items():
        if "." in name:
            choices.append(f"\n  {one_line(name, 60)}: {one_line(str(value), 160)}")
        else:
            facts.append(f"{one_line(name, 60).replace('_', ' ')} {fact(name, value)}")
    seconds = f" in {duration(event.seconds)}" if event.seconds is not None else ""
    return f"{event.phase}: done{seconds}" + (f" ({', '.join(facts)})" if facts else "") + "".join(choices)


def describe_eval(event: Eval) -> str:
    """The numbers of one evaluation."""
    where = {"before": "before training", "during": f"at step {event.step}", "after": "after training"}[event.stage]
    numbers = [f"loss {number(event.loss)}", f"perplexity {number(event.perplexity)}"]
    numbers += [f"{one_line(name, 40)} {number(value)}" for name, value in event.metrics.items()]
    best = ", best so far" if event.best and event.stage == "during" else ""
    return f"eval {where}: {', '.join(numbers)} ({event.rows:,} rows{best})"


def describe_progress(phase: PhaseProgress, progress: RunProgress, now: float) -> str:
    """How far a phase is, with the loss while training, and what is left."""
    parts = [amount(phase)]
    if phase.name == "train":
        parts += training_numbers(progress)
    elif phase.message:
        parts.append(one_line(phase.message, 120))
    left = phase.remaining(now)
    if left is not None and phase.fraction != 1.0:
        parts.append(f"{duration(left)} left")
    return ", ".join(part for part in parts if part) or "under way"


def training_numbers(progress: RunProgress) -> list[str]:
    """Loss, learning rate and speed of the latest step."""
    step = progress.step
    if step is None:
        return []
    smoothed = f" (smoothed {number(progress.smoothed_loss)})" if progress.smoothed_loss is not None else ""
    return [
        f"loss {number(step.loss)}{smoothed}",
        f"lr {step.learning_rate:.2e}",
        f"{step.tokens_per_second:,.0f} tokens/s",
    ]


def amount(phase: PhaseProgress) -> str:
    """For example ``40/400 steps`` or ``1.2 GB of 5.0 GB``; empty where nothing is counted."""
    if phase.total is None and phase.done == 0:
        return ""
    if phase.unit == "bytes":
        return size(phase.done) + (f" of {size(phase.total)}" if phase.total is not None else "")
    total = f"/{phase.total:,}" if phase.total is not None else ""
    return f"{phase.done:,}{total} {one_line(phase.unit, 20)}".rstrip()


def describe_remaining(remaining: Remaining) -> str:
    """The whole run's remaining time, naming what is not in it."""
    unknown = ", ".join(remaining.unknown)
    if remaining.seconds <= 0 and unknown:
        return f"not known yet ({unknown})"
    return f"{duration(remaining.seconds)} left" + (f", and what is not known yet: {unknown}" if unknown else "")


def duration(seconds: float) -> str:
    """For example ``3.2 s``, ``2:05`` or ``1:02:03``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def size(count: int) -> str:
    """A number of bytes for people."""
    amount_left = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount_left < 1000:
            return f"{amount_left:.0f} {unit}" if unit == "bytes" else f"{amount_left:.1f} {unit}"
        amount_left /= 1000
    return f"{amount_left:.1f} TB"


def number(value: float | None) -> str:
    """A measured number with four significant digits or so."""
    return "not a number" if value is None else f"{value:.4g}" if abs(value) >= 100 else f"{value:.4f}"


def fact(name: str, value: int | float | str | bool) -> str:
    """One value of a phase's details."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return size(value) if "bytes" in name else f"{value:,}"
    return number(value) if isinstance(value, float) else one_line(value, 80)


def comparison_cells(metric: str, values: Comparison) -> tuple[str, str, str, str, str]:
    """One row of the table of before and after: metric, before, after, difference with its interval, rows."""
    interval = f"{values.low:+.4f} to {values.high:+.4f}, {values.confidence:.0%}"
    return (
        one_line(metric, 40),
        number(values.before),
        number(values.after),
        f"{values.difference:+.4f} ({interval})",
        f"{values.rows:,}",
    )


def run_reference(run: RunDirectory) -> str:
    """What to type for this run: its name where that is enough, else its path."""
    return shlex.quote(run.name if run.path.parent == runs_directory().absolute() else str(run.path))
