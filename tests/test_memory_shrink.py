"""What would fit where a recipe does not, in numbers that the estimate itself stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qlora_tui.memory.dimensions import gated_decoder
from qlora_tui.memory.recipe import GIB, DeviceFacts, Recipe
from qlora_tui.memory.shrink import advice, longest_sequence, need, smaller_recipes

LLAMA = gated_decoder(hidden=4096, layers=32, intermediate=14_336, heads=32, kv_heads=8, vocab=128_256)
KEPT = Recipe(micro_batch=8, sequence=8192, accumulation=1, checkpointing="none")


@pytest.mark.parametrize("free", [12, 16, 24, 48])
def test_every_suggestion_fits_and_a_longer_row_does_not(free: int) -> None:
    device = DeviceFacts(free=free * GIB)
    found = smaller_recipes(LLAMA, KEPT, device)
    assert found
    for way in found:
        assert way.recipe.micro_batch == 1
        assert way.needs == need(LLAMA, way.recipe, device) <= free * GIB
        longer = replace(way.recipe, sequence=way.recipe.sequence + 64)
        assert way.recipe.sequence == KEPT.sequence or need(LLAMA, longer, device) > free * GIB


def test_checkpointing_is_offered_before_shorter_rows() -> None:
    found = smaller_recipes(LLAMA, KEPT, DeviceFacts(free=16 * GIB))
    assert [way.change.partition(":")[0] for way in found][:2] == ["training.gradient_checkpointing", "data.max_length"]


def test_nothing_shorter_is_offered_where_all_of_it_fits() -> None:
    assert longest_sequence(LLAMA, replace(KEPT, micro_batch=1), DeviceFacts(free=200 * GIB)) == KEPT.sequence


def test_the_advice_has_the_numbers() -> None:
    text = advice(LLAMA, KEPT, DeviceFacts(free=16 * GIB))
    assert "16.0 GiB can be had here" in text
    assert "training.gradient_checkpointing: full (about" in text
    hopeless = advice(LLAMA, KEPT, DeviceFacts(free=4 * GIB))
    assert "use a smaller model or another card" in hopeless
    assert "lower data.max_length" in advice(LLAMA, KEPT, DeviceFacts())
