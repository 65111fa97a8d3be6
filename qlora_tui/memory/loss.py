"""Bytes of the loss, beside everything the layers hold at that moment."""

from __future__ import annotations

from typing import Final

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.layer import Formula
from qlora_tui.memory.recipe import Recipe

_TILE_TOKENS: Final = 4096
_TILE_VOCAB: Final = 32_768
"""trl ``kernels/chunked_logprob.py`` projects this many tokens on this much of the vocabulary at a time."""


def loss_memory(dimensions: Dimensions, recipe: Recipe, formula: Formula) -> int:
    """The loss's own tensors in bytes at its peak; see :class:`~qlora_tui.memory.recipe.Recipe` for the paths.

    ``fused`` has no term in vocabulary times tokens: a tile of logits, the final norm's fp32 copy, the selected hidden
    states, and their gradient in fp32 and in the dtype of the residual stream. Layer kernels keep the norm's 2-byte
    input instead of the copy.
    """
    tokens, hidden, vocab = recipe.tokens, dimensions.hidden, dimensions.vocab
    if recipe.loss == "fused":
        tile = 2 * min(tokens, _TILE_TOKENS) * _TILE_VOCAB
        fp32_rows = 2 * _TILE_VOCAB * hidden if recipe.regime.embedding == 4 else 0
        if formula == "traced":
            return tile + tokens * hidden * (12 + recipe.regime.residual) + fp32_rows
        if recipe.layer_kernels == "liger":
            return tile + 10 * tokens * hidden + fp32_rows
        # The backward pass of the final norm follows when the tile is gone, in fp32 throughout: 24 bytes an element,
        # read off the H100 rows without and with half of the checkpoints. The embeddings' output is alive besides,
        # unless it is a checkpoint.
        own = 12 if recipe.regime.residual == 2 else 12 + recipe.regime.residual
        embeddings = 2 if recipe.checkpointing == "none" and recipe.regime.residual == 2 else 0
        norm = 24 if recipe.regime.residual == 2 else 0
        return max(tile + tokens * hidden * own + fp32_rows, tokens * hidden * norm) + tokens * hidden * embeddings
    # Kept is what the head gave out; three fp32 copies follow: of the logits, of their logarithms, the gradient.
    copies = {"full": 12, "full_kept": 12 + recipe.regime.embedding, "full_shifted": 14}[recipe.loss]
    cast = 2 * vocab * hidden if recipe.loss == "full" and recipe.regime.embedding == 4 else 0
    return copies * vocab * tokens + 6 * hidden * tokens + cast


def kept_logits(dimensions: Dimensions, recipe: Recipe) -> int:
    """Of the loss's tensors, what is there until the backward pass is over: the logits, if the loop keeps them."""
    return recipe.regime.embedding * dimensions.vocab * recipe.tokens if recipe.loss == "full_kept" else 0
