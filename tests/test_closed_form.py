"""The closed form against steps run dry, and against runs that were measured on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from benchmarks.dryrun import LIMIT, errors, recorded
from benchmarks.dryrun_cells import FAMILIES, Cell, cells
from qlora_tui.memory.families import BUILDS
from qlora_tui.memory.kernels import liger_possible
from qlora_tui.models.shape import shape_from_config


@cache
def found() -> Mapping[str, Mapping[str, float]]:
    """By family and recipe, how far the closed form is off."""
    return errors(recorded())


class TestAgainstTheDryRun:
    """Every family, every kind of recipe, as ``make bench-dryrun`` last recorded it."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_allocated(self, family: str) -> None:
        too_far = {name: f"{value:+.2%}" for name, value in found()[family].items() if abs(value) > LIMIT}
        assert not too_far

    @pytest.mark.parametrize("family", FAMILIES)
    def test_at_least_eight_recipes_with_and_without_layer_kernels(self, family: str) -> None:
        fused = [name for name in found()[family] if name.endswith(", liger")]
        assert len(found()[family]) - len(fused) >= 8
        shape = shape_from_config({**FAMILIES[family], "num_hidden_layers": 2})
        assert (len(fused) >= 8) == liger_possible(shape)

    def test_every_family_that_the_estimate_knows(self) -> None:
        assert {config["model_type"] for config in FAMILIES.values()} == set(BUILDS)

    @staticmethod
    def sample() -> Iterator[Cell]:
        """Two cells of each family, other ones for each."""
        by_family: dict[str, list[Cell]] = {}
        for cell in cells():
            by_family.setdefault(cell.family, []).append(cell)
        for number, group in enumerate(by_family.values()):
            yield group[(5 * number) % len(group)]
            yield group[(5 * number + 8) % len(group)]

    @pytest.mark.full
    def test_what_was_recorded_is_what_the_libraries_do(self, caplog: pytest.LogCaptureFixture) -> None:
        # A captured warning with its traceback would keep the tensors of the frames in it.
        caplog.set_level(logging.ERROR)
        for cell in self.sample():
            expected = recorded()[cell.family][cell.name]
            assert cell.traced() == pytest.approx(expected, rel=0.001), f"{cell.family}: {cell.name}"


class TestAgainstMeasuredRuns:
    """The engine's own runs on an H100, as ``make bench-gpu`` recorded them."""

    def test_allocated(self) -> None:
        from benchmarks.gpu import results
        from benchmarks.gpu_tables import estimate_today

        measured = {line["case"]: line for line in results("memory") if "allocated" in line}
        assert len(measured) >= 31
        for name, values in measured.items():
            assert estimate_today(name, values)["allocated"] == pytest.approx(values["allocated"], rel=0.005), name
