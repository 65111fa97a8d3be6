"""The families whose parameters can be counted, each as it differs from Llama.

Read from ``transformers/models/*/modeling_*.py`` of version 5.23: which projections have biases, what is normalised,
which names the layers have. Llama itself: separate projections without bias, a gated MLP, two RMS norms a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qlora_tui.models.config_fields import Fields
from qlora_tui.models.family_defaults import DEFAULTS
from qlora_tui.models.traits import Mixture, Traits

_PHI_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense")
# From peft's utils/transformers_weight_conversion.py, which keeps adapters to what they reached in transformers 4.
_MIXTRAL_TARGETS = ("w1", "w3", "w2")
_QWEN_TARGETS = ("gate_proj", "up_proj", "down_proj")
_EXPERTS_NOTE = (
    "Its experts are stacked parameters, which 4-bit loading leaves in 16 bit: it takes far more memory than its size "
    "in 4 bit suggests."
)
_ADAPTED_NOTE = "With all-linear, every one of its experts gets an adapter of the full rank."
_UNADAPTED_NOTE = "Its experts get no adapters: all-linear reaches attention and what else is a linear layer."
_FALCON_NOTE = "bitsandbytes does not replace Falcon's own kind of linear layer: the whole model stays in 16 bit."


def _phi(traits: Traits, fields: Fields) -> Traits:
    return replace(traits, qk_norm="head") if fields.flag("qk_layernorm") else traits


def _stablelm(traits: Traits, fields: Fields) -> Traits:
    parallel = fields.flag("use_parallel_residual")
    return replace(
        traits,
        qk_norm="per-head" if fields.flag("qk_layernorm") else "none",
        parallel_residual=parallel,
        # Attention and MLP then share the first norm.
        norms_per_layer=1 if parallel else 2,
    )


def _cohere(traits: Traits, fields: Fields) -> Traits:
    return replace(traits, qk_norm="per-head") if fields.flag("use_qk_norm") else traits


def _gpt_neox(traits: Traits, fields: Fields) -> Traits:
    return replace(traits, parallel_residual=fields.flag("use_parallel_residual"))


def _falcon(traits: Traits, fields: Fields) -> Traits:
    new, parallel = fields.flag("new_decoder_architecture"), fields.flag("parallel_attn")
    norms = fields.optional_size("num_ln_in_parallel_attn") or (2 if new else 1)
    return replace(
        traits,
        norms_per_layer=2 if not parallel or norms == 2 else 1,
        parallel_residual=new or parallel,
        width="ffn_hidden_size",
    )


FAMILIES: Mapping[str, Traits] = {
    "llama": Traits(
        DEFAULTS["llama"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        heads_divide=True,
    ),
    "mistral": Traits(DEFAULTS["mistral"], window="all"),
    "qwen2": Traits(DEFAULTS["qwen2"], qkv_bias=True, window="late"),
    "qwen3": Traits(
        DEFAULTS["qwen3"], qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head", window="late"
    ),
    "gemma": Traits(DEFAULTS["gemma"], qkv_bias="attention_bias", output_bias="attention_bias"),
    "gemma2": Traits(
        DEFAULTS["gemma2"],
        norms_per_layer=4,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        window="pattern",
        window_pattern=2,
        heads_divide=True,
        activation="hidden_activation",
    ),
    "gemma3_text": Traits(
        DEFAULTS["gemma3_text"],
        norms_per_layer=4,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="head",
        window="pattern",
        window_pattern=6,
        heads_divide=True,
        activation="hidden_activation",
    ),
    "phi": Traits(
        DEFAULTS["phi"],
        attention=_PHI_ATTENTION,
        mlp=("mlp.fc1", "mlp.fc2"),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        head_bias=True,
        norm="layer",
        norm_bias=True,
        norms_per_layer=1,
        qk_norm_bias=True,
        parallel_residual=True,
        rotary_fraction=0.5,
        residual_dropout="resid_pdrop",
        embedding_dropout="embd_pdrop",
        adjust=_phi,
    ),
    "phi3": Traits(
        DEFAULTS["phi3"],
        attention=("self_attn.qkv_proj", "self_attn.o_proj"),
        mlp=("mlp.gate_up_proj", "mlp.down_proj"),
        fused_gate_up=True,
        window="all",
        rotary_fraction=1.0,
        residual_dropout="resid_pdrop",
    ),
    "smollm3": Traits(
        DEFAULTS["smollm3"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        window="unrotated",
        unrotated="listed",
    ),
    "olmo2": Traits(DEFAULTS["olmo2"], qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="projection"),
    "granite": Traits(
        DEFAULTS["granite"], qkv_bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias"
    ),
    "stablelm": Traits(
        DEFAULTS["stablelm"],
        qkv_bias="use_qkv_bias",
        norm="layer",
        norm_bias=True,
        rotary_fraction=0.25,
        head_dim_field=False,
        residual_dropout="hidden_dropout",
        adjust=_stablelm,
    ),
    "starcoder2": Traits(
        DEFAULTS["starcoder2"],
        mlp=("mlp.c_fc", "mlp.c_proj"),
        qkv_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        norm="layer",
        norm_bias=True,
        window="all",
        residual_dropout="residual_dropout",
        embedding_dropout="embedding_dropout",
    ),
    "falcon": Traits(
        DEFAULTS["falcon"],
        attention=("self_attention.query_key_value", "self_attention.dense"),
        mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        qkv_bias="bias",
        output_bias="bias",
        mlp_bias="bias",
        norm="layer",
        norm_bias=True,
        head_dim_field=False,
        activation="activation",
        residual_dropout="hidden_dropout",
        quantised=False,
        notes=(_FALCON_NOTE,),
        adjust=_falcon,
    ),
    "cohere": Traits(
        DEFAULTS["cohere"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        norm="layer",
        norms_per_layer=1,
        parallel_residual=True,
        adjust=_cohere,
    ),
    "cohere2": Traits(
        DEFAULTS["cohere2"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        norm="layer",
        norms_per_layer=1,
        parallel_residual=True,
        window="pattern",
        window_pattern=4,
        unrotated="full",
    ),
    "gpt_neox": Traits(
        DEFAULTS["gpt_neox"],
        attention=("attention.query_key_value", "attention.dense"),
        mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias=True,
        norm="layer",
        norm_bias=True,
        rotary_fraction=0.25,
        head_dim_field=False,
        heads_divide=True,
        residual_dropout="hidden_dropout",
        embedding_dropout="hidden_dropout",
        adjust=_gpt_neox,
    ),
    "mixtral": Traits(
        DEFAULTS["mixtral"],
        window="all",
        mixture=Mixture(targets=_MIXTRAL_TARGETS),
        notes=(_EXPERTS_NOTE, _ADAPTED_NOTE),
    ),
    "qwen2_moe": Traits(
        DEFAULTS["qwen2_moe"],
        qkv_bias="qkv_bias",
        window="early",
        mixture=Mixture(width="moe_intermediate_size", shared="shared_expert_intermediate_size", sparse_steps=True),
        notes=(_EXPERTS_NOTE, _UNADAPTED_NOTE),
    ),
    "qwen3_moe": Traits(
        DEFAULTS["qwen3_moe"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="head",
        window="opted",
        mixture=Mixture(width="moe_intermediate_size", sparse_steps=True, targets=_QWEN_TARGETS),
        notes=(_EXPERTS_NOTE, _ADAPTED_NOTE),
    ),
    "gpt_oss": Traits(
        DEFAULTS["gpt_oss"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        window="pattern",
        window_pattern=2,
        sinks=True,
        mixture=Mixture(biases=True),
        notes=(_EXPERTS_NOTE, _UNADAPTED_NOTE),
    ),
    "olmoe": Traits(
        DEFAULTS["olmoe"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="projection",
        mixture=Mixture(targets=_QWEN_TARGETS),
        notes=(_EXPERTS_NOTE, _ADAPTED_NOTE),
    ),
    "granitemoe": Traits(
        DEFAULTS["granitemoe"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mixture=Mixture(),
        notes=(_EXPERTS_NOTE, _UNADAPTED_NOTE),
    ),
    "phimoe": Traits(
        DEFAULTS["phimoe"],
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        head_bias="lm_head_bias",
        norm="layer",
        norm_bias=True,
        window="all",
        mixture=Mixture(linear_router=True),
        notes=(_EXPERTS_NOTE, _UNADAPTED_NOTE),
    ),
}
