"""From allocated bytes to the process, and to a verdict against free memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from qlora_tui.memory.dimensions import Dimensions, Knowledge
from qlora_tui.memory.layer import dequantised
from qlora_tui.memory.recipe import DeviceFacts, Recipe

Verdict = Literal["yes", "tight", "no", "unknown"]

_LOW: Final = 1.016
_POINT: Final = 1.03
_HIGH: Final = 1.05
"""Measured on an H100 with the allocator capped at a multiple of the peak: 1.03 runs at full speed, 1.015 fails. So
the least that may do lies above 1.015."""
_ROUGH: Final = 0.15
"""Uncertainty of allocated bytes where a layer's saved tensors were never traced or measured."""


@dataclass(frozen=True, slots=True)
class Band:
    """Bytes of the whole process: at least, probably, at most."""

    low: int
    point: int
    high: int


def process_band(allocated: int, *, context: int, managed: int, knowledge: Knowledge = "modelled") -> Band:
    """What the process needs: allocated bytes with the allocator's slack, the context, the managed memory.

    Args:
        allocated: Peak of ``torch.cuda.max_memory_allocated()``, bytes.
        context: CUDA context and libraries, bytes.
        managed: Optimizer states that the driver pages, bytes; they count while they are on the device.
    """
    doubt = _ROUGH if knowledge == "rough" else 0.0
    fixed = context + managed
    return Band(
        low=round(allocated * (1 - doubt) * _LOW) + fixed,
        point=round(allocated * _POINT) + fixed,
        high=round(allocated * (1 + doubt) * _HIGH) + fixed,
    )


def verdict(band: Band, free: int | None) -> Verdict:
    """Whether it fits: yes if all of the band does, no if none of it does."""
    if free is None:
        return "unknown"
    if band.high <= free:
        return "yes"
    return "tight" if band.low <= free else "no"


def shown_process(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts, allocated: int) -> int:
    """What the driver shows for the process while nothing else wants the memory, in bytes, managed memory apart.

    torch keeps freed blocks: about one dequantised matrix, and with each token some widths of the MLP, for blocks of
    one size are split and seldom joined. The factors are a fit to the H100 rows, not a derivation. A run does not need
    this much (:func:`process_band`): with less free memory, torch gives blocks back.
    """
    widths = 1.5 if recipe.layer_kernels == "liger" else 3.5
    # Lengths that change from batch to batch, or segments that cannot grow, leave about twice as much.
    if recipe.padded or not device.expandable_segments:
        widths *= 2
    kept = dequantised(dimensions, recipe, "measured") + round(widths * dimensions.intermediate * recipe.tokens)
    shown = allocated + kept + device.context
    return shown if device.free is None else min(shown, max(device.free, allocated + device.context))
