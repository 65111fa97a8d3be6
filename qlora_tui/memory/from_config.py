"""A config as the arithmetic takes it: the recipe in numbers, and what is left to be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qlora_tui.memory.plan import Options
from qlora_tui.memory.recipe import (
    ALL_FP32,
    LORA_ON_SIXTEEN_BIT,
    SCALED_FP16,
    SIXTEEN_BIT,
    Attention,
    Checkpointing,
    LayerKernels,
    Optimizer,
    Quantization,
    Recipe,
    Regime,
)

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig
    from qlora_tui.memory.device import Device

ComputeDtype = Literal["bfloat16", "float16", "float32"]


def recipe_from(
    config: RunConfig,
    *,
    sequence: int,
    packed: bool,
    dtype: ComputeDtype,
    attention: Attention,
    repeats_heads: bool,
    layer_kernels: LayerKernels,
    optimizer: Optimizer,
) -> Recipe:
    """The recipe in numbers, with a micro-batch of one row and everything checkpointed.

    Args:
        sequence: Tokens of the longest row.
    """
    targets = config.adapter.target_modules
    return Recipe(
        micro_batch=1,
        sequence=sequence,
        rank=config.adapter.rank,
        accumulation=config.training.effective_batch,
        packed=packed,
        targets=None if targets == "all-linear" else frozenset(name.rpartition(".")[2] for name in targets),
        dropout=config.adapter.dropout,
        quantization=config.quantization.type,
        double_quant=config.quantization.double_quant,
        attention=attention,
        repeats_heads=repeats_heads,
        layer_kernels=layer_kernels,
        fused_adapters=_fuses_adapters(config, layer_kernels, dtype),
        optimizer=optimizer,
        regime=_regime(config.quantization.type, dtype),
    )


def _fuses_adapters(config: RunConfig, layer_kernels: LayerKernels, dtype: ComputeDtype) -> bool:
    """What ``engine/fused_adapter.py`` asks of a layer, from the config alone."""
    adapter = config.adapter
    plain = config.quantization.type != "none" and dtype != "float16" and not adapter.dropout and not adapter.dora
    return layer_kernels == "liger" and plain


def compute_dtype(config: RunConfig, device: Device) -> ComputeDtype:
    """The dtype that the engine loads and trains in on this device."""
    dtype = config.quantization.compute_dtype
    if dtype != "auto":
        return dtype
    return "float32" if device.kind == "cpu" else "bfloat16" if device.bf16 else "float16"


def _regime(quantization: Quantization, dtype: ComputeDtype) -> Regime:
    if dtype == "float32":
        return ALL_FP32
    if dtype == "float16":
        return SCALED_FP16
    return LORA_ON_SIXTEEN_BIT if quantization == "none" else SIXTEEN_BIT


def options_of(config: RunConfig) -> Options:
    """What the config leaves open of the settings that trade memory for speed."""
    training = config.training
    effective = training.effective_batch
    every: tuple[Checkpointing, ...] = ("none", "every-2", "full")
    return Options(
        effective_batch=effective,
        micro_batches=parts_of(effective) if training.micro_batch == "auto" else (training.micro_batch,),
        checkpointing=every if training.gradient_checkpointing == "auto" else (training.gradient_checkpointing,),
    )


def parts_of(effective: int) -> tuple[int, ...]:
    """Micro-batches that divide an effective batch, smallest first."""
    low = [size for size in range(1, int(effective**0.5) + 1) if effective % size == 0]
    return tuple(sorted({*low, *(effective // size for size in low)}))


def with_least_memory(recipe: Recipe, config: RunConfig) -> Recipe:
    """The recipe with what the config leaves open set to what needs least."""
    options = options_of(config)
    return options.applied(recipe, options.micro_batches[0], options.checkpointing[-1])
