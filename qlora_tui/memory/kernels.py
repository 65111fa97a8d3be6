"""Which fast kernels a model can train with, from its shape alone."""

from __future__ import annotations

from typing import Final

from qlora_tui.models.architecture import ModelShape

VARLEN_FAMILIES: Final = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3", "olmo2", "granite", "stablelm", "starcoder2"}
)
"""Their attention is plain and causal, with windows at most."""
_LIGER_FAMILIES: Final = frozenset(
    {
        "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "gpt_oss", "granite", "hunyuan_v1_dense", "hunyuan_v1_moe",
        "llama", "ministral", "mistral", "mixtral", "nemotron", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_moe",
        "smollm3",
    }
)  # fmt: skip
"""Text-only families whose layers liger-kernel 0.8.5 patches."""


def varlen_possible(shape: ModelShape) -> bool:
    """Whether its attention is plain and causal, so that packed rows need no mask."""
    capped = shape.attention_softcap is not None or shape.logit_softcap is not None
    plain = not capped and not shape.attention_dropout and shape.sliding_window is None
    return shape.model_type in VARLEN_FAMILIES and plain


def liger_possible(shape: ModelShape) -> bool:
    """Whether fused layer kernels exist for its family."""
    return shape.model_type in _LIGER_FAMILIES
