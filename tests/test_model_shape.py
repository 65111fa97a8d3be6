"""Shapes against transformers' own models on the meta device: parameters, linear layers, adapters, defaults."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.quantizers.base import get_keys_to_not_convert

from qlora_tui.errors import ModelError
from qlora_tui.models.family_defaults import DEFAULTS
from qlora_tui.models.shape import FAMILIES, ModelShape, UnsupportedArchitecture, shape_from_config

# Every size differs from every other, so that no two can be taken for each other unnoticed.
SMALL: dict[str, Any] = {
    "num_hidden_layers": 3,
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 304,
}
NO_GROUPS = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
FALCON = {name: value for name, value in NO_GROUPS.items() if name != "intermediate_size"}
MIXTURE = SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_MIXTURE = SMALL | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "llama, tied, every bias": SMALL | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "llama, own head size": SMALL | {"head_dim": 24},
    "llama, no grouped heads": NO_GROUPS,
    "mistral": SMALL,
    "mistral, wide heads, no window": SMALL | {"head_dim": 32, "sliding_window": None},
    "qwen2": SMALL | {"tie_word_embeddings": True},
    "qwen2, window from layer 1": SMALL | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
    "qwen3": SMALL | {"tie_word_embeddings": True},
    "qwen3, bias, window": SMALL
    | {"attention_bias": True, "head_dim": 20, "use_sliding_window": True, "max_window_layers": 2},
    "gemma": SMALL,
    "gemma, untied, bias": SMALL | {"tie_word_embeddings": False, "attention_bias": True, "head_dim": 40},
    "gemma2": SMALL,
    "gemma2, no caps": SMALL | {"final_logit_softcapping": None, "attn_logit_softcapping": None, "head_dim": 18},
    "gemma3_text": SMALL,
    "gemma3_text, pattern of 2": SMALL | {"sliding_window_pattern": 2, "head_dim": 20, "attention_bias": True},
    "phi": SMALL,
    "phi, normed heads": NO_GROUPS | {"qk_layernorm": True, "resid_pdrop": 0.1, "partial_rotary_factor": 0.4},
    "phi3": SMALL,
    "phi3, tied, partly rotated": SMALL
    | {"tie_word_embeddings": True, "partial_rotary_factor": 0.75, "sliding_window": 99},
    "smollm3": SMALL,
    "smollm3, every bias, window": SMALL
    | {"attention_bias": True, "mlp_bias": True, "use_sliding_window": True, "sliding_window": 32}
    | {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": False},
    "olmo2": SMALL,
    "olmo2, bias, no grouped heads": NO_GROUPS | {"attention_bias": True, "tie_word_embeddings": True},
    "granite": SMALL | {"tie_word_embeddings": True},
    "granite, every bias": SMALL | {"attention_bias": True, "mlp_bias": True},
    "stablelm": SMALL,
    "stablelm, qkv bias, normed heads": SMALL | {"use_qkv_bias": True, "qk_layernorm": True},
    "stablelm, parallel": SMALL | {"use_parallel_residual": True, "tie_word_embeddings": True},
    "starcoder2": SMALL,
    "starcoder2, no bias": SMALL | {"use_bias": False, "tie_word_embeddings": False, "sliding_window": 50},
    "falcon, as 7b": FALCON,
    "falcon, as 40b": FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon, as 11b": FALCON
    | {"new_decoder_architecture": True, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1}
    | {"tie_word_embeddings": False, "ffn_hidden_size": 200},
    "falcon, as rw-1b": FALCON | {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
    "cohere": SMALL,
    "cohere, normed heads": SMALL | {"use_qk_norm": True, "attention_bias": True, "tie_word_embeddings": False},
    "cohere2": SMALL,
    "cohere2, own head size": SMALL | {"sliding_window_pattern": 2, "head_dim": 24, "attention_bias": True},
    "gpt_neox": NO_GROUPS,
    "gpt_neox, no bias, in turn": NO_GROUPS
    | {"attention_bias": False, "use_parallel_residual": False}
    | {"tie_word_embeddings": True},
    "mixtral": MIXTURE,
    "mixtral, own head size": MIXTURE | {"head_dim": 24, "tie_word_embeddings": True, "sliding_window": 64},
    "qwen2_moe": QWEN_MIXTURE | {"shared_expert_intermediate_size": 56},
    "qwen2_moe, every second layer": QWEN_MIXTURE
    | {"shared_expert_intermediate_size": 48, "decoder_sparse_step": 2, "qkv_bias": False, "use_sliding_window": True},
    "qwen3_moe": QWEN_MIXTURE,
    "qwen3_moe, first layer dense": QWEN_MIXTURE
    | {"mlp_only_layers": [0], "attention_bias": True, "head_dim": 20, "tie_word_embeddings": True}
    | {"use_sliding_window": True},
    "gpt_oss": MIXTURE,
    "gpt_oss, no bias": MIXTURE | {"attention_bias": False, "head_dim": 20},
    "olmoe": SMALL | {"num_experts": 4, "num_experts_per_tok": 2},
    "olmoe, no grouped heads": NO_GROUPS | {"num_experts": 4, "num_experts_per_tok": 1, "attention_bias": True},
    "granitemoe": MIXTURE,
    "granitemoe, tied, bias": MIXTURE | {"attention_bias": True, "tie_word_embeddings": True},
    "phimoe": MIXTURE,
    "phimoe, every bias": MIXTURE | {"attention_bias": True, "lm_head_bias": True, "sliding_window": 64},
}


def _type(variant: str) -> str:
    return variant.partition(",")[0]


def _build(config: dict[str, Any]) -> Any:
    """The model on the meta device; the token ids only keep transformers from warning about a small vocabulary."""
    model_type = config["model_type"]
    values = {name: value for name, value in config.items() if name != "model_type"}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **values, **ids))


def _of(variant: str) -> tuple[ModelShape, Any]:
    config = {"model_type": _type(variant)} | VARIANTS[variant]
    return shape_from_config(config), _build(config)


def _linears(model: Any) -> list[tuple[str, int, int, bool]]:
    head = model.get_output_embeddings()
    return sorted(
        (_in_layer(name), module.in_features, module.out_features, module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )


def _in_layer(name: str) -> str:
    return re.sub(r"^.*?\.\d+\.", "", name)


def _expected_linears(shape: ModelShape) -> list[tuple[str, int, int, bool]]:
    return sorted(
        (matrix.name, matrix.in_features, matrix.out_features, matrix.bias)
        for count, matrix in shape.matrices()
        for _ in range(count)
    )


def _lora_parameters(model: Any, rank: int, targets: str | list[str]) -> int:
    adapted = get_peft_model(model, LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM"))
    return sum(parameter.numel() for name, parameter in adapted.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_are_those_of_transformers(variant: str) -> None:
    shape, model = _of(variant)
    assert shape.exact
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert _expected_linears(shape) == _linears(model)
    assert _lora_parameters(model, 4, "all-linear") == shape.lora_parameters(4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_loaded_in_4_bit(variant: str) -> None:
    """The layers that bitsandbytes would replace, by the rule of transformers' integration."""
    shape, model = _of(variant)
    import bitsandbytes
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    kept = get_keys_to_not_convert(model)
    model = replace_with_bnb_linear(model, kept, BitsAndBytesConfig(load_in_4bit=True))
    replaced = [
        (_in_layer(name), module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    ]
    expected = [
        (matrix.name, matrix.in_features, matrix.out_features)
        for count, matrix in shape.matrices()
        for _ in range(count)
        if matrix.quantised
    ]
    assert sorted(replaced) == sorted(expected)
    assert shape.quantisable == sum(size_in * size_out for _, size_in, size_out in replaced)
    assert shape.quantisable + shape.unquantised.total == shape.parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_unquantised_parameters_by_kind(variant: str) -> None:
    shape, model = _of(variant)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    kinds = dict.fromkeys(("embeddings", "head", "norms", "biases", "experts", "routers", "others"), 0)
    for name, parameter in model.named_parameters():
        parent, _, last = name.rpartition(".")
        if parent in linear:
            kind = "biases" if last == "bias" else "head" if parent.endswith("lm_head") else None
        elif isinstance(model.get_submodule(parent), torch.nn.Embedding):
            kind = "embeddings"
        elif "experts" in name:
            kind = "experts"
        elif "router" in name or parent.endswith("mlp.gate"):
            kind = "routers"
        else:
            kind = "norms" if re.search(r"norm|ln_", name) else "others"
        if kind is not None:
            kinds[kind] += parameter.numel()
    assert kinds == {kind: getattr(shape.unquantised, kind) for kind in kinds}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    """A config.json that says nothing at all describes the model of the configuration class's defaults."""
    fields = type(AutoConfig.for_model(model_type)).__dataclass_fields__
    for name, value in DEFAULTS[model_type].items():
        assert fields[name].default == value, name
    shape = shape_from_config({"model_type": model_type})
    config = AutoConfig.for_model(model_type)
    assert shape.tie_word_embeddings == config.tie_word_embeddings
    assert shape.num_key_value_heads in (getattr(config, "num_key_value_heads", None), shape.num_attention_heads, 1)
    with torch.device("meta"):
        config.num_hidden_layers, config.layer_types = 2, (getattr(config, "layer_types", None) or [])[:2] or None
        model = AutoModelForCausalLM.from_config(config)
    two_layers = shape_from_config({"model_type": model_type, "num_hidden_layers": 2})
    assert two_layers.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_windows_and_positions_are_those_of_the_configuration_class(variant: str) -> None:
    shape, model = _of(variant)
    config = model.config
    types = getattr(config, "layer_types", None)
    size = getattr(config, "sliding_window", None)
    if types is not None:
        sliding = tuple(layer for layer, kind in enumerate(types) if kind == "sliding_attention")
    else:
        sliding = tuple(range(shape.num_hidden_layers)) if size else ()
    if not size:
        sliding = ()
    assert (shape.sliding_window.layers if shape.sliding_window else ()) == sliding
    if shape.sliding_window:
        assert shape.sliding_window.size == size
    if _type(variant) == "smollm3":
        unrotated = tuple(layer for layer, rotated in enumerate(config.no_rope_layers) if not rotated)
        assert shape.unrotated_layers == unrotated
    rope = getattr(config, "rope_parameters", None) or {}
    assert shape.rotary_fraction == rope.get("partial_rotary_factor", 1.0)
    assert shape.max_position_embeddings == config.max_position_embeddings


@pytest.mark.parametrize(
    ("variant", "targets"),
    [
        ("llama", ["q_proj", "v_proj"]),
        ("llama", ["self_attn.q_proj", "mlp.down_proj"]),
        ("phi3", ["qkv_proj", "gate_up_proj"]),
        ("gpt_neox", ["dense"]),
        ("falcon, as 40b", ["query_key_value", "dense_4h_to_h"]),
        ("qwen2_moe", ["gate_proj", "q_proj"]),
        ("starcoder2", ["c_fc"]),
        ("mixtral", ["w1", "w3", "q_proj"]),
        ("mixtral", ["gate", "w2"]),
        ("qwen3_moe, first layer dense", ["gate_proj", "up_proj"]),
        ("olmoe", ["down_proj", "o_proj"]),
    ],
)
def test_named_targets(variant: str, targets: list[str]) -> None:
    shape, model = _of(variant)
    assert shape.lora_parameters(8, targets) == _lora_parameters(model, 8, targets)


def test_a_target_that_is_not_there() -> None:
    shape, _ = _of("phi3")
    with pytest.raises(ModelError, match=r"q_proj.*qkv_proj, o_proj, gate_up_proj, down_proj"):
        shape.lora_parameters(8, ["qkv_proj", "q_proj"])


def test_half_of_a_fused_target() -> None:
    shape, _ = _of("qwen3_moe")
    with pytest.raises(ModelError, match=r"gate_proj.*shares one tensor with up_proj"):
        shape.lora_parameters(8, ["gate_proj", "q_proj"])


# Published sizes: the hub's own totals of the weight files.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-3.1-8B": (
        {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
        | {"num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256},
        8_030_261_248,
    ),
    "OLMo-2-1124-13B": (
        {"model_type": "olmo2", "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40}
        | {"num_hidden_layers": 40, "num_key_value_heads": 40, "vocab_size": 100352},
        13_716_198_400,
    ),
    "SmolLM3-3B": ({"model_type": "smollm3"}, 3_075_098_624),
    "Llama-2-70b-hf": (
        {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64}
        | {"num_hidden_layers": 80, "num_key_value_heads": 8, "vocab_size": 32000},
        68_976_648_192,
    ),
    "pythia-70m": (
        {"model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
        | {"num_hidden_layers": 6, "vocab_size": 50304},
        70_426_624,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    config, parameters = PUBLISHED[name]
    assert shape_from_config(config).parameters == parameters


def test_figures_the_estimate_needs() -> None:
    shape = shape_from_config(PUBLISHED["Llama-3.1-8B"][0])
    assert (shape.query_size, shape.key_value_size, shape.head_dim) == (4096, 1024, 128)
    assert shape.largest_quantised is not None
    assert shape.largest_quantised.weight == 4096 * 14336
    assert shape.lora_parameters(16) == 41_943_040
    assert shape.unquantised.embeddings == shape.unquantised.head == 128256 * 4096
    assert shape.gated
    assert (shape.parallel_residual, shape.fused_qkv, shape.fused_gate_up, shape.alibi) == (False,) * 4
    gemma, _ = _of("gemma2")
    assert (gemma.attention_softcap, gemma.logit_softcap, gemma.norms_per_layer) == (50.0, 30.0, 4)
    phi, _ = _of("phi, normed heads")
    assert (phi.residual_dropout, phi.rotary_fraction, phi.qk_norm, phi.gated) == (0.1, 0.4, "head", False)
    falcon, _ = _of("falcon, as 7b")
    assert falcon.largest_quantised is None
    assert any("16 bit" in note for note in falcon.notes)


def test_mixtures_say_what_they_cost() -> None:
    shape, _ = _of("mixtral")
    assert shape.experts is not None
    assert (shape.experts.count, shape.experts.per_token) == (4, 2)
    assert shape.unquantised.experts == 3 * 4 * 3 * 96 * 176
    assert shape.active_parameters == shape.parameters - shape.unquantised.experts // 2
    assert any("16 bit" in note for note in shape.notes)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "qwen2_vl"}, "images"),
        ({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}}, "images"),
        ({"model_type": "mllama"}, "images"),
        ({"model_type": "brand_new", "vision_config": {"hidden_size": 8}}, "images"),
        ({"model_type": "mamba"}, "no attention"),
        ({"model_type": "qwen3_next"}, "no attention"),
        ({"model_type": "brand_new", "layer_types": ["full_attention", "linear_attention"]}, "no attention"),
        ({"model_type": "deepseek_v3"}, "MLA"),
        ({"model_type": "brand_new", "kv_lora_rank": 512}, "MLA"),
        ({"model_type": "t5"}, "decoder-only"),
    ],
)
def test_unsupported_kinds_are_named(config: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=why) as caught:
        shape_from_config(config)
    assert caught.value.what
    assert caught.value.hint


def test_the_text_model_of_gemma_3_under_its_multimodal_type() -> None:
    inner = SMALL | {"model_type": "gemma3_text"}
    config = {"model_type": "gemma3", "architectures": ["Gemma3ForCausalLM"], "text_config": inner}
    assert shape_from_config(config) == shape_from_config(inner)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"hidden_size": -96}, "hidden_size is -96"),
        ({"hidden_size": 2**40}, "has to be a whole number from 1 to"),
        ({"hidden_size": "96"}, "'96'"),
        ({"hidden_size": True}, "True"),
        ({"intermediate_size": 17.5}, "17.5"),
        ({"num_attention_heads": 7}, "do not divide"),
        ({"num_key_value_heads": 12}, "more than its 6 attention heads"),
        ({"num_key_value_heads": 4}, "evenly"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"tie_word_embeddings": "yes"}, "true or false"),
        ({"attention_dropout": 3}, "attention_dropout is 3"),
        ({"model_type": None}, "lacks model_type"),
        ({"model_type": "gemma3_text", "layer_types": ["full_attention"]}, "a list of 1, but there are 3 layers"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "only 8"),
        ({"model_type": "mixtral", "num_local_experts": 0}, "num_local_experts is 0"),
        ({"model_type": "\x1b[31mfoo", "num_hidden_layers": None}, "foo|lacks num_hidden_layers"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        shape_from_config({"model_type": "llama"} | SMALL | change)
    sentences = (caught.value.what, caught.value.why, caught.value.hint)
    assert all(sentence and sentence.endswith(".") for sentence in sentences)
    assert "\x1b" not in str(caught.value)


def test_unknown_architectures_are_sized_from_the_weights() -> None:
    config = {"model_type": "brand_new", "torch_dtype": "float16"} | SMALL
    plain = shape_from_config(config)
    assert (plain.family, plain.tolerance) == ("unknown", 0.15)
    assert "15 %" in plain.notes[0]
    for factor in (0.8, 1.0, 1.4):
        parameters = int(plain.parameters * factor)
        sized = shape_from_config(config, index={"metadata": {"total_size": 2 * parameters}})
        assert sized.parameters == pytest.approx(parameters, rel=0.01)
        assert not sized.exact
    stated = shape_from_config(config, index={"metadata": {"total_parameters": plain.parameters, "total_size": 7}})
    assert stated.parameters == plain.parameters


def test_unknown_mixtures_keep_their_experts_in_16_bit() -> None:
    config = {"model_type": "brand_new", "n_routed_experts": 16} | SMALL
    dense = shape_from_config({"model_type": "brand_new"} | SMALL)
    sized = shape_from_config(config, index={"metadata": {"total_size": 2 * 8 * dense.parameters}})
    assert sized.unquantised.experts > 0.8 * sized.parameters
    assert sized.target_names == ("q_proj", "k_proj", "v_proj", "o_proj")


def test_unknown_weights_that_contradict_the_sizes() -> None:
    with pytest.raises(ModelError, match="fewer than the sizes"):
        shape_from_config({"model_type": "brand_new"} | SMALL, index={"metadata": {"total_size": 1000}})


def test_weights_of_another_model_are_noticed() -> None:
    config = {"model_type": "llama", "dtype": "bfloat16", "tie_word_embeddings": True} | SMALL
    parameters = shape_from_config(config).parameters
    twice = parameters + 96 * 304
    for size, notes in ((parameters, 0), (twice, 0), (parameters // 2, 1)):
        assert len(shape_from_config(config, index={"metadata": {"total_size": 2 * size}}).notes) == notes
    quantised = config | {"quantization_config": {"quant_method": "gptq"}}
    shape = shape_from_config(quantised, index={"metadata": {"total_size": 100}})
    assert (shape.notes, shape.quantization) == ((), "gptq")


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
_NAMES = sorted({name for defaults in DEFAULTS.values() for name in defaults} | {"rope_parameters", "layer_types"})


@settings(max_examples=300, deadline=None)
@given(
    model_type=st.sampled_from([*FAMILIES, "brand_new"]),
    change=st.dictionaries(st.sampled_from(_NAMES), _JUNK, max_size=4),
    index=st.none() | st.dictionaries(st.just("metadata"), _JUNK | st.fixed_dictionaries({"total_size": _JUNK})),
)
def test_no_configuration_leads_to_anything_but_a_shape_or_an_error(
    model_type: str, change: dict[str, Any], index: dict[str, Any] | None
) -> None:
    try:
        shape = shape_from_config({"model_type": model_type} | SMALL | change, index=index)
    except ModelError:
        return
    assert shape.parameters > 0
    assert shape.lora_parameters(1) > 0
