"""The estimate of the run that is about to train, from the model and the rows that are really there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qlora_tui.config import RunConfig
from qlora_tui.engine.attention import repeats_heads
from qlora_tui.errors import ModelError
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.recipe import ALL_FP32, LORA_ON_SIXTEEN_BIT, SCALED_FP16, SIXTEEN_BIT, DeviceFacts, Recipe, Regime
from qlora_tui.models.shape import shape_from_config


def dimensions_of_model(config: Mapping[str, Any]) -> Dimensions | None:
    """What the arithmetic needs of a model in memory; None for one that it does not know."""
    try:
        return dimensions_of(shape_from_config(config))
    except ModelError:
        return None


def recipe_of(config: RunConfig, lengths: Sequence[int]) -> Recipe:
    """The recipe in numbers.

    Args:
        config: Without ``auto`` in what decides memory.
        lengths: Tokens of every sequence that the trainer sees.
    """
    training, adapter = config.training, config.adapter
    micro_batch = training.micro_batch
    assert micro_batch != "auto"
    packed = bool(config.data.packing)
    values: dict[str, Any] = {
        "micro_batch": micro_batch,
        "sequence": max(lengths, default=config.data.max_length),
        "rank": adapter.rank,
        "accumulation": config.gradient_accumulation,
        "packed": packed,
        "padded": not packed and micro_batch > 1 and len(set(lengths)) > 1,
        "targets": None if adapter.target_modules == "all-linear" else frozenset(adapter.target_modules),
        "dropout": adapter.dropout,
        "quantization": config.quantization.type,
        "double_quant": config.quantization.double_quant,
        "checkpointing": training.gradient_checkpointing,
        "attention": training.attention,
        "repeats_heads": repeats_heads(),
        "layer_kernels": training.layer_kernels,
        "optimizer": training.optimizer,
        "regime": _regime(config),
    }
    return Recipe(**values)


def _regime(config: RunConfig) -> Regime:
    if config.quantization.compute_dtype == "float32":
        return ALL_FP32
    if config.quantization.compute_dtype == "float16":
        return SCALED_FP16
    return LORA_ON_SIXTEEN_BIT if config.quantization.type == "none" else SIXTEEN_BIT


def device_facts(free: int | None, context: int | None) -> DeviceFacts:
    """The GPU of this process, as far as it enters the sum.

    Args:
        free: Bytes that the process may have in all, its own included.
        context: Bytes of CUDA's context; None for the usual guess.
    """
    workspace = DeviceFacts().workspace
    if torch.cuda.is_available():
        workspace = DeviceFacts.workspace_of(torch.cuda.get_device_capability())
    return DeviceFacts(free, DeviceFacts().context if context is None else context, workspace)


def recipe_facts(recipe: Recipe) -> dict[str, int | float | str | bool | None]:
    """The recipe as plain values, for the history."""
    values = {name: getattr(recipe, name) for name in recipe.__slots__ if name not in ("regime", "targets")}
    return {**values, "targets": " ".join(sorted(recipe.targets)) if recipe.targets else None}
