"""A fit with round numbers in place of the estimate, so that pictures of screens do not change with its arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qlora_tui.config import RunConfig
from qlora_tui.memory import fit as real
from qlora_tui.memory.fit import NO_ROWS, Choice, Device, Fit, Rows, Speed
from qlora_tui.memory.plan import Largest
from qlora_tui.memory.process import Band, Verdict
from qlora_tui.memory.speed import Throughput
from qlora_tui.models.architecture import ModelShape

GIB = 1 << 30
_NOTE = "Rows are taken as packed; data.packing: auto decides that when it has seen their lengths."
_REAL = real.fit_of


def round_fit(shape: ModelShape, config: RunConfig, device: Device, rows: Rows = NO_ROWS) -> Fit:
    """Half a byte a parameter, and more with rank, length and batch."""
    base = _REAL(shape, RunConfig.model_validate({"name": "x", "data": {"source": "x"}}), device)
    trainable = shape.lora_parameters(config.adapter.rank, config.adapter.target_modules)
    weights, adapter = shape.parameters * 5 // 8, 4 * trainable
    activations = config.data.max_length * GIB // 512 + shape.parameters // 8
    components = {"weights_4bit": weights, "adapter": adapter, "activations": activations, "loss": GIB // 4}
    point = sum(components.values()) + GIB // 2
    band = Band(round(0.95 * point), point, round(1.05 * point))
    free = device.free
    fits: Verdict = "unknown" if free is None else "yes" if band.high <= free else "tight" if band.low <= free else "no"
    speed = None
    if device.rates is not None:
        hours = (0.2, 0.25, 0.3) if rows.tokens is not None else None
        speed = Speed(Throughput(4000, 5000, 6000), hours)
    return replace(
        base,
        trainable=trainable,
        recipe=replace(base.recipe, micro_batch=4, accumulation=2, checkpointing="full", attention="varlen"),
        choices=(
            Choice("training.micro_batch", 4, "half of the effective batch, the most that fits"),
            Choice("training.gradient_checkpointing", "full", "nothing else fits"),
        ),
        estimate=replace(
            base.estimate,
            components=components,
            allocated=sum(components.values()),
            process=band,
            needed=band,
            fits=fits,
        ),
        largest=Largest(16, 4096),
        speed=speed,
        notes=(_NOTE,) if rows is NO_ROWS else (),
    )


def use_round_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fit of the application is a round one."""
    for module in ("view", "screens.model", "screens.recipe"):
        monkeypatch.setattr(f"qlora_tui.tui.{module}.fit_of", round_fit)
    monkeypatch.setattr("qlora_tui.tui.screens.model.four_bit_size", lambda shape: shape.parameters * 5 // 8)
    monkeypatch.setattr("qlora_tui.tui.screens.recipe.remedies", lambda *_arguments: [])
