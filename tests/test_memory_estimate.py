"""The memory estimate: reference values, sums, monotony, measured runs, bad news told in time, speed of one call."""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import replace
from itertools import combinations

import pytest

from benchmarks import fit
from benchmarks.measured_runs import H100_RATES, PACKED_ROW, SHAPES, Measured, h100_runs
from qlora_tui.memory.activations import peak_moment
from qlora_tui.memory.dimensions import Dimensions, gated_decoder
from qlora_tui.memory.estimate import DeviceFacts, Estimate, Recipe, estimate
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.layer import layer_memory
from qlora_tui.memory.loss import loss_memory
from qlora_tui.memory.masks import masked
from qlora_tui.memory.recipe import GIB, MIB, PREPARED, UNSPECIFIED, Regime
from qlora_tui.memory.speed import filled_share, step_time, throughput
from qlora_tui.memory.static import adapter_elements, optimizer_state, quantised_bytes, static_memory
from qlora_tui.models.shape import shape_from_config

LLAMA_8B = SHAPES["llama8b"]
QWEN3_4B = SHAPES["qwen3_4b"]
QWEN25_HALF_B = gated_decoder(
    hidden=896, layers=24, intermediate=4864, heads=14, kv_heads=2, vocab=151_936, tied=True, attention_bias=True
)
FOUR = Recipe(micro_batch=4, sequence=2048)
FP32 = replace(UNSPECIFIED, adapter=2)


def traced(dimensions: Dimensions, recipe: Recipe) -> Estimate:
    return estimate(dimensions, recipe, formula="traced")


def static_of(found: Estimate) -> int:
    parts = found.components
    return (
        sum(parts[name] for name in ("weights_4bit", "embeddings_and_head", "norms", "adapter", "optimizer"))
        + (parts["workspace"])
    )


# (dimensions, recipe): static, checkpoints, layer, loss, peak
REFERENCE = {
    "8b 1x2048": (
        LLAMA_8B,
        replace(FOUR, micro_batch=1),
        (5_844_951_040, 536_870_912, 574_095_360, 251_658_240, 6_958_538_752),
    ),
    "8b": (LLAMA_8B, FOUR, (5_844_951_040, 2_147_483_648, 2_046_820_352, 738_197_504, 10_041_876_480)),
    "8b accumulation": (
        LLAMA_8B,
        replace(FOUR, accumulation=4),
        (5_844_951_040, 2_147_483_648, 2_046_820_352, 738_197_504, 10_123_141_120),
    ),
    "8b dropout": (
        LLAMA_8B,
        replace(FOUR, dropout=0.05),
        (5_844_951_040, 2_147_483_648, 3_003_121_664, 738_197_504, 10_998_177_792),
    ),
    "8b eager": (
        LLAMA_8B,
        replace(FOUR, attention="eager"),
        (5_844_951_040, 2_147_483_648, 7_012_876_288, 738_197_504, 15_007_932_416),
    ),
    "8b plain scales": (
        LLAMA_8B,
        replace(FOUR, double_quant=False),
        (6_169_944_064, 2_147_483_648, 2_046_820_352, 738_197_504, 10_366_869_504),
    ),
    "8b not checkpointed": (
        LLAMA_8B,
        replace(FOUR, checkpointing="none"),
        (5_844_951_040, 0, None, 738_197_504, 54_904_152_064),
    ),
    "8b full loss": (
        LLAMA_8B,
        replace(FOUR, loss="full"),
        (5_844_951_040, 2_147_483_648, 2_046_820_352, 12_809_404_416, 20_804_460_544),
    ),
    "8b fp32": (
        LLAMA_8B,
        replace(FOUR, regime=FP32),
        (7_946_829_824, 4_294_967_296, 3_590_324_224, 1_073_741_824, 15_834_742_784),
    ),
    "qwen3 4b": (QWEN3_4B, FOUR, (2_769_837_312, 1_509_949_440, 1_585_446_912, 562_036_736, 5_867_068_672)),
    "qwen2.5 0.5b": (
        QWEN25_HALF_B,
        replace(FOUR, sequence=4096),
        (510_528_064, 704_643_072, 1_228_931_072, 473_956_352, 2_444_835_392),
    ),
}


class TestReference:
    """The closed form read off a trace, value by value."""

    @pytest.mark.parametrize(("dimensions", "recipe", "expected"), REFERENCE.values(), ids=REFERENCE)
    def test_every_value(
        self, dimensions: Dimensions, recipe: Recipe, expected: tuple[int, int, int | None, int, int]
    ) -> None:
        static, checkpoints, layer, loss, peak = expected
        found = traced(dimensions, recipe)
        assert static_of(found) == static
        assert found.components["checkpoints"] == checkpoints
        assert layer is None or layer_memory(dimensions, recipe, "traced").peak == layer
        assert loss_memory(dimensions, recipe, "traced") == loss
        assert found.allocated == peak

    def test_quantised_matrix(self) -> None:
        elements = 4096 * 1024
        assert quantised_bytes(elements, True) == elements // 2 + elements // 64 + elements // 4096 + 2560
        assert quantised_bytes(elements, False) == elements // 2 + elements // 16 + 512

    def test_a_small_share_of_states_is_paged_at_a_low_rank(self) -> None:
        static = static_memory(LLAMA_8B, FOUR)
        assert static.managed == pytest.approx(44.0e6, rel=0.002)
        assert static.optimizer == pytest.approx(41.2e6, rel=0.005)

    @pytest.mark.parametrize(
        ("elements", "expected"), [(4095, (32_760, 0)), (4096, (8320, 0)), (100_000, (3128, 200_000))]
    )
    def test_paged_states_of_a_tensor(self, elements: int, expected: tuple[int, int]) -> None:
        assert optimizer_state(elements, "paged_adamw_8bit", 2) == expected


class TestMeasured:
    """Every measured run on the H100, and those of others that can be reproduced."""

    def test_allocated_is_within_half_a_percent_on_every_row(self) -> None:
        errors = fit.allocated_errors()
        assert len(errors) == 67
        assert {name: value for name, value in errors.items() if abs(value) > 0.005} == {}

    def test_the_process_is_within_three_percent_on_every_row(self) -> None:
        assert {name: value for name, value in fit.process_errors().items() if abs(value) > 0.03} == {}

    @pytest.mark.parametrize("run", [run for run in h100_runs() if run.cap], ids=lambda run: run.name)
    def test_the_verdict_is_right_where_memory_was_capped(self, run: Measured) -> None:
        assert fit.verdict_is_right(run)

    def test_the_measured_terms_matter(self) -> None:
        """Without them the window's row is off by more than a percent, so the bound above tests something."""
        run = next(run for run in h100_runs() if run.shape == "mistral7b" and run.recipe.sequence == 4096)
        found = estimate(run.dimensions, run.recipe, run.device, formula="traced").allocated
        assert run.allocated is not None
        assert abs(found / run.allocated - 1) > 0.01


RECIPES = {
    "plain": FOUR,
    "liger": replace(FOUR, layer_kernels="liger"),
    "kept": replace(FOUR, checkpointing="none"),
    "half": replace(FOUR, checkpointing="every-2"),
    "dropout": replace(FOUR, dropout=0.1),
    "eager": replace(FOUR, attention="eager"),
    "packed": replace(FOUR, packed=True),
    "varlen": replace(FOUR, packed=True, attention="varlen"),
    "padded": replace(FOUR, padded=True),
    "sixteen bit": replace(FOUR, quantization="none", regime=Regime(adapter=4)),
    "prepared": replace(FOUR, regime=PREPARED, loss="full_kept"),
    "attention only": replace(FOUR, targets=frozenset({"q_proj", "v_proj"})),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("dimensions", [LLAMA_8B, QWEN3_4B, SHAPES["mistral7b"]], ids=["llama", "qwen3", "mistral"])
class TestShapeOfTheEstimate:
    """What has to hold for any recipe."""

    def test_components_add_up(self, dimensions: Dimensions, recipe: Recipe) -> None:
        found = estimate(dimensions, recipe)
        assert sum(found.components.values()) == found.allocated
        assert all(isinstance(value, int) and value >= 0 for value in found.components.values())

    @pytest.mark.parametrize("field", ["micro_batch", "sequence", "rank", "accumulation"])
    def test_more_never_takes_less(self, dimensions: Dimensions, recipe: Recipe, field: str) -> None:
        sizes = []
        for factor in (1, 2, 3, 4, 8):
            grown = {"accumulation": factor}.get(field, getattr(recipe, field) * factor // 2)
            found = estimate(dimensions, replace(recipe, **{field: grown}))
            # A higher rank moves whole optimizer states out of what torch counts, but not off the device.
            sizes.append(found.allocated + found.managed)
        assert sizes == sorted(sizes)

    def test_the_band_is_in_order_and_holds_everything(self, dimensions: Dimensions, recipe: Recipe) -> None:
        found = estimate(dimensions, recipe, DeviceFacts(context=MIB))
        assert found.allocated + MIB < found.process.low < found.process.point < found.process.high

    def test_fewer_checkpoints_take_more(self, dimensions: Dimensions, recipe: Recipe) -> None:
        sizes = [
            estimate(dimensions, replace(recipe, checkpointing="full")).allocated,
            estimate(dimensions, replace(recipe, checkpointing="every-2")).allocated,
            estimate(dimensions, replace(recipe, checkpointing="none")).allocated,
        ]
        assert sizes == sorted(sizes)


class TestPhases:
    """Peaks besides the training step's."""

    def test_evaluation_stays_below_training_on_the_fused_path(self) -> None:
        found = estimate(LLAMA_8B, FOUR)
        assert found.evaluation < found.allocated

    def test_the_verdict_counts_the_worst_phase(self) -> None:
        experts = replace(LLAMA_8B, unquantised_elements=32 * 500_000_000)
        short = replace(FOUR, micro_batch=1, sequence=64)
        found = estimate(experts, short)
        assert found.loading > found.allocated
        assert estimate(experts, short, DeviceFacts(free=found.process.high)).fits == "no"

    def test_the_cache_of_a_sample(self) -> None:
        short, long = (estimate(LLAMA_8B, replace(FOUR, sequence=length)).generation for length in (1024, 2048))
        assert long - short >= 128 * MIB

    def test_loading_holds_the_weights_and_the_largest_matrix(self) -> None:
        found = estimate(LLAMA_8B, FOUR)
        weights = found.components["weights_4bit"] + found.components["embeddings_and_head"]
        assert weights + 2 * 4096 * 14_336 < found.loading < weights + 3 * 4096 * 14_336


class TestVerdict:
    """Against free memory."""

    def test_steps(self) -> None:
        band = estimate(LLAMA_8B, FOUR).process
        expected = {None: "unknown", band.high: "yes", band.high - 1: "tight", band.low: "tight", band.low - 1: "no"}
        assert {free: estimate(LLAMA_8B, FOUR, DeviceFacts(free=free)).fits for free in expected} == expected

    def test_managed_states_count(self) -> None:
        paged, plain = (
            estimate(LLAMA_8B, replace(FOUR, rank=64, optimizer=optimizer))
            for optimizer in ("paged_adamw_8bit", "adamw_8bit")
        )
        assert paged.allocated < plain.allocated
        assert paged.managed > 0 == plain.managed
        assert paged.allocated + paged.managed == plain.allocated

    def test_rough_knowledge_widens_the_band(self) -> None:
        rough = estimate(replace(LLAMA_8B, knowledge="rough"), FOUR).process
        sure = estimate(LLAMA_8B, FOUR).process
        assert rough.low < sure.low
        assert rough.point == sure.point
        assert rough.high > sure.high


class TestMasks:
    """When sdpa gets a mask, and what it adds."""

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, False),
            ({"padded": True}, True),
            ({"packed": True}, True),
            ({"packed": True, "attention": "varlen"}, False),
            ({"sequence": 4095}, False),
            ({"sequence": 4096}, True),
        ],
    )
    def test_when(self, change: dict[str, object], expected: bool) -> None:
        assert masked(SHAPES["mistral7b"], replace(FOUR, **change)) == expected  # type: ignore[arg-type]

    def test_packed_sdpa_grows_with_the_square_of_all_tokens(self) -> None:
        padded, packed = (estimate(LLAMA_8B, replace(FOUR, **{kind: True})).allocated for kind in ("padded", "packed"))  # type: ignore[arg-type]
        tables = 2 * (FOUR.tokens - FOUR.sequence) * LLAMA_8B.head_dim * 2
        assert packed - padded == 3 * (FOUR.tokens**2 - 4 * FOUR.sequence**2) + tables


class TestRepeatedHeads:
    """Cards whose only fused kernel takes as many heads of keys and values as of queries."""

    def test_they_cost_two_copies_in_every_layer_that_is_kept(self) -> None:
        kept = replace(FOUR, checkpointing="none")
        plain, repeated = (estimate(LLAMA_8B, replace(kept, repeats_heads=on)).allocated for on in (False, True))
        copies = 2 * 2 * FOUR.tokens * (LLAMA_8B.query_width - LLAMA_8B.key_width)
        assert repeated - plain == LLAMA_8B.layers * copies

    @pytest.mark.parametrize("attention", ["varlen", "eager"])
    def test_other_attention_is_not_touched(self, attention: str) -> None:
        plain, repeated = (
            estimate(LLAMA_8B, replace(FOUR, repeats_heads=on, attention=attention)).allocated  # type: ignore[arg-type]
            for on in (False, True)
        )
        assert plain == repeated

    def test_a_mask_repeats_them_on_every_card(self) -> None:
        padded = replace(FOUR, padded=True)
        assert estimate(LLAMA_8B, padded) == estimate(LLAMA_8B, replace(padded, repeats_heads=True))


class TestSpeed:
    """Seconds and tokens per second."""

    def test_rows_run_for_speed_are_within_a_fifth(self) -> None:
        assert {name: value for name, value in fit.speed_errors().items() if abs(value) > 0.2} == {}

    def test_the_order_is_right_where_the_difference_is_clear(self) -> None:
        assert [pair for pair in combinations(fit.timed_speeds(), 2) if fit.swapped(*pair)] == []

    def test_small_micro_batches_wait_for_the_host(self) -> None:
        small, large = (step_time(LLAMA_8B, replace(FOUR, micro_batch=n), H100_RATES) for n in (1, 8))
        assert small.total == small.host > small.device
        assert large.total > large.device > large.host

    def test_padding_is_not_counted(self) -> None:
        full = throughput(LLAMA_8B, FOUR, H100_RATES)
        half = throughput(LLAMA_8B, FOUR, H100_RATES, filled=0.5)
        assert half.point == pytest.approx(full.point / 2)
        assert full.low < full.point < full.high

    def test_short_packed_rows_cost_less_attention(self) -> None:
        recipe = replace(FOUR, packed=True, attention="varlen")
        short = step_time(LLAMA_8B, recipe, H100_RATES, row=PACKED_ROW)
        assert short.attention < step_time(LLAMA_8B, recipe, H100_RATES).attention
        assert short.matrices == step_time(LLAMA_8B, recipe, H100_RATES).matrices


LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}


class TestFromShape:
    """The adapter from a counted model."""

    def test_a_llama_is_what_it_was_measured_as(self) -> None:
        shape = shape_from_config(LLAMA_CONFIG)
        found = dimensions_of(shape)
        assert found == LLAMA_8B
        assert found.parameters == shape.parameters
        assert adapter_elements(found, FOUR) == shape.lora_parameters(FOUR.rank)

    def test_experts_stay_in_sixteen_bits(self) -> None:
        mixture = {**LLAMA_CONFIG, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
        shape = shape_from_config(mixture)
        found = dimensions_of(shape)
        assert found.knowledge == "rough"
        assert found.parameters == shape.parameters
        assert static_memory(found, FOUR).weights > 2 * shape.unquantised.experts


def test_one_estimate_takes_microseconds() -> None:
    """About 35 µs on an idle core; the bound leaves room for a busy one."""
    seconds = []
    for number in range(1000):
        recipe = replace(FOUR, micro_batch=1 + number % 8)
        begun = time.perf_counter()
        estimate(LLAMA_8B, recipe)
        seconds.append(time.perf_counter() - begun)
    assert statistics.median(seconds) < 3 * 100e-6


def test_the_peak_is_the_largest_moment() -> None:
    loss_bound = replace(FOUR, loss="full")
    assert peak_moment(LLAMA_8B, loss_bound, "measured").loss > 0
    assert peak_moment(LLAMA_8B, FOUR, "measured").layer_peak > 0
    assert estimate(LLAMA_8B, FOUR).allocated < 10 * GIB


class TestPadding:
    """Rows of a batch are as long as its longest."""

    def test_one_row_at_a_time_has_none(self) -> None:
        assert filled_share((10, 20, 400), 1) == pytest.approx(1.0)
        assert filled_share((), 8) == 1.0

    def test_it_is_what_random_batches_carry(self) -> None:
        lengths = [random.Random(number).randint(50, 2000) for number in range(400)]
        order = random.Random(0)
        batches = [[order.choice(lengths) for _ in range(4)] for _ in range(4000)]
        drawn = sum(map(sum, batches)) / sum(4 * max(batch) for batch in batches)
        assert filled_share(lengths, 4) == pytest.approx(drawn, rel=0.02)
