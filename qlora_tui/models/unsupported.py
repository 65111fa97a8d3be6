"""Architectures that are named and turned down: what they are, and why no estimate and no run is offered for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.text import one_line


class UnsupportedArchitecture(ModelError):
    """A model of a kind that this program does not train."""

    kind = "unsupported_model"


_MULTIMODAL = "it reads images or sound as well as text, and only text is prepared and priced here"
_STATE_SPACE = "some of its layers are no attention (state space, convolution or linear attention)"
_LATENT = "its attention goes through low-rank latents (MLA), whose memory is not modelled"
_NOT_A_DECODER = "it is no decoder-only language model"

_KINDS: Mapping[str, str] = {
    _MULTIMODAL: (
        "aria aya_vision blip-2 chameleon cohere2_vision deepseek_vl deepseek_vl_hybrid emu3 florence2 fuyu gemma3 "
        "gemma3n gemma4 gemma4_unified glm4v glm4v_moe glm46v got_ocr2 idefics idefics2 idefics3 instructblip internvl "
        "janus kimi_k25 kosmos-2 lfm2_vl llama4 llava llava_next llava_next_video llava_onevision mistral3 mllama "
        "molmo2 ovis2 paligemma perception_lm phi3_v phi4_multimodal pixtral qwen2_5_omni qwen2_5_vl qwen2_audio "
        "qwen2_vl qwen3_omni_moe qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe smolvlm video_llava vipllava voxtral"
    ),
    _STATE_SPACE: (
        "bamba falcon_h1 falcon_mamba granitemoehybrid jamba kimi_linear lfm2 lfm2_moe lfm3 mamba mamba2 minimax "
        "nemotron_h olmo_hybrid qwen3_next recurrent_gemma rwkv xlstm zamba zamba2"
    ),
    _LATENT: ("deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 glm4_moe_lite longcat_flash minicpm3 youtu"),
    _NOT_A_DECODER: (
        "albert bart bert deberta deberta-v2 distilbert electra longt5 m2m_100 mbart modernbert mt5 pegasus roberta t5 "
        "t5gemma umt5 whisper xlm-roberta"
    ),
}
_OTHER_LAYERS = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent", "ssm"})


def refuse_unsupported(model_type: str, config: Mapping[str, Any]) -> None:
    """Turn down what is known not to work, by its type or by what its configuration holds.

    Raises:
        UnsupportedArchitecture: with the reason.
    """
    reason = next((why for why, types in _KINDS.items() if model_type in types.split()), None) or _by_fields(config)
    if reason is not None:
        raise UnsupportedArchitecture(
            f"Models of type {one_line(model_type, 40)} are not supported.",
            f"{reason[0].upper()}{reason[1:]}.",
            "Choose a text-only decoder model, such as one from `qlora-tui models`.",
        )


def _by_fields(config: Mapping[str, Any]) -> str | None:
    if any(isinstance(config.get(name), dict) for name in ("vision_config", "audio_config")):
        return _MULTIMODAL
    if config.get("is_encoder_decoder") is True:
        return _NOT_A_DECODER
    if config.get("kv_lora_rank") is not None:
        return _LATENT
    types = config.get("layer_types")
    names = set(types) if isinstance(types, list) and all(isinstance(name, str) for name in types) else set()
    if names & _OTHER_LAYERS or any(name.startswith(("mamba_", "ssm_")) for name in config):
        return _STATE_SPACE
    return None
