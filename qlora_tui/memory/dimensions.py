"""What the arithmetic needs to know of a model: sizes of its decoder, nothing about where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Knowledge = Literal["modelled", "rough"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One linear layer of a decoder layer: its name, as adapters target it, and its width on both sides."""

    name: str
    inputs: int
    outputs: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of a decoder-only model with a gated MLP.

    Attributes:
        intermediate: Width of the gated MLP.
        matrices: Linear layers of one decoder layer, in the order q, k, v, o, gate, up, down for a Llama.
        query_key_norm: Queries and keys are normalised per head (Qwen3).
        attention_bias: q, k and v have a bias (Qwen2).
        window: Sliding attention window in tokens where every layer uses one, else None.
        unquantised_elements: Weights in the decoder that stay in 16 bits although they are matrices (fused experts).
        knowledge: ``rough`` where the layer's saved tensors are not those of a Llama; the band is widened.
    """

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    matrices: tuple[Matrix, ...]
    tied: bool = False
    query_key_norm: bool = False
    attention_bias: bool = False
    window: int | None = None
    unquantised_elements: int = 0
    knowledge: Knowledge = "modelled"

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all key heads together; the values have the same."""
        return self.kv_heads * self.head_dim

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest matrix of a layer."""
        return max(matrix.elements for matrix in self.matrices)


def gated_decoder(
    *,
    hidden: int,
    layers: int,
    intermediate: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    head_dim: int | None = None,
    tied: bool = False,
    query_key_norm: bool = False,
    attention_bias: bool = False,
    window: int | None = None,
) -> Dimensions:
    """Dimensions of a model shaped like Llama, Mistral or Qwen: seven matrices a layer."""
    head_dim = head_dim or hidden // heads
    query, key = heads * head_dim, kv_heads * head_dim
    matrices = (
        Matrix("q_proj", hidden, query),
        Matrix("k_proj", hidden, key),
        Matrix("v_proj", hidden, key),
        Matrix("o_proj", query, hidden),
        Matrix("gate_proj", hidden, intermediate),
        Matrix("up_proj", hidden, intermediate),
        Matrix("down_proj", intermediate, hidden),
    )
    return Dimensions(
        hidden, layers, intermediate, heads, kv_heads, head_dim, vocab, matrices, tied, query_key_norm,
        attention_bias, window,
    )  # fmt: skip
