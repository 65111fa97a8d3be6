"""Attention masks: when sdpa gets one, and what it costs. All sizes in bytes."""

from __future__ import annotations

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.recipe import Recipe


def masked(dimensions: Dimensions, recipe: Recipe) -> bool:
    """Whether sdpa gets a mask in every layer."""
    everywhere, windowed = masked_layers(dimensions, recipe)
    return everywhere or (windowed and dimensions.windowed is None)


def masked_layers(dimensions: Dimensions, recipe: Recipe) -> tuple[bool, bool]:
    """Whether sdpa gets a mask in layers that look back over everything, and in those with a window.

    It does with padding, packed rows, or a window no longer than the sequence: transformers
    ``masking_utils._ignore_causal_mask_sdpa``.
    """
    if recipe.attention != "sdpa":
        return False, False
    everywhere = recipe.packed or recipe.padded or (dimensions.build is not None and dimensions.build.always_masked)
    length = recipe.tokens if recipe.packed else recipe.sequence
    return everywhere, everywhere or (dimensions.window is not None and length >= dimensions.window)


def score_elements(recipe: Recipe) -> int:
    """Query and key pairs of a micro-batch: packed rows are one long row."""
    rows, length = (1, recipe.tokens) if recipe.packed else (recipe.micro_batch, recipe.sequence)
    return rows * length * length


def shared_masks(dimensions: Dimensions, recipe: Recipe, masked: tuple[bool, bool]) -> tuple[int, int]:
    """Bytes for each pair of the mask that layers without a window share, and of the one for those with one."""
    kinds = (dimensions.window is None or dimensions.windowed is not None, dimensions.window is not None)
    if recipe.attention == "eager":
        return 2 * kinds[0], 2 * kinds[1]
    return int(kinds[0] and masked[0]), int(kinds[1] and masked[1])


def mask_memory(dimensions: Dimensions, recipe: Recipe) -> tuple[int, int]:
    """sdpa with a mask: (the boolean mask all layers share, what each layer keeps besides).

    The kernel takes an additive 16-bit copy of the mask, and keys and values repeated for all query heads.
    """
    scores = score_elements(recipe)
    return scores, 2 * scores + repeated_heads(dimensions, recipe)


def repeated_heads(dimensions: Dimensions, recipe: Recipe) -> int:
    """What keys and values take beyond their own heads when they are repeated for all query heads."""
    return 2 * recipe.regime.residual * recipe.tokens * (dimensions.query_width - dimensions.key_width)
