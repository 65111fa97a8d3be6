"""Dimensions of the arithmetic from a counted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qlora_tui.memory.dimensions import Dimensions, Knowledge, Matrix, Reads, StackedAdapter
from qlora_tui.memory.families import build_of, names_of
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
        build=build_of(shape),
        names=names_of(shape),
        rotated=shape.rotary_fraction,
        window=shape.sliding_window.size if shape.sliding_window else None,
        windowed=_windowed(shape),
        unturned=shape.unrotated_layers,
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


def _windowed(shape: ModelShape) -> tuple[int, ...] | None:
    """The layers with a window, None for all."""
    window = shape.sliding_window
    return None if window is None or len(window.layers) == shape.num_hidden_layers else window.layers


def _knowledge(shape: ModelShape) -> Knowledge:
    """Whether its layers are known op by op."""
    return "rough" if build_of(shape) is None else "modelled"
