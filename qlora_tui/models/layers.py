"""The parts a decoder-only model is counted in. Counts are numbers of elements, never bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QkNorm = Literal["none", "head", "per-head", "projection"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One linear layer (``nn.Linear``) of a decoder layer."""

    name: str
    """Its path inside the layer, such as ``self_attn.q_proj``."""
    in_features: int
    out_features: int
    bias: bool = False
    quantised: bool = True
    """Whether loading in 4 bit reaches it: bitsandbytes replaces plain ``nn.Linear`` only, not its subclasses."""
    adapted: bool = True
    """Whether peft puts an adapter on it when asked to."""

    @property
    def weight(self) -> int:
        """Elements of the weight, without the bias."""
        return self.in_features * self.out_features

    def matches(self, target: str) -> bool:
        """Whether peft would take it for ``target``: the whole path or its last parts."""
        return self.name == target or self.name.endswith("." + target)


@dataclass(frozen=True, slots=True)
class Stack:
    """A bare parameter that peft adapts all the same: the experts of a layer in one tensor, or their router.

    An adapter on it has the rank times ``count`` times the number of ``targets``.
    """

    name: str
    targets: tuple[str, ...]
    """The names of the linear layers it took the place of, all of which have to be asked for."""
    in_features: int
    out_features: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Decoder layers that hold the same parameters."""

    layers: tuple[int, ...]
    """Their positions, counted from 0."""
    matrices: tuple[Matrix, ...]
    norms: int
    """Elements of the norms of one layer: weights, their biases, and the norms of queries and keys."""
    experts: int = 0
    """Elements of the stacked experts of one layer: bare parameters, which stay in 16 bit."""
    router: int = 0
    """Elements of a router that is a bare parameter; one that is a linear layer is among the matrices."""
    others: int = 0
    """Elements of anything else, such as attention sinks."""
    stacks: tuple[Stack, ...] = ()
    """What of experts and router gets adapters."""

    @property
    def count(self) -> int:
        """How many layers these are."""
        return len(self.layers)

    @property
    def biases(self) -> int:
        """Elements of the biases of one layer's matrices."""
        return sum(matrix.out_features for matrix in self.matrices if matrix.bias)

    @property
    def parameters(self) -> int:
        """Elements of one layer."""
        weights = sum(matrix.weight for matrix in self.matrices)
        return weights + self.biases + self.norms + self.experts + self.router + self.others


@dataclass(frozen=True, slots=True)
class Unquantised:
    """Elements of the whole model that keep the dtype of loading, by kind."""

    embeddings: int
    head: int
    """The output layer; 0 when it is the embedding itself. Its bias, if any, is among the biases."""
    norms: int
    biases: int
    matrices: int
    """Linear layers that bitsandbytes does not replace."""
    experts: int
    routers: int
    others: int

    @property
    def total(self) -> int:
        """All of them."""
        named = self.embeddings + self.head + self.norms + self.biases
        return named + self.matrices + self.experts + self.routers + self.others


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: how many there are and how wide."""

    count: int
    per_token: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    """Width of the expert that every token passes, whose matrices are ordinary ones; 0 without it."""


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Attention that only looks back ``size`` tokens."""

    size: int
    layers: tuple[int, ...]
    """The layers that do, counted from 0."""
