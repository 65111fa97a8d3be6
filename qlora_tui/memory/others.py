"""Peaks outside the training step: evaluation, generation, loading. All in bytes, as torch counts them."""

from __future__ import annotations

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.layer import dequantised
from qlora_tui.memory.masks import masked, score_elements
from qlora_tui.memory.recipe import Recipe
from qlora_tui.memory.static import StaticMemory, quantised_bytes


def evaluation_peak(dimensions: Dimensions, recipe: Recipe, resident: int) -> int:
    """A forward pass without gradients on a batch of the training micro-batch's size.

    Nothing is saved, so one layer's transients stand beside the residual stream; the loss follows the training path
    and keeps its forward half. With a path that builds full logits, those decide. The widths are those of 31 runs on an
    H100 (llama, mistral, qwen, phi), which they meet to 0.1 %; with few tokens, one dequantised matrix decides.

    Args:
        resident: Weights, adapter, optimizer states and workspace, bytes.
    """
    tokens, hidden, middle, size = recipe.tokens, dimensions.hidden, dimensions.intermediate, recipe.regime.residual
    # Where gate and up are one matrix, their joint output lives on beside its halves.
    fused = any(matrix.name == "gate_up_proj" for matrix in dimensions.matrices)
    layer = max(
        tokens * ((6 if fused else 4) * middle + 4 * hidden) * size,
        tokens * 3 * (middle + hidden) * size + dequantised(dimensions, recipe, "measured"),
    )
    if masked(dimensions, recipe):
        layer += 3 * score_elements(recipe)
    if recipe.attention == "eager":
        layer = max(layer, 3 * dimensions.heads * score_elements(recipe) * size)
    if recipe.loss == "fused":
        loss = 2 * min(tokens, 4096) * 32_768 + tokens * hidden * (4 + 2 * size)
    else:
        loss = (2 + 4 + 4) * tokens * dimensions.vocab + tokens * hidden * size
    return resident + max(layer, loss)


def generation_peak(dimensions: Dimensions, recipe: Recipe, resident: int) -> int:
    """A sample as long as the recipe's sequence: the KV cache, the copy that growing one layer's needs, one layer.

    ``DynamicLayer`` grows a layer's cache by ``torch.cat`` for every token, so the old one is alive beside the new.
    Only the last position is projected on the vocabulary: its scores in fp32, filtered and sampled from.
    """
    cached = 4 * dimensions.key_width * recipe.sequence
    prompt = recipe.sequence * (4 * dimensions.intermediate + 3 * dimensions.hidden) * recipe.regime.residual
    logits = 3 * 4 * dimensions.vocab
    matrix = dequantised(dimensions, recipe, "measured")
    return resident + (dimensions.layers + 1) * cached + prompt + logits + matrix


def loading_peak(dimensions: Dimensions, recipe: Recipe, static: StaticMemory) -> int:
    """All weights, and the largest matrix in the dtype of loading beside its 4-bit copy.

    transformers ``core_model_loading.py`` quantises one tensor at a time; a model whose experts are fused reads them
    one by one and joins them, which takes a second copy of the joined tensor.
    """
    largest = max((matrix.elements for matrix in dimensions.matrices), default=0)
    transient = 0
    if recipe.quantization != "none":
        transient = largest * recipe.regime.quantised_from + quantised_bytes(largest, recipe.double_quant)
    if dimensions.unquantised_elements:
        transient = max(transient, 4 * dimensions.unquantised_elements // dimensions.layers)
    return static.weights + static.embeddings_and_head + static.norms + transient
