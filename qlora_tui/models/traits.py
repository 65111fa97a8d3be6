"""How the decoder layers of a family are put together, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qlora_tui.models.config_fields import Fields
from qlora_tui.models.layers import QkNorm

Window = Literal["none", "all", "opted", "late", "early", "pattern", "unrotated"]
"""Layers with a sliding window: none; all; all if asked for; if asked for those from a layer on, or every second up to
a layer, or those without rotary positions; all but every so manieth."""
Flag = bool | str
"""Always, never, or what the configuration says under this name."""

SEPARATE_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
GATED_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of experts as transformers 5 builds it: experts stacked in bare parameters."""

    width: str = "intermediate_size"
    """The field that holds the width of one expert."""
    shared: str | None = None
    """The field that holds the width of the expert every token passes."""
    biases: bool = False
    """Whether experts and router have biases."""
    linear_router: bool = False
    """Whether the router is a (subclass of a) linear layer."""
    sparse_steps: bool = False
    """Whether some layers may hold an ordinary MLP instead."""
    targets: tuple[str, str, str] | None = None
    """What peft calls gate, up and down projection of the experts it adapts; None where it adapts none."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One family. What is not said is as in Llama."""

    defaults: Mapping[str, Any]
    attention: tuple[str, ...] = SEPARATE_ATTENTION
    """Names of the projections: queries, keys, values, output; or fused and output."""
    mlp: tuple[str, ...] = GATED_MLP
    """Names of the matrices: gate, up, down; or first, second (a fused gate and up is a first of twice the width)."""
    fused_gate_up: bool = False
    qkv_bias: Flag = False
    output_bias: Flag = False
    mlp_bias: Flag = False
    head_bias: Flag = False
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = False
    norms_per_layer: int = 2
    qk_norm: QkNorm = "none"
    qk_norm_bias: bool = False
    parallel_residual: bool = False
    window: Window = "none"
    window_pattern: int = 0
    """Every so manieth layer looks back over everything; the configuration may say otherwise."""
    unrotated: Literal["none", "listed", "full"] = "none"
    """Layers without rotary positions: none, those listed, or those without a window."""
    rotary_fraction: float | None = None
    """The default share of a head that is rotated, in families that rotate less than all of it."""
    head_dim_field: bool = True
    """Whether the configuration may set the head size."""
    heads_divide: bool = False
    """Whether transformers insists that the heads divide the hidden size even where the head size is set."""
    activation: str = "hidden_act"
    width: str = "intermediate_size"
    residual_dropout: str | None = None
    embedding_dropout: str | None = None
    quantised: bool = True
    """Whether the layers are plain ``nn.Linear``, which is all that bitsandbytes replaces."""
    sinks: bool = False
    """Whether each attention head has a sink of its own."""
    mixture: Mixture | None = None
    notes: tuple[str, ...] = ()
    adjust: Callable[[Traits, Fields], Traits] | None = None
    """What the configuration changes about the above."""
