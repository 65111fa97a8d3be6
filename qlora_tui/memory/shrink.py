"""What would fit where a recipe does not: the same training in less memory, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.recipe import GIB, DeviceFacts, Recipe

_STEP: Final = 64
"""Sequence lengths are tried in steps of so many tokens."""


@dataclass(frozen=True, slots=True)
class Smaller:
    """A recipe that fits, with what it needs in bytes, and the settings that lead to it."""

    recipe: Recipe
    needs: int
    change: str


def need(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> int:
    """Bytes of the whole process at the high end of the band, in whichever phase needs most."""
    return estimate(dimensions, recipe, device).needed.high


def smaller_recipes(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> list[Smaller]:
    """Ways to fit at a micro-batch of one, the least intrusive first; empty if none of them fits.

    Args:
        device: ``free`` is what the process may have in all.
    """
    one = replace(recipe, micro_batch=1, accumulation=max(2, recipe.micro_batch * recipe.accumulation))
    saving = replace(one, checkpointing="full")
    found: list[Smaller] = []
    if one.checkpointing != "full" and _fits(dimensions, saving, device):
        found.append(Smaller(saving, need(dimensions, saving, device), "training.gradient_checkpointing: full"))
    for candidate, change in ((one, ""), (saving, " with training.gradient_checkpointing: full")):
        if change and one.checkpointing == "full":
            break
        longest = longest_sequence(dimensions, candidate, device)
        if 0 < longest < recipe.sequence:
            shorter = replace(candidate, sequence=longest)
            found.append(Smaller(shorter, need(dimensions, shorter, device), f"data.max_length: {longest}{change}"))
    return found


def longest_sequence(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> int:
    """Most tokens of a row that fit, in steps of 64 and no more than the recipe's; 0 if none do."""
    low, high = 0, recipe.sequence // _STEP
    while low < high:
        middle = (low + high + 1) // 2
        fits = _fits(dimensions, replace(recipe, sequence=middle * _STEP), device)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * _STEP


def _fits(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> bool:
    return device.free is None or need(dimensions, recipe, device) <= device.free


def advice(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> str:
    """What to change so that it fits, as sentences with the numbers."""
    one = replace(recipe, micro_batch=1)
    needs = f"One row of {one.sequence:,} tokens needs about {need(dimensions, one, device) / GIB:.1f} GiB"
    if device.free is None:
        return f"{needs}; lower data.max_length or use a smaller model."
    here = f"{needs}, and {device.free / GIB:.1f} GiB can be had here."
    ways = smaller_recipes(dimensions, recipe, device)
    if not ways:
        least = need(dimensions, replace(one, checkpointing="full", sequence=_STEP), device)
        return f"{here} Even a row of {_STEP} tokens needs {least / GIB:.1f} GiB: use a smaller model or another card."
    options = "; or ".join(f"{way.change} (about {way.needs / GIB:.1f} GiB)" for way in ways)
    return f"{here} This would fit: {options}."
