"""Architectures that nobody counted: sized by the published weights where they say how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.config_fields import Fields
from qlora_tui.models.decoder import read_decoder
from qlora_tui.models.layers import LayerGroup, Matrix
from qlora_tui.models.traits import Traits
from qlora_tui.text import one_line

TOLERANCE = 0.15
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_GENERIC = Traits(
    {"max_position_embeddings": 4096, "hidden_act": "silu"},
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    mlp_bias="mlp_bias",
    window="all",
)


def published_parameters(config: Mapping[str, Any], index: Mapping[str, Any] | None) -> int | None:
    """How many parameters the weights' index says there are; None where it does not say.

    The index states bytes, and only newer ones parameters; weights that are quantised already state neither well.
    """
    metadata = (index or {}).get("metadata")
    if not isinstance(metadata, Mapping):
        return None
    parameters = metadata.get("total_parameters")
    if isinstance(parameters, int) and not isinstance(parameters, bool) and parameters > 0:
        return parameters
    size = metadata.get("total_size")
    if config.get("quantization_config") or isinstance(size, bool) or not isinstance(size, int | float):
        return None
    if not 0 < size < math.inf:
        return None
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return int(size) // _BYTES.get(dtype.removeprefix("torch."), 2)


def read_unknown(model_type: str, config: Mapping[str, Any], index: Mapping[str, Any] | None) -> ModelShape:
    """Size a model of unknown architecture as if it were built like Llama, then fit its size to the published one.

    Raises:
        ModelError: if the configuration lacks the usual sizes, or contradicts itself or the weights.
    """
    shown = one_line(model_type, 40)
    try:
        shape = read_decoder("unknown", _GENERIC, Fields(config, _GENERIC.defaults), shown)
    except ModelError as error:
        raise ModelError(
            f"A model of type {shown} cannot be sized.",
            f"The architecture is not known here, and its config.json does not help: {error.why}",
            "Choose a model of a known family; `qlora-tui models` lists some.",
        ) from error
    how = "the size of its weights" if index else "its sizes alone, as if it were built like Llama"
    note = f"The architecture {shown} is not known here: figures come from {how} and may be off by 15 %."
    shape = replace(shape, tolerance=TOLERANCE, notes=(note,))
    published = published_parameters(config, index)
    return shape if published is None else _fit(shape, published, _has_experts(config))


def _has_experts(config: Mapping[str, Any]) -> bool:
    counts = (config.get(name) for name in _EXPERT_COUNTS)
    return any(isinstance(count, int) and count > 1 for count in counts)


def _fit(shape: ModelShape, published: int, experts: bool) -> ModelShape:
    """Change what is least certain, the MLP, so that the counts add up to ``published``."""
    group, layers = shape.groups[0], shape.num_hidden_layers
    mlp = [matrix for matrix in group.matrices if matrix.name.startswith("mlp.")]
    counted = sum(matrix.weight for matrix in mlp)
    missing = (published - shape.parameters) // layers
    if counted + missing <= 0:
        raise ModelError(
            f"A model of type {shape.model_type} cannot be sized.",
            f"Its weights hold {published:,} parameters, fewer than the sizes in its config.json need.",
            "config.json and weights belong to different models: download both again.",
        )
    if experts:
        # Experts are parameters of their own in transformers 5, which stay in 16 bit.
        stacked = max(0, missing + counted)
        group = replace(group, matrices=tuple(m for m in group.matrices if m not in mlp), experts=stacked)
        return replace(shape, groups=(group,))
    return replace(shape, groups=(_stretched(group, mlp, (counted + missing) / counted),))


def _stretched(group: LayerGroup, mlp: list[Matrix], factor: float) -> LayerGroup:
    """The layer with an MLP that is ``factor`` times as wide."""
    matrices = []
    for matrix in group.matrices:
        if matrix in mlp and matrix.name == "mlp.down_proj":
            matrices.append(replace(matrix, in_features=max(1, round(matrix.in_features * factor))))
        elif matrix in mlp:
            matrices.append(replace(matrix, out_features=max(1, round(matrix.out_features * factor))))
        else:
            matrices.append(matrix)
    return replace(group, matrices=tuple(matrices))
