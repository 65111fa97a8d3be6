"""Dimensions of the arithmetic from a counted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qlora_tui.memory.dimensions import Dimensions, Knowledge, Matrix, Reads, StackedAdapter
from qlora_tui.models import layers
from qlora_tui.models.architecture import ModelShape

_OUTPUTS: Final = frozenset({"o_proj", "out_proj", "dense", "c_proj"})
"""Names of the matrix behind the attention, within a path that names the attention."""


def dimensions_of(shape: ModelShape) -> Dimensions:
    """What the estimate needs of a model."""
    rest = shape.unquantised
    return Dimensions(
        hidden=shape.hidden_size,
        layers=shape.num_hidden_layers,
        intermediate=shape.intermediate_size,
        heads=shape.num_attention_heads,
        kv_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        vocab=shape.vocab_size,
        matrices=tuple(_matrix(shape, count, matrix) for count, matrix in shape.matrices()),
        norm_elements=rest.norms,
        bias_elements=rest.biases,
        tied=shape.tie_word_embeddings,
        query_key_norm=shape.qk_norm != "none",
        window=_window(shape),
        unquantised_elements=rest.experts + rest.routers + rest.others,
        stacks=tuple(_stacks(shape)),
        knowledge=_knowledge(shape),
    )


def _stacks(shape: ModelShape) -> Iterator[StackedAdapter]:
    for group in shape.groups:
        for stack in group.stacks:
            multiple = stack.count * len(stack.targets)
            yield StackedAdapter(frozenset(stack.targets), stack.in_features, stack.out_features, multiple, group.count)


def _matrix(shape: ModelShape, count: int, matrix: layers.Matrix) -> Matrix:
    name = matrix.name.rpartition(".")[2]
    return Matrix(
        name, _reads(shape, matrix, name), matrix.in_features, matrix.out_features, count, quantised=matrix.quantised
    )


def _reads(shape: ModelShape, matrix: layers.Matrix, name: str) -> Reads:
    if "attn" in matrix.name or "attention" in matrix.name:
        return "attention output" if name in _OUTPUTS else "attention input"
    reads_stream = matrix.in_features == shape.hidden_size and matrix.out_features != shape.hidden_size
    return "mlp input" if reads_stream else "mlp product"


def _window(shape: ModelShape) -> int | None:
    """The window, where every layer has it."""
    window = shape.sliding_window
    return window.size if window and len(window.layers) == shape.num_hidden_layers else None


def _knowledge(shape: ModelShape) -> Knowledge:
    """Whether a layer saves what a Llama's does."""
    plain = shape.exact and shape.gated and shape.norm == "rms" and shape.norms_per_layer == 2
    plain = plain and shape.qk_norm in ("none", "head") and not shape.parallel_residual and not shape.fused_qkv
    softcapped = shape.attention_softcap is not None or shape.logit_softcap is not None
    return "modelled" if plain and not softcapped and shape.experts is None else "rough"
