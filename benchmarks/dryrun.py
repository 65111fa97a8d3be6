"""The closed form against a step run dry: every family and recipe, plain, with layer kernels, and with fused adapters.

    python -m benchmarks.dryrun [WORD]

With a word, only the cells whose family or recipe holds it, and nothing is published.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final

from benchmarks.dryrun_cells import FAMILIES, LAYERS, RECIPES, Cell, cells
from benchmarks.tables import RESULTS, publish, table

Traced = Mapping[str, Mapping[str, int]]
"""Allocated bytes by family and recipe."""

LIMIT: Final = 0.01
"""Of what the dry run allocates."""


@cache
def recorded() -> Traced:
    """What the dry run found when this was last run, for :data:`~benchmarks.dryrun_cells.LAYERS` layers."""
    found: Traced = json.loads((RESULTS / "dryrun.json").read_text(encoding="utf-8"))
    return found


def error(cell: Cell, traced: Traced) -> float:
    """How far the closed form is from the dry run, as a share of it."""
    return cell.estimated / traced[cell.family][cell.name] - 1


def errors(traced: Traced) -> dict[str, dict[str, float]]:
    """By family and recipe."""
    found: dict[str, dict[str, float]] = {family: {} for family in FAMILIES}
    for cell in cells():
        found[cell.family][cell.name] = error(cell, traced)
    return found


def main(word: str | None = None) -> None:
    """Trace the cells, print each, and publish what came out."""
    traced: dict[str, dict[str, int]] = {family: {} for family in FAMILIES}
    for cell in cells():
        if word is None or word in cell.family or word in cell.name:
            traced[cell.family][cell.name] = cell.traced()
            print(f"{error(cell, traced):+8.3%}  {cell.family}: {cell.name}", flush=True)
    if word is None:
        publish("dryrun", *_parts(errors(traced)), raw=traced)


def _parts(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    everything = [each for by_recipe in found.values() for each in by_recipe.values()]
    header = ["family", "recipes", "mean", "worst", "worst at", "layer kernels: mean", "worst"]
    rows = [_row(family, by_recipe) for family, by_recipe in found.items()]
    return [
        f"{len(everything)} steps of {LAYERS} layers of full width. Allocated at the peak: "
        f"mean error {_mean(everything):.3%}, worst {_worst(everything):.3%}.",
        table(header, rows),
        "Recipes: " + "; ".join(RECIPES) + ".",
    ]


def _row(family: str, by_recipe: Mapping[str, float]) -> list[object]:
    plain = {name: value for name, value in by_recipe.items() if ", liger" not in name}
    fused = [value for name, value in by_recipe.items() if name not in plain]
    worst = max(plain, key=lambda name: abs(plain[name]))
    own = [f"{_mean(fused):.3%}", f"{_worst(fused):.3%}"] if fused else ["none for it", ""]
    return [family, len(by_recipe), f"{_mean(plain.values()):.3%}", f"{_worst(plain.values()):.3%}", worst, *own]


def _mean(values: Iterable[float]) -> float:
    return statistics.mean(map(abs, values))


def _worst(values: Iterable[float]) -> float:
    return max(map(abs, values))


if __name__ == "__main__":
    main(*sys.argv[1:2])
