"""How a family builds its decoder layer, as far as its memory depends on it, and what a recipe changes of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Norm = Literal["rms", "rms then cast", "gemma", "layer", "cohere"]
Order = Literal[
    "one after the other",
    "one after the other, named",
    "norms behind",
    "norms around",
    "parallel",
    "parallel, two norms",
    "parallel, in place",
    "parallel, two norms first",
]


@dataclass(frozen=True, slots=True)
class Build:
    """A decoder layer of a family. The defaults are Llama's.

    Attributes:
        norm: ``rms`` multiplies by its weight in the stream's dtype, ``rms then cast`` and ``gemma`` in fp32;
            ``layer`` is torch's layer norm, which autocast runs in fp32 and which gives fp32; ``cohere`` is its own.
        order: Where the norms stand, and whether attention and MLP read the same stream; ``named`` where local
            variables keep the first norm's output and the attention's result.
        query_key_norm: Queries and keys are normed: by head, as a whole, or one head after the other.
        rotation: Which part of a head is turned: all of it, a leading part (with local variables for the parts, or in a
            function of its own), pairs of neighbours in fp32, nothing.
        split: Whether queries, keys and values come from one matrix: as slices, in thirds of a head, or gathered.
        fused_gate_up: Gate and up are one matrix.
        gated: The MLP multiplies two projections.
        activation: ``kernel`` saves its input only; ``gelu by hand`` is written out in Python.
        scaled_residual: What is added to the stream is multiplied by a number first (Granite).
        scaled_embedding: So are the embeddings, in the model's forward pass (Gemma's embedding layer keeps nothing).
        residual_dropout: The model's own dropout of attention's and MLP's results; likewise of embeddings, attention.
        softcapped: Attention scores are capped.
        scores_in_place: They are scaled where they are, and what softmax makes of them stays in fp32 (Falcon).
        always_masked: A mask is made even where nothing would be hidden but the future (Falcon).
        plain_linear: Linear layers that loading in 4 bit does not reach (Falcon).
        kernel_norm_in_place: liger's norm writes its gradient over the one it gets.
        kernel_query_key_norm: liger replaces the norms of queries and keys too.
    """

    norm: Norm = "rms"
    order: Order = "one after the other"
    query_key_norm: Literal["none", "head", "whole", "head by head"] = "none"
    rotation: Literal["whole", "part", "part, named", "pairs", "none"] = "whole"
    split: Literal["no", "slices", "thirds", "gathered"] = "no"
    fused_gate_up: bool = False
    gated: bool = True
    activation: Literal["kernel", "gelu by hand"] = "kernel"
    scaled_residual: bool = False
    scaled_embedding: bool = False
    residual_dropout: bool = False
    embedding_dropout: bool = False
    attention_dropout: bool = False
    softcapped: bool = False
    scores_in_place: bool = False
    always_masked: bool = False
    plain_linear: bool = False
    kernel_norm_in_place: bool = True
    kernel_query_key_norm: bool = True


LLAMA: Final = Build()


@dataclass(frozen=True, slots=True)
class Names:
    """What the matrices of a layer are called."""

    query: str = "q_proj"
    key: str = "k_proj"
    value: str = "v_proj"
    fused_qkv: str = "qkv_proj"
    output: str = "o_proj"
    gate: str = "gate_proj"
    up: str = "up_proj"
    fused_gate_up: str = "gate_up_proj"
    down: str = "down_proj"


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a recipe decides which tensors there are, their sizes apart.

    Attributes:
        adapted: Names of the matrices with an adapter.
        fused_adapters: A quantised matrix and its adapter are one operation.
        grouped: Whether several query heads share a key head.
        one_key_head: Whether all of them do.
        attention: Fused, or eager.
        repeats_heads: Fused attention cannot share key heads.
        float16: The 16 bits are fp16's.
        embedding_gradient: The embeddings' output requires a gradient, as it does with checkpoints.
    """

    adapted: frozenset[str]
    grouped: bool
    one_key_head: bool = False
    liger: bool = False
    fused_adapters: bool = False
    attention: Literal["fused", "eager"] = "fused"
    repeats_heads: bool = False
    float16: bool = False
    dropout: bool = False
    quantised: bool = True
    double_quant: bool = True
    adapter_bytes: int = 2
    kept_gradients: bool = True
    embedding_gradient: bool = True


@dataclass(frozen=True, slots=True)
class LayerType:
    """One decoder layer among others of the same build: whether it is checkpointed, has a mask, turns its heads."""

    checkpointed: bool = True
    masked: bool = False
    turned: bool = True
