"""Whether the machine serves a run as it could. Each check names one trouble with its numbers, or none."""

from __future__ import annotations

import statistics
from itertools import pairwise

from qlora_tui.advice.window import Finding, Window
from qlora_tui.text import one_line

_GIB = 1 << 30


def starving(window: Window) -> Finding | None:
    """A device that waits between the steps."""
    points = [point for point in window.last(60) if point.gap is not None]
    if len(points) < 30:
        return None
    gap = sum(point.gap or 0.0 for point in points)
    busy = sum(point.seconds for point in points)
    share = gap / max(1e-9, gap + busy)
    if share < 0.2 or gap / len(points) < 0.02:
        return None
    message = (
        f"{share:.0%} of the time passes between the steps ({1000 * gap / len(points):.0f} ms after steps of "
        f"{1000 * busy / len(points):.0f} ms), while the device waits for its next batch."
    )
    change = "End what else uses the CPU and the disk, or raise training.micro_batch so that there are fewer batches."
    return Finding("starving", message, change)


def throttling(window: Window) -> Finding | None:
    """A GPU that holds its clocks down because it is too hot or lacks power."""
    samples = [sample.event for sample in window.samples if sample.event.throttled is not None][-6:]
    hot = [sample for sample in samples if _harmful(sample.throttled)]
    if len(samples) < 6 or len(hot) < 4:
        return None
    reasons = ", ".join(dict.fromkeys(one_line(word, 40) for sample in hot for word in _harmful(sample.throttled)))
    degrees = next((f" at {sample.temperature} °C" for sample in reversed(hot) if sample.temperature is not None), "")
    slower = _slowdown(window)
    cost = f" Steps run at {slower[1]:,.0f} tokens/s; they ran at {slower[0]:,.0f}." if slower else ""
    message = f"The GPU held its clocks down in {len(hot)} of its last 6 samples ({reasons}{degrees}).{cost}"
    return Finding("throttling", message, "Clear its air way, raise its fan speed, or lower its power limit a little.")


def _harmful(reasons: tuple[str, ...] | None) -> list[str]:
    # A card at its power limit is a card at work; only laptops and weak supplies suffer from it.
    return [reason for reason in reasons or () if reason != "power limit"]


def slower(window: Window) -> Finding | None:
    """Steps that have become slower, whatever the reason."""
    found = _slowdown(window)
    if found is None or throttling(window) is not None:
        return None
    message = f"The last 20 steps ran at {found[1]:,.0f} tokens/s; 20 earlier ones ran at {found[0]:,.0f}."
    return Finding("slower", message, "Look for another program on the GPU or the CPU: it costs this run its time.")


def _slowdown(window: Window) -> tuple[float, float] | None:
    """Tokens per second at the best and now, if that is much less."""
    speeds = window.speeds(20)
    if len(speeds) < 20 or len(window.points) < 60:
        return None
    now = statistics.median(speeds)
    return (window.fastest, now) if now < 0.7 * window.fastest else None


def memory_creeping(window: Window) -> Finding | None:
    """Memory that goes on growing long after the first steps."""
    if not window.samples or window.samples[-1].step != window.step:
        return None  # looked at only with each sample, because the whole window is gone through
    return _gpu_creeping(window) or _process_creeping(window)


def _gpu_creeping(window: Window) -> Finding | None:
    known = [(point.step, point.reserved) for point in window.points if point.reserved is not None and point.step > 50]
    if len(known) < 100:
        return None
    rises = [later[0] for earlier, later in pairwise(known) if (later[1] or 0) > (earlier[1] or 0)]
    first, last = known[0][1] or 0, known[-1][1] or 0
    if len(rises) < 4 or last < 1.05 * first or rises[-1] < known[len(known) // 2][0]:
        return None
    message = (
        f"The memory that training holds on the GPU grew from {first / _GIB:.1f} to {last / _GIB:.1f} GiB between the "
        f"steps {known[0][0]:,} and {known[-1][0]:,}, in {len(rises)} rises."
    )
    change = "Longer rows may still come; if it nears the card's size, lower training.micro_batch or data.max_length."
    return Finding("memory", message, change)


def _process_creeping(window: Window) -> Finding | None:
    sizes = [sample.event.process for sample in window.samples if sample.step > 20]
    if len(sizes) < 24:
        return None
    rises = sum(later > earlier for earlier, later in pairwise(sizes))
    first, last = statistics.median(sizes[:6]), statistics.median(sizes[-6:])
    if last - first < max(_GIB // 2, 0.2 * first) or rises < 0.6 * (len(sizes) - 1):
        return None
    message = f"The training process grew from {first / _GIB:.1f} to {last / _GIB:.1f} GiB of main memory and grows on."
    change = "Write a checkpoint, stop and resume: that gives the memory back. Please report it, for it is a fault."
    return Finding("memory", message, change)


def memory_tight(window: Window) -> Finding | None:
    """A GPU that has next to nothing left."""
    if not window.samples:
        return None
    free, total = window.samples[-1].event.device_free, window.samples[-1].event.device_total
    if not free or not total or free > 0.02 * total:
        return None
    message = f"Only {free / (1 << 20):,.0f} MiB of the GPU's {total / _GIB:.1f} GiB are free."
    return Finding("memory_tight", message, "Start nothing else on this GPU; lower training.micro_batch to have room.")


CHECKS = (starving, throttling, slower, memory_creeping, memory_tight)
