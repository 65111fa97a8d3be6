"""Bad news that helps: what to change, what others hold, which model or card would do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qlora_tui.cards import plan_for
from qlora_tui.config import RunConfig
from qlora_tui.memory.answer import answer_of
from qlora_tui.memory.device import Device, device_like
from qlora_tui.memory.fit import NO_ROWS, fit_of
from qlora_tui.memory.recipe import GIB
from qlora_tui.memory.remedies import (
    fastest_fit,
    larger_card,
    opened,
    others_hold,
    remedies,
    smaller_model,
)
from qlora_tui.memory.words import duration, largest_in_words, size, verdict_in_words
from qlora_tui.models.catalog import find_model
from qlora_tui.models.known import KnownModel

SHAPE = find_model("Llama-3.1-8B-Instruct").shape()


def config(**sections: dict[str, Any]) -> RunConfig:
    base = RunConfig.model_validate(
        {
            "name": "x",
            "model": {"source": "meta-llama/Llama-3.1-8B-Instruct"},
            "data": {"source": "rows.jsonl", "max_length": 2048},
        }
    )
    return base.changed(**sections)


def changes(recipe: RunConfig, device: Device) -> dict[str, bool]:
    return {each.change: each.enough for each in remedies(SHAPE, recipe, fit_of(SHAPE, recipe, device))}


def gib(memory: float) -> Device:
    return Device("a card", total=round(memory * GIB), free=round(memory * GIB))


def test_a_fit_needs_no_remedy() -> None:
    assert changes(config(), gib(24)) == {}
    assert changes(config(), Device("a card")) == {}


def test_settings_that_cost_too_much_are_named_first() -> None:
    greedy = config(training={"micro_batch": 8, "gradient_checkpointing": "none"})
    found = changes(greedy, gib(12))
    assert next(iter(found.items())) == (
        "Set training.micro_batch and training.gradient_checkpointing to auto",
        True,
    )


def test_shorter_rows_are_as_long_as_they_can_be() -> None:
    recipe, device = config(data={"max_length": 32_768}), gib(12)
    change = next(iter(changes(recipe, device)))
    longest = int(change.rpartition(" ")[2])
    assert change.startswith("Set data.max_length: ")
    assert fit_of(SHAPE, config(data={"max_length": longest}), device).fits == "yes"
    assert fit_of(SHAPE, config(data={"max_length": longest + 64}), device).fits != "yes"


def test_a_smaller_adapter_is_as_large_as_it_can_be() -> None:
    recipe, device = config(adapter={"rank": 256}), gib(8.6)
    found = changes(recipe, device)
    ranks = [int(change.rpartition(" ")[2]) for change, enough in found.items() if "adapter.rank" in change and enough]
    assert len(ranks) == 1
    assert fit_of(SHAPE, config(adapter={"rank": ranks[0]}), device).fits == "yes"
    assert fit_of(SHAPE, config(adapter={"rank": 2 * ranks[0]}), device).fits != "yes"


def test_four_bits_help_a_base_in_sixteen() -> None:
    found = changes(config(quantization={"type": "none"}), gib(12))
    assert found["Set quantization.type: nf4"]


def test_without_a_gpu_the_settings_that_need_least_have_to_be_set() -> None:
    found = changes(config(), Device("a CPU", kind="cpu", total=48 * GIB, free=48 * GIB))
    assert found["Set training.micro_batch: 1 and training.gradient_checkpointing: full"]


def test_what_other_programs_hold() -> None:
    busy = Device("a card", total=12 * GIB, free=4 * GIB)
    assert others_hold(fit_of(SHAPE, config(), busy)) == (
        "Other programs hold 8.00 GiB of this card; without them it would fit."
    )
    assert others_hold(fit_of(SHAPE, config(), replace(busy, total=5 * GIB))) is None
    assert others_hold(fit_of(SHAPE, config(), replace(busy, planned=True))) is None


def test_another_model_or_another_card() -> None:
    small = gib(6)
    found = smaller_model(SHAPE, config(), small)
    assert found is not None
    name = found.partition("that fits is ")[2].partition(" (")[0]
    entry = find_model(name)
    assert (entry.kind, fit_of(entry.shape(), config(), small).fits) == ("instruct", "yes")
    assert larger_card(fit_of(SHAPE, config(), small)) == "A card with 8 GB or more would do."
    assert device_like(plan_for("RTX 4060")).free
    assert smaller_model(SHAPE, config(), gib(0.5)) is None
    huge = config(data={"max_length": 131_072}, training={"micro_batch": 8})
    assert larger_card(fit_of(SHAPE, huge, gib(80))) is None


def test_the_fastest_ignores_what_the_config_says_of_speed() -> None:
    slow = config(training={"micro_batch": 1, "gradient_checkpointing": "full", "layer_kernels": "none"})
    device = device_like(plan_for("H100 SXM5"))
    assert fastest_fit(SHAPE, slow, device).recipe == fit_of(SHAPE, config(), device).recipe
    assert opened(slow).data == slow.data
    notes = " ".join(answer_of(KnownModel("m", SHAPE), slow, device, NO_ROWS).notes)
    assert "The fastest settings that fit" in notes
    notes = " ".join(answer_of(KnownModel("m", SHAPE), config(), device, NO_ROWS).notes)
    assert "The fastest settings that fit" not in notes


def test_a_bad_verdict_never_stands_alone() -> None:
    for memory in (0.5, 2, 5, 6, 7, 8, 10):
        for recipe in (config(), config(data={"max_length": 131_072}), config(adapter={"rank": 1024})):
            answer = answer_of(KnownModel("m", SHAPE), recipe, replace(gib(memory), planned=True), NO_ROWS)
            if answer.fit.fits != "yes":
                assert any(note.startswith(("Set ", "With this recipe", "A card with")) for note in answer.notes), (
                    memory
                )


def test_verdicts_in_words() -> None:
    for memory, beginning in ((24, "It fits"), (3, "It does not fit")):
        assert verdict_in_words(fit_of(SHAPE, config(), gib(memory))).startswith(beginning)
    fit = fit_of(SHAPE, config(training={"micro_batch": 1, "gradient_checkpointing": "full"}), gib(24))
    between = gib((fit.process.low + fit.process.high) / 2 / GIB)
    tight = fit_of(SHAPE, config(training={"micro_batch": 1, "gradient_checkpointing": "full"}), between)
    assert verdict_in_words(tight).startswith("It is tight")
    assert "no verdict" in verdict_in_words(fit_of(SHAPE, config(), Device("a card")))
    assert largest_in_words(fit_of(SHAPE, config(), Device("a card"))) is None
    assert largest_in_words(fit_of(SHAPE, config(), gib(3))) is None


def test_sizes_and_times_for_people() -> None:
    assert size(3 * GIB // 2) == "1.50 GiB"
    assert size(3 << 20) == "3.0 MiB"
    times = [duration(hours) for hours in (0.0001, 0.005, 0.5, 1.4, 3.26)]
    assert times == ["1 s", "18 s", "30 min", "84 min", "3.3 h"]
