"""What the arithmetic needs to know of a model: sizes of its decoder, nothing about where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from qlora_tui.memory.build import LLAMA, Build, Names

Knowledge = Literal["modelled", "rough"]
Reads = Literal["attention input", "attention output", "mlp input", "mlp product"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One kind of linear layer inside the decoder.

    Attributes:
        name: Its last name, by which adapters target it.
        reads: Which tensor it takes in. Matrices that read the same tensor share its saved copy.
        count: How often it occurs in the model.
        quantised: Whether loading in 4 bit reaches it.
    """

    name: str
    reads: Reads
    inputs: int
    outputs: int
    count: int
    quantised: bool = True

    @property
    def elements(self) -> int:
        """Number of weights of one of them."""
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class StackedAdapter:
    """A kind of bare parameter, such as all experts of a layer in one tensor, that gets an adapter all the same.

    Attributes:
        names: The names by which adapters target it, all of which have to be asked for.
        multiple: Its adapter has the rank times this: the number of experts, for each of the names.
        count: How often it occurs in the model.
    """

    names: frozenset[str]
    inputs: int
    outputs: int
    multiple: int
    count: int


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of a decoder-only model with a gated MLP.

    Attributes:
        intermediate: Width of the gated MLP.
        norm_elements: All norm weights of the model.
        bias_elements: All biases of the model.
        query_key_norm: Queries and keys are normalised head by head (Qwen3).
        build: How a layer is put together, None where that is not known.
        names: What the matrices of a layer are called.
        rotated: Share of each head that is turned by its position.
        window: Sliding attention window in tokens, None without one.
        windowed: Layers that have it, counted from 0; None for all.
        unturned: Layers without rotary positions.
        unquantised_elements: Weights of the decoder outside ``nn.Linear`` (fused experts), which stay in 16 bits.
        knowledge: ``rough`` where a layer saves other tensors than a Llama's does; the band is then wider.
    """

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    matrices: tuple[Matrix, ...]
    norm_elements: int
    bias_elements: int = 0
    tied: bool = False
    query_key_norm: bool = False
    build: Build | None = None
    names: Names = Names()  # noqa: RUF009
    rotated: float = 1.0
    window: int | None = None
    windowed: tuple[int, ...] | None = None
    unturned: tuple[int, ...] = ()
    unquantised_elements: int = 0
    stacks: tuple[StackedAdapter, ...] = ()
    knowledge: Knowledge = "modelled"
    _hash: int = field(init=False, repr=False, compare=False, default=0)
    """Computed once: what depends on the model alone is looked up many times in a search."""

    def __post_init__(self) -> None:
        values = tuple(getattr(self, each.name) for each in fields(self) if each.compare)
        object.__setattr__(self, "_hash", hash(values))

    def __hash__(self) -> int:
        return self._hash

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all key heads together; the values have the same."""
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """All parameters; tied embeddings count once."""
        matrices = sum(matrix.count * matrix.elements for matrix in self.matrices)
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return matrices + tables + self.norm_elements + self.bias_elements + self.unquantised_elements


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
    """Dimensions of a model shaped like Llama, Mistral or Qwen: seven matrices and two norms a layer.

    Args:
        head_dim: The hidden size divided among the heads, if None.
        attention_bias: q, k and v have a bias (Qwen2).
    """
    head_dim = head_dim or hidden // heads
    query, key = heads * head_dim, kv_heads * head_dim
    matrices = (
        Matrix("q_proj", "attention input", hidden, query, layers),
        Matrix("k_proj", "attention input", hidden, key, layers),
        Matrix("v_proj", "attention input", hidden, key, layers),
        Matrix("o_proj", "attention output", query, hidden, layers),
        Matrix("gate_proj", "mlp input", hidden, intermediate, layers),
        Matrix("up_proj", "mlp input", hidden, intermediate, layers),
        Matrix("down_proj", "mlp product", intermediate, hidden, layers),
    )
    return Dimensions(
        hidden=hidden,
        layers=layers,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        matrices=matrices,
        norm_elements=(2 * layers + 1) * hidden + (2 * layers * head_dim if query_key_norm else 0),
        bias_elements=layers * (query + 2 * key) if attention_bias else 0,
        tied=tied,
        query_key_norm=query_key_norm,
        build=replace(LLAMA, query_key_norm="head") if query_key_norm else LLAMA,
        window=window,
    )
