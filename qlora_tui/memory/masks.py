"""Attention masks: when sdpa gets one, and what it costs. All sizes in bytes."""

from __future__ import annotations

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.recipe import Recipe


def masked(dimensions: Dimensions, recipe: Recipe) -> bool:
    """Whether sdpa gets a mask: padding, packed rows, or a window no longer than the sequence.

    transformers ``masking_utils._ignore_causal_mask_sdpa``.
    """
    window_binds = dimensions.window is not None and recipe.sequence >= dimensions.window
    return recipe.attention == "sdpa" and (recipe.packed or recipe.padded or window_binds)


def score_elements(recipe: Recipe) -> int:
    """Query and key pairs of a micro-batch: packed rows are one long row."""
    rows, length = (1, recipe.tokens) if recipe.packed else (recipe.micro_batch, recipe.sequence)
    return rows * length * length


def mask_memory(dimensions: Dimensions, recipe: Recipe) -> tuple[int, int]:
    """sdpa with a mask: (the boolean mask all layers share, what each layer keeps besides).

    The kernel takes an additive 16-bit copy of the mask, and keys and values repeated for all query heads.
    """
    scores = score_elements(recipe)
    return scores, 2 * scores + repeated_heads(dimensions, recipe)


def repeated_heads(dimensions: Dimensions, recipe: Recipe) -> int:
    """What keys and values take beyond their own heads when they are repeated for all query heads."""
    return 2 * recipe.regime.residual * recipe.tokens * (dimensions.query_width - dimensions.key_width)
