"""A fit in sentences."""

from __future__ import annotations

from qlora_tui.memory.fit import Fit, Speed
from qlora_tui.memory.recipe import GIB, MIB

SETTINGS_OPEN = ("micro_batch", "gradient_checkpointing", "attention", "layer_kernels", "optimizer")
"""Settings that change memory and speed but nothing that is learnt, and that can all be left to be chosen."""


def size(count: int) -> str:
    """Bytes for people."""
    if count >= GIB // 10:
        return f"{count / GIB:.2f} GiB"
    return f"{count / MIB:.1f} MiB" if count >= MIB // 10 else f"{count / 1024:.1f} KiB"


def verdict_in_words(fit: Fit) -> str:
    """Whether it fits, with the numbers."""
    needs, free = f"{size(fit.process.low)} to {size(fit.process.high)}", fit.device.free
    if free is None:
        return f"The run needs {needs}; free memory is not known, so there is no verdict."
    match fit.fits:
        case "yes":
            return f"It fits: the run needs {needs}, and {size(free)} are free."
        case "tight":
            return f"It is tight: the run needs {needs}, and {size(free)} are free. It may run out of memory."
        case _:
            return f"It does not fit: the run needs {needs}, and {size(free)} are free; {size(fit.short)} are missing."


def largest_in_words(fit: Fit) -> str | None:
    """How far the recipe could go; None where free memory is not known or nothing fits at all."""
    rows, length = fit.largest.micro_batch, fit.largest.max_length
    if not rows and not length:
        return None
    together = "one row" if rows == 1 else f"{rows:,} rows" if rows else "no row"
    at_once = 1 if any(choice.field == "training.micro_batch" for choice in fit.choices) else fit.recipe.micro_batch
    shape = "one at a time" if at_once == 1 else f"{at_once} at once"
    return (
        f"Up to {together} of {fit.recipe.sequence:,} tokens fit at once, and rows of up to {length:,} tokens, {shape}."
    )


def speed_in_words(speed: Speed) -> str:
    """Tokens per second, and hours if they are known."""
    found = speed.tokens_per_second
    text = f"About {_rounded(found.point)} tokens/s ({_rounded(found.low)} to {_rounded(found.high)})"
    if speed.hours is None:
        return f"{text}."
    low, point, high = speed.hours
    return f"{text}: {duration(point)} of training ({duration(low)} to {duration(high)})."


def duration(hours: float) -> str:
    """A time for people."""
    if hours < 1 / 60:
        return f"{max(1, round(hours * 3600))} s"
    return f"{hours * 60:.0f} min" if hours < 1.5 else f"{hours:.1f} h"


def _rounded(speed: float) -> str:
    """Two digits that mean something."""
    step = 10 ** max(0, len(str(int(speed))) - 2)
    return f"{round(speed / step) * step:,}"
