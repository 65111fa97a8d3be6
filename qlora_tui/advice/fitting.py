"""Making a recipe fit: the settings that cost nothing but time first, then shorter rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qlora_tui.config import RunConfig
from qlora_tui.memory.fit import Fit
from qlora_tui.memory.remedies import opened

_SHORTEST: Final = 128
"""Rows cut below this many tokens teach too little to call it a fit."""


def fastest_that_fits(config: RunConfig, fit_of: Callable[[RunConfig], Fit]) -> tuple[RunConfig, str]:
    """The recipe with the fastest settings that fit, and what was done, as a sentence.

    Settings that do not change what is learnt become ``auto``, which the plan settles. If that is not enough, rows are
    cut shorter. The recipe comes back as it was if nothing helps.
    """
    free = opened(config)
    fit = fit_of(free)
    if fit.fits in ("yes", "unknown"):
        recipe = fit.recipe
        how = f"{recipe.micro_batch} rows at once, checkpointing {recipe.checkpointing}, {recipe.attention} attention"
        return free, f"The fastest that fits: {how}."
    length = fit.largest.max_length or 0
    if _SHORTEST <= length < config.data.max_length:
        shorter = free.changed(data={"max_length": length})
        if fit_of(shorter).fits == "yes":
            return shorter, f"It fits with rows cut at {length:,} tokens; longer ones lose their end."
    return config, "Nothing makes this fit here: take a smaller model, or plan for a larger card."
