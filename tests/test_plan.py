"""What fits and how fast: the plan, its reasons, the limits, and bad news that helps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from qlora_tui.cards import plan_for
from qlora_tui.config import RunConfig
from qlora_tui.memory.device import Device, device_like
from qlora_tui.memory.fit import NO_ROWS, Fit, Rows, fit_of
from qlora_tui.memory.from_config import parts_of
from qlora_tui.memory.recipe import GIB
from qlora_tui.models.catalog import find_model
from qlora_tui.models.shape import ModelShape

LLAMA_8B = find_model("Llama-3.1-8B-Instruct").shape()


def config(**sections: dict[str, Any]) -> RunConfig:
    base = RunConfig.model_validate({"name": "x", "data": {"source": "rows.jsonl", "max_length": 2048}})
    return base.changed(**sections)


def card(name: str) -> Device:
    return device_like(plan_for(name))


def fit(recipe: RunConfig, device: Device | str, shape: ModelShape = LLAMA_8B, rows: Rows = NO_ROWS) -> Fit:
    return fit_of(shape, recipe, card(device) if isinstance(device, str) else device, rows)


def test_the_components_are_those_of_the_estimate_and_add_up() -> None:
    found = fit(config(), "RTX 4090")
    assert sum(found.components.values()) == found.allocated
    assert found.parameters == 8_030_261_248
    assert found.trainable == 41_943_040


def test_what_is_set_stays_and_what_is_open_is_chosen_with_a_reason() -> None:
    found = fit(config(training={"micro_batch": 2, "gradient_checkpointing": "full"}), "RTX 4090")
    assert (found.recipe.micro_batch, found.recipe.checkpointing) == (2, "full")
    assert [choice.field for choice in found.choices] == [
        "training.attention",
        "training.layer_kernels",
        "training.optimizer",
    ]
    opened = fit(config(), "RTX 4090")
    assert [choice.field for choice in opened.choices][:2] == [
        "training.micro_batch",
        "training.gradient_checkpointing",
    ]
    assert all(choice.reason for choice in opened.choices)


@pytest.mark.parametrize("memory", [8, 12, 16, 24, 48, 80])
def test_the_plan_fits_for_certain_or_nothing_does(memory: int) -> None:
    found = fit(config(), f"{memory}GiB")
    if found.fits != "yes":
        smallest = fit(config(training={"micro_batch": 1, "gradient_checkpointing": "full"}), f"{memory}GiB")
        assert smallest.fits != "yes"
        assert found.short == smallest.short > 0


@pytest.mark.parametrize("memory", [10, 16, 24, 48])
def test_the_largest_fit_and_one_more_does_not(memory: int) -> None:
    device = card(f"{memory}GiB")
    training = {"gradient_checkpointing": "full", "micro_batch": 1}
    found = fit(config(training=training), device)
    rows, length = found.largest.micro_batch, found.largest.max_length
    assert rows is not None
    assert length is not None
    for size, verdict in ((rows, True), (rows + 1, False)):
        one = fit(config(training={**training, "micro_batch": size, "effective_batch": size}), device)
        assert (one.fits == "yes") == verdict, size
    for size, verdict in ((length, True), (length + 64, False)):
        if size <= LLAMA_8B.max_position_embeddings:
            one = fit(config(training=training, data={"max_length": size}), device)
            assert (one.fits == "yes") == verdict, size


def test_more_memory_is_never_slower() -> None:
    rates = card("RTX 4090").rates
    speeds = [
        found.speed.tokens_per_second.point
        for memory in (10, 12, 16, 24, 32, 48, 80)
        if (found := fit(config(), Device("a card", total=memory * GIB, free=memory * GIB, rates=rates))).speed
    ]
    assert all(later >= 0.979 * earlier for earlier, later in pairwise(speeds))


def test_unknown_free_memory_has_no_verdict_and_the_usual_settings() -> None:
    found = fit(config(), Device("a card"))
    assert found.fits == "unknown"
    assert found.largest.micro_batch is None
    assert (found.recipe.micro_batch, found.recipe.checkpointing) == (4, "full")
    assert any("no verdict" in note for note in found.notes)


def test_hours_follow_from_the_tokens() -> None:
    rows = Rows(packed=True, sequences=100, tokens=200_000, row=600)
    speed = fit(config(training={"epochs": 3}), "RTX 4090", rows=rows).speed
    assert speed is not None
    assert speed.hours is not None
    low, point, high = speed.hours
    assert low < point < high
    assert point == pytest.approx(600_000 / speed.tokens_per_second.point / 3600)
    short = fit(config(training={"epochs": 3, "max_steps": 5}), "RTX 4090", rows=rows).speed
    assert short is not None
    assert short.hours is not None
    assert short.hours[1] == pytest.approx(point * 40 / 300)


def test_a_processor_keeps_its_own_settings() -> None:
    small = find_model("SmolLM2-135M-Instruct").shape()
    found = fit(config(data={"max_length": 256}), Device("a CPU", kind="cpu", free=8 * GIB), small)
    chosen = {choice.field: choice.value for choice in found.choices}
    assert chosen["training.micro_batch"] == 4
    assert chosen["training.gradient_checkpointing"] == "none"
    assert chosen["training.optimizer"] == "adamw"
    assert chosen["training.layer_kernels"] == "none"
    assert found.recipe.regime.residual == 4


def test_cards_without_bf16_get_no_variable_length_attention() -> None:
    assert fit(config(), "T4").recipe.attention == "sdpa"
    assert fit(config(), "RTX 4090").recipe.attention == "varlen"
    assert fit(config(), "T4").recipe.regime.adapter == 4
    assert fit(config(), "T4").recipe.repeats_heads
    assert not fit(config(), "RTX 4090").recipe.repeats_heads


def test_a_chip_that_shares_the_machines_memory_needs_more_of_it() -> None:
    own, shared = (replace(card("RTX 4090"), unified=unified) for unified in (False, True))
    assert fit(config(), shared).process.point > fit(config(), own).process.point + GIB // 2
    chip = card("Jetson AGX Orin 32GB")
    assert chip.unified
    assert chip.total is not None
    assert chip.free is not None
    assert chip.total - chip.free >= 2 * GIB


@pytest.mark.parametrize("effective", [1, 7, 8, 12, 64, 65_536])
def test_parts_of_a_batch_divide_it(effective: int) -> None:
    parts = parts_of(effective)
    assert parts == tuple(size for size in range(1, effective + 1) if effective % size == 0)


def test_without_layer_kernels_installed_none_are_chosen() -> None:
    assert fit(config(), replace(card("RTX 4090"), layer_kernels=False)).recipe.layer_kernels == "none"
    assert fit(config(), "RTX 4090").recipe.layer_kernels == "liger"


def test_an_unsure_shape_has_a_wide_band() -> None:
    exact, unsure = fit(config(), "RTX 4090"), fit(config(), "RTX 4090", replace(LLAMA_8B, tolerance=0.15))
    assert unsure.process.high - unsure.process.low > exact.process.high - exact.process.low


def test_the_whole_batch_is_tried_even_where_a_part_does_not_fit() -> None:
    """Without accumulation no gradients are kept from one micro-batch to the next."""
    shape, recipe = LLAMA_8B, config(adapter={"rank": 1024}, data={"max_length": 64}, training={"effective_batch": 2})
    device = Device("a card", free=80 * GIB)
    pinned = {
        size: fit(recipe.changed(training={"micro_batch": size, "gradient_checkpointing": "full"}), device, shape)
        for size in (1, 2)
    }
    assert pinned[2].process.high < pinned[1].process.high
    between = Device("a card", free=(pinned[1].process.high + pinned[2].process.high) // 2)
    assert fit(recipe, between, shape).recipe.micro_batch == 2


@pytest.mark.parametrize(
    ("length", "effective_batch", "held"),
    [(512, 2, (3.61, 4.75, 4.88, 4.88, 5.01, 5.12, 5.14, 5.15)), (256, 1, (1.55, 1.61, 1.90))],
)
def test_without_a_gpu_the_band_holds_what_real_runs_held(
    length: int, effective_batch: int, held: tuple[float, ...]
) -> None:
    """Resident size at the end of runs of the bundled model, 10^9 bytes."""
    recipe = config(data={"max_length": length, "packing": True}, training={"effective_batch": effective_batch})
    found = fit(recipe, Device("a CPU", kind="cpu", free=20 * GIB), find_model("SmolLM2-135M-Instruct").shape())
    assert found.process.low < min(held) * 1e9
    assert found.process.high > max(held) * 1e9
