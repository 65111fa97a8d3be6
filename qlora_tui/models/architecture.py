"""What an estimate has to know of a model: its matrices, its other parameters, how its layers are put together.

Fields are named as in ``config.json`` where it has them. Counts are numbers of elements, never bytes: how many bytes
an element takes is decided by how the model is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from qlora_tui.errors import ModelError
from qlora_tui.text import one_line

ALL_LINEAR = "all-linear"
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
class AdapterSite:
    """A place for an adapter: matrices of (rank · multiple, in) and (out, rank · multiple) elements."""

    name: str
    count: int
    """How often it occurs in the model."""
    in_features: int
    out_features: int
    multiple: int = 1

    def parameters(self, rank: int) -> int:
        """Elements of all its adapters."""
        return self.count * rank * self.multiple * (self.in_features + self.out_features)


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


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only language model, counted."""

    model_type: str
    family: str
    """The architecture that was counted; ``unknown`` when the figures were only sized up."""
    hidden_size: int
    intermediate_size: int
    """Width of the ordinary MLP. A mixture of experts states the width of its experts in ``experts``."""
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    groups: tuple[LayerGroup, ...]
    final_norm: int
    head_bias: int = 0
    hidden_act: str = "silu"
    gated: bool = True
    """Whether the MLP multiplies two projections (gate and up) or has only one."""
    norm: Literal["rms", "layer"] = "rms"
    norms_per_layer: int = 2
    """Norms over the hidden size in one layer; those of queries and keys are not counted."""
    qk_norm: QkNorm = "none"
    """Norm of queries and keys: one of head size shared by all heads, one for each head, or over the projection."""
    parallel_residual: bool = False
    """Whether attention and MLP read the same input and are added together."""
    fused_qkv: bool = False
    fused_gate_up: bool = False
    alibi: bool = False
    rotary_fraction: float = 1.0
    """Share of each head that is rotated."""
    unrotated_layers: tuple[int, ...] = ()
    """Layers without rotary positions, counted from 0."""
    sliding_window: SlidingWindow | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    experts: Experts | None = None
    tolerance: float = 0.0
    """How far off the counts may be, as a share: 0 when they are exact."""
    quantization: str | None = None
    """How the published weights are quantised already, by config.json's name for it."""
    notes: tuple[str, ...] = ()
    """What the user should know before trusting or training it."""

    @property
    def exact(self) -> bool:
        """Whether every parameter was counted."""
        return self.tolerance == 0

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key heads together, and of all value heads together."""
        return self.num_key_value_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """All parameters of the model; tied embeddings count once."""
        return self.quantisable + self.unquantised.total

    @property
    def quantisable(self) -> int:
        """Elements of the weights that are loaded in 4 bit."""
        return sum(count * matrix.weight for count, matrix in self.matrices() if matrix.quantised)

    @property
    def unquantised(self) -> Unquantised:
        """Everything that is not loaded in 4 bit."""
        groups, embeddings = self.groups, self.vocab_size * self.hidden_size
        return Unquantised(
            embeddings=embeddings,
            head=0 if self.tie_word_embeddings else embeddings,
            norms=self.final_norm + sum(group.count * group.norms for group in groups),
            biases=self.head_bias + sum(group.count * group.biases for group in groups),
            matrices=sum(count * matrix.weight for count, matrix in self.matrices() if not matrix.quantised),
            experts=sum(group.count * group.experts for group in groups),
            routers=sum(group.count * group.router for group in groups),
            others=sum(group.count * group.others for group in groups),
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes: all of them, less the experts that are not chosen for it."""
        if self.experts is None:
            return self.parameters
        stacked = self.unquantised.experts
        return self.parameters - stacked + stacked * self.experts.per_token // self.experts.count

    @property
    def largest_quantised(self) -> Matrix | None:
        """The quantised matrix with the most elements: what dequantisation has to hold at once."""
        quantised = [matrix for _, matrix in self.matrices() if matrix.quantised]
        return max(quantised, key=lambda matrix: matrix.weight, default=None)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The names by which adapters can be put on layers, each once, in the order of the layers' matrices."""
        matrices = (matrix.name.rpartition(".")[2] for _, matrix in self.matrices() if matrix.adapted)
        stacks = (target for group in self.groups for stack in group.stacks for target in stack.targets)
        return tuple(dict.fromkeys((*matrices, *stacks)))

    def matrices(self) -> Iterator[tuple[int, Matrix]]:
        """Every kind of linear layer but the output layer, with how often it occurs in the model."""
        return ((group.count, matrix) for group in self.groups for matrix in group.matrices)

    def adapter_sites(self, targets: str | Collection[str] = ALL_LINEAR) -> list[AdapterSite]:
        """What gets an adapter.

        ``all-linear`` is every linear layer except the output layer, and the stacks; names are compared as peft
        compares them, with the path of a layer or its last parts.

        Raises:
            ModelError: if a name fits nothing in this model, or only half of a stack.
        """
        names = {targets} if isinstance(targets, str) else set(targets)
        every = names == {ALL_LINEAR}
        if not every:
            self._check_targets(names)
        sites = []
        for group in self.groups:
            for matrix in group.matrices:
                if matrix.adapted and (every or any(matrix.matches(name) for name in names)):
                    sites.append(AdapterSite(matrix.name, group.count, matrix.in_features, matrix.out_features))
            for stack in group.stacks:
                if every or names >= set(stack.targets):
                    multiple = stack.count * len(stack.targets)
                    sites.append(AdapterSite(stack.name, group.count, stack.in_features, stack.out_features, multiple))
        return sites

    def _check_targets(self, names: set[str]) -> None:
        stacks = [set(stack.targets) for group in self.groups for stack in group.stacks]
        for name in sorted(names):
            fused = next((targets for targets in stacks if name in targets), None)
            if fused is not None and not fused <= names:
                raise ModelError(
                    f"No adapter can be put on {one_line(name, 60)!r} alone.",
                    f"In this {self.family} model it shares one tensor with {', '.join(sorted(fused - names))}.",
                    f"Name {' and '.join(sorted(fused))}, or use {ALL_LINEAR}.",
                )
            if fused is None and not any(m.adapted and m.matches(name) for _, m in self.matrices()):
                raise ModelError(
                    f"No adapter can be put on {one_line(name, 60)!r}.",
                    f"No linear layer of this {self.family} model is called that.",
                    f"Use {ALL_LINEAR}, or some of: {', '.join(self.target_names)}.",
                )

    def lora_parameters(self, rank: int, targets: str | Collection[str] = ALL_LINEAR) -> int:
        """Parameters of a LoRA adapter of this rank.

        Raises:
            ModelError: if the rank is below 1, or a target fits nothing in this model.
        """
        if rank < 1:
            hint = "Use a rank from 1 up; 16 is a good start."
            raise ModelError("The adapter cannot be sized.", f"Its rank is {rank}.", hint)
        return sum(site.parameters(rank) for site in self.adapter_sites(targets))
