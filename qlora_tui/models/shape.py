"""What a model is made of, from its ``config.json`` alone: every parameter counted, no torch.

A known family is counted exactly (the tests hold it to transformers' own model); a kind that cannot be trained here is
turned down with the reason; anything else is sized from its weights, with the uncertainty stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qlora_tui.models.adapter_sites import ALL_LINEAR, AdapterSite
from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.config_fields import Fields, refused
from qlora_tui.models.decoder import read_decoder
from qlora_tui.models.families import FAMILIES
from qlora_tui.models.layers import Experts, LayerGroup, Matrix, SlidingWindow, Stack, Unquantised
from qlora_tui.models.unknown import published_parameters, read_unknown
from qlora_tui.models.unsupported import UnsupportedArchitecture, refuse_unsupported

__all__ = [
    "ALL_LINEAR",
    "FAMILIES",
    "AdapterSite",
    "Experts",
    "LayerGroup",
    "Matrix",
    "ModelShape",
    "SlidingWindow",
    "Stack",
    "Unquantised",
    "UnsupportedArchitecture",
    "shape_from_config",
]

# Beyond this the weights are not those of the configuration; below it, an index counts tied weights or buffers too.
_AGREEMENT = 0.02


def shape_from_config(config: Mapping[str, Any], *, index: Mapping[str, Any] | None = None) -> ModelShape:
    """The shape of a model.

    Args:
        config: What its ``config.json`` holds.
        index: What ``model.safetensors.index.json`` holds, where there is one: the size of an unknown architecture,
            and a check on a known one.

    Raises:
        UnsupportedArchitecture: if models of this kind are not trained here.
        ModelError: if the configuration lacks a size or contradicts itself.
    """
    config, model_type = _text_only(config)
    traits = FAMILIES.get(model_type)
    if traits is None:
        refuse_unsupported(model_type, config)
        return read_unknown(model_type, config, index)
    shape = read_decoder(model_type, traits, Fields(config, traits.defaults), model_type)
    return _compared(shape, published_parameters(config, index))


def _text_only(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The configuration of the language model and its type."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise refused("It lacks model_type, which names the architecture.")
    # Gemma 3 publishes its text model under the multimodal type too; the architecture then says which one it is.
    inner = config.get("text_config")
    if model_type == "gemma3" and config.get("architectures") == ["Gemma3ForCausalLM"] and isinstance(inner, Mapping):
        return inner, "gemma3_text"
    return config, model_type


def _compared(shape: ModelShape, published: int | None) -> ModelShape:
    """The shape with a note if the weights hold clearly more or fewer parameters than it."""
    if published is None:
        return shape
    # Some files hold tied embeddings twice.
    twice = shape.parameters + (shape.unquantised.embeddings if shape.tie_word_embeddings else 0)
    if any(abs(published - counted) <= _AGREEMENT * counted for counted in (shape.parameters, twice)):
        return shape
    note = (
        f"Its weights hold {published:,} parameters where config.json describes {shape.parameters:,}: "
        "the two may belong to different models."
    )
    return replace(shape, notes=(*shape.notes, note))
