"""Bytes that one decoder layer keeps for its backward pass, and holds at the peak of that pass.

Symbols of the formulas: T tokens of a micro-batch, h hidden size, m width of the MLP, Q and K widths of all query and
of all key heads, r rank. The coefficients are counts of live tensors, two bytes an element in the 16-bit regime:

========================  =========================================================================================
saved by a layer, 16 bit  two norms: fp32 copy 4h and output 2h each; q, k, v and the attention's output 2Q + 4K + 2Q;
                          gate, silu(gate), up and their product 2m each: 8m + 12h + 4Q + 4K
held at its peak          the same less the product, the gradient of the layer's output 2h, and at the product either
                          both parts of its gradient 4m and a dequantised matrix, or three gradients 6m
layer kernels (liger)     RMSNorm saves its input instead of an fp32 copy (the checkpoint itself, for the first); SwiGLU
                          saves gate and up alone and writes their gradients over them; RoPE works in place
========================  =========================================================================================

The fp32 coefficients are those of a fake-tensor trace of transformers 5.23, peft 0.21 and trl 1.16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.masks import mask_memory, masked, repeated_heads, score_elements
from qlora_tui.memory.recipe import Recipe
from qlora_tui.memory.static import BLOCK, adapted, adapter_elements, ceil_divide

Formula = Literal["measured", "traced"]
"""``traced``: the closed form read off the trace alone. ``measured``: with what GPU measurements added to it."""


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """Bytes of one decoder layer.

    Attributes:
        saved: Kept for the backward pass if the layer is not checkpointed.
        peak: Recomputed and held at the worst moment of its backward pass if it is, checkpoint excluded.
        mask: Attention mask shared by all layers.
        small_saved: Of the statistics and adapter activations kept with ``saved``.
        small_peak: Of those held at ``peak``.
    """

    saved: int
    peak: int
    mask: int = 0
    small_saved: int = 0
    small_peak: int = 0


@dataclass(frozen=True, slots=True)
class _Reads:
    """Widths that the adapted matrices take in, by what they read."""

    total: int
    attention_input: bool
    mlp_input: bool
    product: int
    matrices: int


def dequantised(dimensions: Dimensions, recipe: Recipe, formula: Formula) -> int:
    """Largest matrix in the backward pass's dtype, while it is multiplied.

    ``MatMul4Bit.backward`` dequantises on every call: 2 bytes an element, or 4 and a 2-byte copy if the weights were
    quantised from fp32. Its fp32 scales are gone again before the product is allocated, so only the trace's closed
    form, which added both, counts them.
    """
    if recipe.quantization == "none":
        return 0
    largest = _largest(dimensions)
    weights = largest * (2 if recipe.regime.quantised_from == 2 else 6)
    return weights + (4 * ceil_divide(largest, BLOCK) if formula == "traced" else 0)


@lru_cache(maxsize=256)
def _largest(dimensions: Dimensions) -> int:
    return max((matrix.elements for matrix in dimensions.matrices if matrix.quantised), default=0)


def layer_memory(dimensions: Dimensions, recipe: Recipe, formula: Formula) -> LayerMemory:
    """One layer's share of the activations."""
    reads = _reads(dimensions, recipe.targets)
    if recipe.regime.residual == 4:
        saved, peak = _fp32(dimensions, recipe, reads, formula)
    elif recipe.layer_kernels == "liger" and formula == "measured":
        saved, peak = _liger(dimensions, recipe, reads, formula)
    else:
        saved, peak = _plain(dimensions, recipe, reads, formula)
    mask = mask_copies = 0
    if recipe.attention == "eager":
        scores = dimensions.heads * score_elements(recipe)
        peak = max(peak, _at_scores(dimensions, recipe, scores, formula))
        saved += 4 * scores
        if formula == "measured":
            # The softmax in fp32; in 16 bits also what it is cast to. Keys and values are repeated.
            saved += repeated_heads(dimensions, recipe) + (2 * scores if recipe.regime.residual == 2 else 0)
    elif masked(dimensions, recipe) and formula == "measured":
        mask, mask_copies = mask_memory(dimensions, recipe)
    elif recipe.attention == "sdpa" and recipe.repeats_heads and formula == "measured":
        mask_copies = repeated_heads(dimensions, recipe)
    small_saved, small_peak = _small(dimensions, recipe, reads) if formula == "measured" else (0, 0)
    return LayerMemory(saved + mask_copies, peak + mask_copies, mask, small_saved, small_peak)


def _at_scores(dimensions: Dimensions, recipe: Recipe, scores: int, formula: Formula) -> int:
    """Backward pass of eager attention's softmax.

    Four scores in fp32: the softmax, its gradient, their product, which CUDA's kernel makes for itself, and the result,
    which of fp16 has 2 bytes. Then q, k and v for all query heads, the norm's output with its copies, and the gradient
    of the layer's output; every fp32 adapter of a 16-bit base reads its own copy.
    """
    if formula == "traced":
        held = recipe.tokens * (12 * dimensions.hidden + _attention(dimensions))
        return held + (12 if recipe.regime.residual == 2 else 18) * scores
    size, hidden, query = recipe.regime.residual, dimensions.hidden, dimensions.query_width
    own = 12 * hidden if size == 2 and recipe.regime.adapter == 4 else 0
    return recipe.tokens * (8 * hidden + 3 * size * query + own) + (14 if recipe.regime.float16 else 16) * scores


def _attention(dimensions: Dimensions) -> int:
    """q, k, v and the attention's output per token; a norm of q and k keeps fp32 copies of both."""
    widths = dimensions.query_width + dimensions.key_width
    return 4 * widths * (2 if dimensions.query_key_norm else 1)


@lru_cache(maxsize=256)
def _reads(dimensions: Dimensions, targets: frozenset[str] | None) -> _Reads:
    matrices = adapted(dimensions, targets)
    layers = dimensions.layers
    return _Reads(
        total=sum(matrix.inputs * matrix.count for matrix in matrices) // layers,
        attention_input=any(matrix.reads == "attention input" for matrix in matrices),
        mlp_input=any(matrix.reads == "mlp input" for matrix in matrices),
        product=sum(matrix.inputs * matrix.count for matrix in matrices if matrix.reads == "mlp product") // layers,
        matrices=sum(matrix.count for matrix in matrices) // layers,
    )


def _own_copies(dimensions: Dimensions, recipe: Recipe, reads: _Reads, formula: Formula) -> tuple[int, int, int]:
    """What differs per token from adapters that read the norms' outputs and the product directly.

    Returns:
        Additional bytes saved; held while the product's matrix is dequantised; held while the gradients of gate and
        up are formed.
    """
    if formula == "traced":
        return (3 * reads.total if recipe.dropout else 0,) * 3
    hidden, mlp, product = dimensions.hidden, dimensions.intermediate, reads.product
    shared = 2 * hidden * (reads.attention_input + reads.mlp_input) + 2 * product
    saved = shared - 4 * hidden - 2 * mlp
    at_product, at_gate = saved, saved + 2 * (mlp - product)
    if recipe.dropout:
        # Dropout saves a 2-byte result and a 1-byte mask for every adapter, and what it read is no longer kept. At
        # the peaks the product's own are gone; 2h more are read off the H100 row of 2,048 tokens.
        own = 3 * reads.total - shared
        held = own - product + 2 * hidden
        return saved + own, at_product + held, at_gate + held
    if recipe.quantization == "none" and recipe.regime.adapter == 4:
        # Every fp32 adapter reads a 16-bit copy of its own (autocast), made of an fp32 copy (peft's input cast).
        own = 2 * reads.total - shared
        return saved + own, at_product + own, at_gate + own + 4 * product
    return saved, at_product, at_gate


def _plain(dimensions: Dimensions, recipe: Recipe, reads: _Reads, formula: Formula) -> tuple[int, int]:
    tokens, hidden, mlp = recipe.tokens, dimensions.hidden, dimensions.intermediate
    attention = _attention(dimensions)
    saved, at_product, at_gate = _own_copies(dimensions, recipe, reads, formula)
    held = 10 * mlp + 14 * hidden + attention
    matrix = dequantised(dimensions, recipe, formula)
    peak = tokens * held + max(tokens * (2 * mlp + at_gate), tokens * at_product + matrix)
    kept = 8 * mlp + 12 * hidden + attention + saved
    if recipe.dropout and formula == "measured":
        peak = max(peak, tokens * (kept + _recomputed(dimensions)))
    return tokens * kept, peak


def _liger(dimensions: Dimensions, recipe: Recipe, reads: _Reads, formula: Formula) -> tuple[int, int]:
    tokens, hidden, mlp = recipe.tokens, dimensions.hidden, dimensions.intermediate
    attention = _attention(dimensions)
    if dimensions.query_key_norm:
        # The kernel keeps its 2-byte input for q and k instead of an fp32 copy.
        attention -= 2 * (dimensions.query_width + dimensions.key_width)
    saved, at_product, at_gate = _own_copies(dimensions, recipe, reads, formula)
    held = 8 * mlp + 8 * hidden + attention
    matrix = dequantised(dimensions, recipe, formula)
    peak = tokens * held + max(tokens * (2 * mlp + at_gate), tokens * at_product + matrix)
    kept = 6 * mlp + 8 * hidden + attention + saved
    if recipe.dropout:
        # The norms' inputs are the checkpoint and the stream between attention and MLP: neither counts twice.
        peak = max(peak, tokens * (kept + _recomputed(dimensions) - 4 * hidden))
    return tokens * kept, peak


def _recomputed(dimensions: Dimensions) -> int:
    """Bytes per token at the end of a layer's recomputation that its backward pass does not need.

    With dropout the product (2m) is not saved but still there, and so are the second norm's output, the stream
    between attention and MLP, the result of the last matrix and its copy, and the gradient of the layer's output (2h
    each). Two H100 rows agree to 1 MiB.
    """
    return 2 * dimensions.intermediate + 10 * dimensions.hidden


def _fp32(dimensions: Dimensions, recipe: Recipe, reads: _Reads, formula: Formula) -> tuple[int, int]:
    tokens, hidden, mlp = recipe.tokens, dimensions.hidden, dimensions.intermediate
    saved = _own_copies(dimensions, recipe, reads, "traced")[0]
    rest = 18 * hidden + _attention(dimensions) + saved
    matrix = dequantised(dimensions, recipe, formula)
    peak = max(tokens * (24 * mlp + rest), tokens * (16 * mlp + rest) + matrix)
    return tokens * (16 * mlp + 16 * hidden + _attention(dimensions) + saved), peak


def _small(dimensions: Dimensions, recipe: Recipe, reads: _Reads) -> tuple[int, int]:
    """Statistics of the attention (fp32 a head) and of the norms, and the rank-sized activations of the adapters.

    At the peak the adapter of the product has given its own back. Adapters kept in fp32 are cast to 16 bits for each
    use (autocast), and the copies are saved like activations.
    """
    statistics = 4 * dimensions.heads + 8
    if dimensions.query_key_norm:
        statistics += 4 * (dimensions.heads + dimensions.kv_heads)
    ranks = 2 * recipe.rank
    cast = 0
    if recipe.regime.adapter == 4 and recipe.regime.residual == 2:
        cast = 2 * adapter_elements(dimensions, recipe) // dimensions.layers
    saved = recipe.tokens * (statistics + ranks * reads.matrices)
    at_peak = recipe.tokens * (statistics + ranks * (reads.matrices - (1 if reads.product else 0)))
    return saved + cast, at_peak + cast
