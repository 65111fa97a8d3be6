"""What the train screen says of a run, as values: headline, phases, readings, advice. Nothing here draws."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from textual.content import Content

from qlora_tui.runs.directory import RunStatus
from qlora_tui.runs.events import Advice, Comparison, Memory, Sample
from qlora_tui.runs.progress import PhaseProgress, Remaining
from qlora_tui.runs.telling import amount, duration, number
from qlora_tui.runs.view import LogLine, RunView
from qlora_tui.text import one_line, printable
from qlora_tui.tui.follower import Condition, Trouble
from qlora_tui.tui.widgets.tiles import Reading
from qlora_tui.tui.words import gib

# A sign, a word and a colour for each state, so that none of them is needed alone.
STATES: Final[dict[RunStatus, tuple[str, str, str]]] = {
    "created": ("○", "not started", "dim"),
    "running": ("●", "training", "$primary"),
    "completed": ("✓", "completed", "$success"),
    "early_stopped": ("✓", "stopped early", "$success"),
    "stopped": ("■", "stopped", "$warning"),
    "failed": ("✗", "failed", "$error"),
    "interrupted": ("✗", "broken off", "$error"),
}
HOT_DEGREES = 85
TIGHT_SHARE = 0.97
SAMPLES_SHOWN = 40


def headline(name: str, view: RunView, condition: Condition, now: float) -> Content:
    """The run's name, its state, how far it is and how long it still takes."""
    sign, word, colour = STATES[condition.status]
    text = Content.styled(one_line(name, 64), "bold").append("  ").append(Content.styled(f"{sign} {word}", colour))
    for part in _facts(view, condition, now):
        text = text.append(Content.styled("  ·  ", "dim")).append(Content(part))
    return text


def _facts(view: RunView, condition: Condition, now: float) -> list[str]:
    progress, step = view.progress, view.progress.step
    facts = []
    if step is not None:
        shown = max(step.step, condition.newest_step)
        facts.append(f"step {shown:,} of {step.total_steps:,}")
    if condition.behind:
        facts.append(f"reading the log, {condition.behind / 1e6:,.0f} MB to go")
    elif condition.status == "running" and progress.phases:
        facts.append("ending" if progress.finished is not None else _remaining(progress.remaining(now)))
    elif progress.finished is not None:
        facts.append(f"took {duration(progress.finished.seconds)}")
    if progress.best_eval is not None:
        facts.append(f"best loss {number(progress.best_eval.loss)} at step {progress.best_eval.step:,}")
    if step is not None:
        facts.append(f"epoch {step.epoch:.2f}")
    if condition.status == "running" and progress.life_started is not None:
        facts.append(f"{duration(max(0.0, now - progress.life_started))} so far")
    return facts


def _remaining(remaining: Remaining) -> str:
    if remaining.seconds <= 0 and remaining.unknown:
        return "time left not known yet"
    rest = " + " + ", ".join(remaining.unknown) if remaining.unknown else ""
    return f"{duration(remaining.seconds)}{rest} left"


def phase_line(view: RunView, condition: Condition, width: int) -> Content:
    """Every phase with its state; the one that runs with how far it is, in detail if there is room in ``width``."""
    if not view.progress.phases:
        return Content.styled("waiting for the first event", "dim")
    alive = condition.status == "running"
    full, brief = (
        Content("  ").join(_phase(phase, alive, detailed) for phase in view.progress.phases.values())
        for detailed in (True, False)
    )
    return full if full.cell_length <= width else brief


def _phase(phase: PhaseProgress, alive: bool, detailed: bool) -> Content:
    if phase.ended is not None:
        return Content.styled(f"✓ {phase.name}", "$success")
    if not phase.active:
        return Content.styled(f"· {phase.name}", "dim")
    done = "" if phase.fraction is None else f" {phase.fraction:.0%}"
    far = (one_line(phase.message, 40) or amount(phase)) if detailed else ""
    words = f"▸ {phase.name}{done}" + (f" ({far})" if far else "")
    return Content.styled(
        words if alive else f"✗ {phase.name}{done}, broken off", "bold $primary" if alive else "$error"
    )


def readings(view: RunView, now: float) -> list[Reading]:
    """The tiles: what is not known is left out."""
    step, memory = view.progress.step, view.memory
    found = []
    if step is not None:
        found.append(Reading("tokens/s", f"{step.tokens_per_second:,.0f}", _recent(view, "tokens_per_second")))
        found.append(Reading("step time", duration(step.step_seconds), _recent(view, "step_seconds")))
        norm = step.grad_norm
        tone = "" if norm is not None else "error"
        found.append(
            Reading("gradient", number(norm) if norm is not None else "none", _recent(view, "grad_norm"), tone)
        )
    if memory is not None:
        found += _device(view, memory)
    if view.checkpoint is not None and view.checkpoint_time is not None:
        age = max(0.0, now - view.checkpoint_time)
        found.append(Reading("saved", _ago(age)))
    return found


def _device(view: RunView, memory: Memory) -> list[Reading]:
    found = []
    if memory.device_total and memory.device_free is not None:
        used = memory.device_total - memory.device_free
        tone = "warning" if used > TIGHT_SHARE * memory.device_total else ""
        value = f"{gib(used, unit=False)}/{gib(memory.device_total)}"
        found.append(Reading("memory", value, _recent(view, "device_used"), tone))
    else:
        found.append(Reading("RAM", gib(memory.process), _recent(view, "process")))
    if memory.utilisation is not None:
        found.append(Reading("GPU", f"{memory.utilisation} %", _recent(view, "utilisation")))
    if memory.temperature is not None:
        hot = memory.temperature >= HOT_DEGREES or bool(memory.throttled and set(memory.throttled) - {"power limit"})
        word = f"{memory.temperature} °C" + (" hot" if hot else "")
        found.append(Reading("heat", word, _recent(view, "temperature"), "warning" if hot else ""))
    if memory.power is not None:
        limit = "" if memory.power_limit is None else f"/{memory.power_limit:.0f}"
        found.append(Reading("power", f"{memory.power:.0f}{limit} W", _recent(view, "power")))
    return found


def _recent(view: RunView, name: str) -> list[float]:
    return list(view.recent[name])


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 172_800 else f"{seconds / 86_400:.0f} days ago"


def advice_text(view: RunView) -> Content:
    """The advice so far, the newest first."""
    if not view.advice:
        return Content.styled("Nothing to say: the run's own numbers show no trouble.", "dim")
    parts = []
    for told in reversed(view.advice):
        event = told.event
        assert isinstance(event, Advice)
        head = Content.styled(f"▲ {one_line(event.topic, 40).replace('_', ' ')}", "bold $warning")
        head = head.append(Content.styled(f"  step {told.step:,}\n", "dim"))
        body = Content(printable(event.message, 2000)).append("\n").append(Content.styled("→ ", "$primary"))
        parts.append(head.append(body).append(Content(printable(event.change, 2000))))
    return Content("\n\n").join(parts)


def samples_text(view: RunView) -> Content:
    """What the model said to the fixed prompts, the newest first."""
    if not view.samples:
        hint = "No samples yet. evaluation.prompts in the config are answered at each evaluation; e asks now."
        return Content.styled(hint, "dim")
    parts = []
    for told in list(view.samples)[: -SAMPLES_SHOWN - 1 : -1]:
        event = told.event
        assert isinstance(event, Sample)
        head = Content.styled(f"step {told.step:,}", "bold $primary")
        head = head.append(Content.styled(f"  {one_line(event.prompt, 300)}\n", "dim"))
        parts.append(head.append(Content(printable(event.text, 4000))))
    return Content("\n\n").join(parts)


_TONES: Final = {"plain": "", "good": "$success", "notice": "$warning", "bad": "bold $error"}


def log_line(line: LogLine) -> Content:
    """A line of the log with its time."""
    clock = time.strftime("%H:%M:%S ", time.localtime(line.time))
    return Content.styled(clock, "dim").append(Content.styled(line.text, _TONES[line.tone]))


def tail_text(view: RunView, room: int) -> Content:
    """The log's last lines, as many as there is room for."""
    lines = view.lines_after(view.lines[-1].number - room) if view.lines else []
    return Content("\n").join(map(log_line, lines))


def result_text(view: RunView, condition: Condition) -> Content | None:
    """How it ended: the error, or what was measured before and after; None while it goes on."""
    progress = view.progress
    if progress.failed is not None and condition.status in ("failed", "interrupted"):
        failed = progress.failed
        text = Content.styled(printable(failed.message, 2000), "bold $error")
        return text.append(Content("\n" + printable(failed.hint, 2000))).append(
            Content.styled(f"\nLog: {one_line(failed.log, 300)}", "dim")
        )
    if progress.finished is None or not progress.finished.comparison:
        return None
    return Content("   ").join(_comparison(progress.finished.comparison))


_REMEDIES: Final[dict[Trouble, str]] = {
    "dead": "Its log may say why; r goes on from the last checkpoint.",
    "vanished": "It was deleted or moved; escape goes to the other runs.",
    "cut": "What is shown here is what the log says now.",
    "disk": "Free some space, or the next save fails; complete checkpoints are kept.",
    "unreadable": "Check the permissions of the run's folder.",
    "silent": "It may be loading or waiting; worker.log says what the libraries do.",
}


def trouble_text(condition: Condition) -> Content:
    """What is wrong with the run, and what to do."""
    return Content.styled(f"✗ {condition.detail} ", "bold $error").append(Content(_REMEDIES.get(condition.trouble, "")))


def _comparison(items: Mapping[str, Comparison]) -> list[Content]:
    parts = []
    for name, values in items.items():
        sure = values.low > 0 or values.high < 0
        text = Content.styled(f"{one_line(name, 30)} ", "dim")
        text = text.append(Content.styled(f"{number(values.before)} → {number(values.after)}", "bold"))
        interval = f" ({values.low:+.3f} to {values.high:+.3f}" + ("" if sure else ", no clear difference") + ")"
        parts.append(text.append(Content.styled(interval, "dim")))
    return parts
