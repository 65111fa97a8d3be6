"""From allocated bytes to the process, and to a verdict against free memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from qlora_tui.memory.dimensions import Dimensions, Knowledge
from qlora_tui.memory.layer import dequantised, layer_memory
from qlora_tui.memory.loss import loss_memory
from qlora_tui.memory.masks import score_elements
from qlora_tui.memory.recipe import MIB, DeviceFacts, Recipe

Verdict = Literal["yes", "tight", "no", "unknown"]

_GROWING: Final = (1.016, 1.03, 1.05)
"""Least, likely, most over allocated bytes, with segments that grow. Measured on an H100 with the allocator capped at a
multiple of the peak: 1.03 runs at full speed, 1.015 fails. So the least that may do lies above 1.015."""
_FIXED: Final = (1.02, 1.085, 1.18)
"""The same with segments of fixed size, which cannot be given back while any block of them is in use. The 15 complete
T4 runs, replayed through the allocator's rules under a limit (``benchmarks/segments.py``), need 1.03 to 1.21, half of
them 1.08 or less."""
_IN_RAM: Final = (1.0, 2.2, 3.2)
"""The same without a GPU, where the C library keeps and splits blocks of all sizes: eight runs of the demo held 1.9 to
3.0 times what is allocated, three shorter ones 1.4 to 2.0 times."""
_ROUGH: Final = 0.15
"""Uncertainty of allocated bytes where a layer's saved tensors were never traced or measured."""
_SHOWN_GROWING: Final = 0.04
_SHOWN_FIXED: Final = 0.07
"""Uncertainty of what the driver shows, with segments that grow and with those that do not."""
_REUSED: Final = 0.7
"""Share of the loss's blocks that a layer's tensors can be cut from at most: a fit to T4 rows (``measured_t4.csv``)."""
_SEGMENT: Final = 20 * MIB
"""What torch's allocator asks the driver for when it needs 1 to 10 MiB."""


@dataclass(frozen=True, slots=True)
class Band:
    """Bytes of the whole process: at least, probably, at most."""

    low: int
    point: int
    high: int


def process_band(allocated: int, device: DeviceFacts, *, managed: int, knowledge: Knowledge = "modelled") -> Band:
    """What the process needs: allocated bytes with the allocator's slack, the context, the managed memory.

    Args:
        allocated: Peak of ``torch.cuda.max_memory_allocated()``, bytes.
        managed: Optimizer states that the driver pages, bytes; they count while they are on the device.
    """
    doubt = _ROUGH if knowledge == "rough" else 0.0
    low, point, high = _IN_RAM if device.in_ram else _GROWING if device.expandable_segments else _FIXED
    fixed = device.context + managed
    return Band(
        low=round(allocated * (1 - doubt) * low) + fixed,
        point=round(allocated * point) + fixed,
        high=round(allocated * (1 + doubt) * high) + fixed,
    )


def verdict(band: Band, free: int | None) -> Verdict:
    """Whether it fits: yes if all of the band does, no if none of it does."""
    if free is None:
        return "unknown"
    if band.high <= free:
        return "yes"
    return "tight" if band.low <= free else "no"


def shown_process(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts, allocated: int) -> Band:
    """What the driver shows for the process while nothing else wants the memory, in bytes, managed memory apart.

    torch keeps freed blocks. A run does not need this much (:func:`process_band`): with less free memory, torch gives
    blocks back.
    """
    if device.expandable_segments or recipe.loss == "fused":
        kept = _kept_of_widths(dimensions, recipe, device)
    else:
        kept = _kept_of_humps(dimensions, recipe, device)
    doubt = _SHOWN_GROWING if device.expandable_segments else _SHOWN_FIXED
    doubt += _ROUGH if dimensions.knowledge == "rough" else 0.0
    point = allocated + kept + device.context
    if device.free is not None:
        point = min(point, max(device.free, allocated + device.context))
    return Band(round(point * (1 - doubt)), point, round(point * (1 + doubt)))


def _kept_of_widths(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> int:
    """About one dequantised matrix, and with each token some widths of the MLP.

    Blocks of one size are split and seldom joined. The factors are a fit to the H100 rows, not a derivation.
    """
    widths = 1.5 if recipe.layer_kernels == "liger" else 3.5
    # Segments that cannot grow leave about twice as much, lengths that change from batch to batch half as much again.
    if not device.expandable_segments:
        widths *= 2
    elif recipe.padded:
        widths *= 1.5
    return dequantised(dimensions, recipe, "measured") + round(widths * dimensions.intermediate * recipe.tokens)


def _kept_of_humps(dimensions: Dimensions, recipe: Recipe, device: DeviceFacts) -> int:
    """With full logits and segments of fixed size: what the loss cannot use of what else was once allocated.

    A step asks for two kinds of blocks: a layer's, and the logits with their gradients, ten times larger. The layers'
    come first, in segments of their own, too small for logits. Eager attention has two scores alive besides. Where
    16-bit tables were cast to fp32 after loading, their two blocks stay (a tied head is made before it is tied), and
    serve the logits as often as one fits into each; what is left then serves the layers.
    """
    scores = 8 * dimensions.heads * score_elements(recipe) if recipe.attention == "eager" else 0
    layer = layer_memory(dimensions, replace(recipe, attention="sdpa"), "measured").peak + scores
    apart = min(layer, round(_REUSED * loss_memory(dimensions, recipe, "measured")))
    cast = recipe.regime.embedding > recipe.regime.quantised_from
    logits = 4 * dimensions.vocab * recipe.tokens
    left = 2 * (2 * dimensions.vocab * dimensions.hidden % logits) if cast else 0
    return max(apart, left) + max(0, 2 * _SEGMENT - device.workspace)
