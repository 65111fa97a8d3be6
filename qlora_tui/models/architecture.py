"""What an estimate has to know of a model: its matrices, its other parameters, how its layers are put together.

Fields are named as in ``config.json`` where it has them. Counts are numbers of elements, never bytes: how many bytes
an element takes is decided by how the model is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from qlora_tui.errors import ModelError
from qlora_tui.models.adapter_sites import ALL_LINEAR, AdapterSite, adapter_sites, target_names
from qlora_tui.models.layers import Experts, LayerGroup, Matrix, QkNorm, SlidingWindow, Unquantised


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
        return target_names(self.groups)

    def matrices(self) -> Iterator[tuple[int, Matrix]]:
        """Every kind of linear layer but the output layer, with how often it occurs in the model."""
        return ((group.count, matrix) for group in self.groups for matrix in group.matrices)

    def adapter_sites(self, targets: str | Collection[str] = ALL_LINEAR) -> list[AdapterSite]:
        """What gets an adapter; see :func:`qlora_tui.models.adapter_sites.adapter_sites`."""
        return adapter_sites(self.groups, self.family, targets)

    def lora_parameters(self, rank: int, targets: str | Collection[str] = ALL_LINEAR) -> int:
        """Parameters of a LoRA adapter of this rank.

        Raises:
            ModelError: if the rank is below 1, or a target fits nothing in this model.
        """
        if rank < 1:
            hint = "Use a rank from 1 up; 16 is a good start."
            raise ModelError("The adapter cannot be sized.", f"Its rank is {rank}.", hint)
        return sum(site.parameters(rank) for site in self.adapter_sites(targets))
