"""The estimate of the run that is about to train, from the model and the rows that are really there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from qlora_tui.config import RunConfig
from qlora_tui.engine.attention import repeats_heads
from qlora_tui.errors import ModelError
from qlora_tui.memory.device import Device
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.from_config import recipe_from
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.recipe import Recipe
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
    training, dtype, packed = config.training, config.quantization.compute_dtype, bool(config.data.packing)
    assert dtype != "auto"
    assert training.attention != "auto"
    assert training.layer_kernels != "auto"
    assert training.optimizer != "auto"
    assert training.micro_batch != "auto"
    assert training.gradient_checkpointing != "auto"
    recipe = recipe_from(
        config,
        sequence=max(lengths, default=config.data.max_length),
        packed=packed,
        dtype=dtype,
        attention=training.attention,
        repeats_heads=repeats_heads(),
        layer_kernels=training.layer_kernels,
        optimizer=training.optimizer,
    )
    return replace(
        recipe,
        micro_batch=training.micro_batch,
        accumulation=config.gradient_accumulation,
        padded=not packed and training.micro_batch > 1 and len(set(lengths)) > 1,
        checkpointing=training.gradient_checkpointing,
    )


def this_card(free: int | None, context: int | None) -> Device:
    """The GPU of this process, as far as it enters the sum.

    Args:
        free: Bytes that the process may have in all, its own included.
        context: Bytes of CUDA's context; None for the usual guess.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return Device("this card", free=free, context=context, capability=capability)


def recipe_facts(recipe: Recipe) -> dict[str, int | float | str | bool | None]:
    """The recipe as plain values, for the history."""
    values = {name: getattr(recipe, name) for name in recipe.__slots__ if name not in ("regime", "targets")}
    return {**values, "targets": " ".join(sorted(recipe.targets)) if recipe.targets else None}
