"""The estimate against runs that others measured on another card, in another regime, without growing segments."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from benchmarks.base_models import dimensions_of_model
from benchmarks.fit import error, inside
from benchmarks.measured_runs import SHAPES, h100_runs, read
from benchmarks.third_party import T4_CONTEXT, T4Run, archive, quality_a, stated
from qlora_tui.memory.estimate import DeviceFacts, Recipe, estimate
from qlora_tui.memory.recipe import GIB, PREPARED

FOUR = Recipe(micro_batch=4, sequence=2048)


class TestCompleteRows:
    """Rows of quality A: everything that decides memory is stated."""

    def test_allocated(self) -> None:
        errors = [abs(error(run.estimate.allocated, run.allocated)) for run in quality_a()]
        assert len(errors) == 15
        assert statistics.fmean(errors) <= 0.01
        assert max(errors) <= 0.03

    @pytest.mark.parametrize("run", quality_a(), ids=lambda run: run.id)
    def test_the_process_lies_in_a_narrow_band(self, run: T4Run) -> None:
        band = run.estimate.shown
        assert inside(run)
        assert (band.high - band.low) / band.point <= 0.15

    def test_growing_segments_would_not_explain_them(self) -> None:
        """So the bound above tests the model of the segments."""
        missed = []
        for run in quality_a():
            device = DeviceFacts(context=T4_CONTEXT)
            band = estimate(dimensions_of_model(run.model), run.recipe, device).shown
            missed += [] if band.low <= run.process <= band.high else [run.id]
        assert len(missed) > 5


class TestTheRestOfTheirArchive:
    """More models, lengths and batches on the same card; what segments keep was fitted on these."""

    def test_allocated(self) -> None:
        errors = [abs(error(run.estimate.allocated, run.allocated)) for run in archive()]
        assert statistics.fmean(errors) <= 0.005
        assert max(errors) <= 0.02

    def test_the_process_lies_in_the_band_but_for_two(self) -> None:
        assert [run.id for run in archive() if not inside(run)] == ["t4-15", "t4-34"]


class TestOtherRows:
    """Nothing is dropped."""

    def test_every_row_is_used(self) -> None:
        rows = read("measured_memory.csv")
        used = [run.id for run in quality_a()] + [one.row["id"] for one in stated()]
        assert sorted(used) == sorted(row["id"] for row in rows)
        assert len(archive()) == len(read("measured_t4.csv"))

    def test_every_incomplete_row_has_an_estimate_or_says_why_not(self) -> None:
        without = [one for one in stated() if one.estimated is None and one.fits is None]
        assert [one.row["id"] for one in without] == ["m208"]
        assert without[0].differs


class TestSegments:
    """What segments of fixed size keep."""

    def test_they_need_and_keep_more(self) -> None:
        growing, fixed = (
            estimate(SHAPES["llama8b"], FOUR, DeviceFacts(expandable_segments=on)) for on in (True, False)
        )
        assert growing.allocated == fixed.allocated
        assert growing.process.low < fixed.process.low
        assert growing.process.high < fixed.process.high
        assert growing.shown.point < fixed.shown.point

    def test_the_need_is_never_wider_than_a_seventh(self) -> None:
        band = estimate(SHAPES["llama8b"], FOUR, DeviceFacts(context=0, expandable_segments=False)).process
        assert (band.high - band.low) / band.point <= 0.15

    def test_tables_cast_after_loading_leave_a_gap(self) -> None:
        """Qwen2.5 7B's is 1.8 times its logits at 1,024 tokens: they fit in once, and the rest stays unused."""
        kept = []
        for regime in (PREPARED, replace(PREPARED, embedding=2)):
            recipe = Recipe(micro_batch=1, sequence=1024, loss="full_kept", regime=regime)
            found = estimate(SHAPES["qwen25_7b"], recipe, DeviceFacts(context=0, expandable_segments=False))
            kept.append(found.shown.point - found.allocated)
        assert kept[0] > kept[1]

    def test_no_more_is_shown_than_there_is(self) -> None:
        found = estimate(SHAPES["llama8b"], FOUR, DeviceFacts(free=10 * GIB, context=0, expandable_segments=False))
        assert found.shown.point == max(10 * GIB, found.allocated)

    def test_the_h100_rows_lie_in_their_band(self) -> None:
        for run in h100_runs():
            if run.process is not None:
                band = estimate(run.dimensions, run.recipe, run.device).shown
                assert band.low <= run.process <= band.high, run.name
