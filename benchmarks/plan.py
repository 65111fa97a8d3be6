"""What the plan chooses, how long it takes for every model on every card, and how it stands to measured speeds.

python -m benchmarks.plan
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.measured_runs import H100_RATES, PACKED_ROW, Measured, h100_runs
from benchmarks.tables import publish, table
from qlora_tui.cards import CARDS, Card
from qlora_tui.config import RunConfig
from qlora_tui.memory.device import Device, device_like
from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.fit import Fit, Rows, fit_of
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.recipe import GIB
from qlora_tui.models.catalog import CatalogEntry, catalog, find_model

_SHOWN_MODELS: Final = ("Qwen3-0.6B", "Llama-3.2-3B-Instruct", "Llama-3.1-8B-Instruct", "Qwen3-14B", "Qwen3-32B")
_SHOWN_CARDS: Final = ("RTX 3060", "RTX 4060 Ti 16GB", "RTX 4090", "A100 80GB SXM4", "H100 SXM5")
_BUDGETS: Final = (8, 12, 16, 24, 48, 80)
"""Free memory in GiB at which the plan is compared with what was measured."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Every model of the catalog on every card: verdicts, and seconds of each plan and of each estimate."""

    verdicts: Counter[str]
    plans: list[float]
    estimates: list[float]


def recipe(length: int, effective_batch: int = 16, rank: int = 16) -> RunConfig:
    """A config with everything open that the plan decides."""
    return RunConfig.model_validate(
        {
            "name": "x",
            "adapter": {"rank": rank},
            "data": {"source": "rows.jsonl", "max_length": length, "packing": True},
            "training": {"effective_batch": effective_batch},
        }
    )


def answers() -> Answers:
    """Ask for every pair, with rows of 2,048 tokens and all there is to choose."""
    config = recipe(2048)
    verdicts: Counter[str] = Counter()
    plans, estimates = [], []
    for entry, card in _pairs():
        device, shape = device_like(card), entry.shape()
        begun = time.perf_counter()
        fit = fit_of(shape, config, device)
        plans.append(time.perf_counter() - begun)
        verdicts[fit.fits] += 1
        dimensions = dimensions_of(shape)
        begun = time.perf_counter()
        estimate(dimensions, fit.recipe, device.facts)
        estimates.append(time.perf_counter() - begun)
    return Answers(verdicts, plans, estimates)


def _pairs() -> Iterator[tuple[CatalogEntry, Card]]:
    return ((entry, card) for entry in catalog() for card in CARDS)


def fitting(budget: int) -> list[Measured]:
    """The measured 8B runs of packed rows with variable-length attention that ran within so many GiB."""
    return [
        run
        for run in h100_runs()
        if run.timed
        and run.seconds is not None
        and run.process is not None
        and run.recipe.attention == "varlen"
        and run.recipe.quantization == "nf4"
        and run.process <= budget * GIB
    ]


def planned(budget: int) -> Fit:
    """The plan for the recipe of those runs with so many GiB free."""
    device = Device("H100", total=80 * GIB, free=budget * GIB, capability=(9, 0), rates=H100_RATES)
    shape = find_model("Llama-3.1-8B-Instruct").shape()
    return fit_of(shape, recipe(2048, effective_batch=8, rank=64), device, Rows(packed=True, row=PACKED_ROW))


def measured_speed(fit: Fit) -> float | None:
    """What was measured with just these settings, tokens/s; None if nothing was."""
    speeds = [
        run.tokens / run.seconds
        for run in h100_runs()
        if run.timed and run.tokens and run.seconds and run.recipe == fit.recipe
    ]
    return max(speeds, default=None)


def _budget_table() -> str:
    rows = []
    for budget in _BUDGETS:
        fit = planned(budget)
        best = max((run.tokens / run.seconds for run in fitting(budget) if run.tokens and run.seconds), default=None)
        own = measured_speed(fit)
        assert fit.speed is not None
        rows.append(
            (
                f"{budget} GiB",
                f"{fit.recipe.micro_batch} × {fit.recipe.checkpointing}",
                f"{fit.process.high / GIB:.1f} GiB, {fit.fits}",
                f"{fit.speed.tokens_per_second.point:,.0f}",
                "–" if own is None else f"{own:,.0f}",
                "–" if best is None else f"{best:,.0f}",
            )
        )
    header = ("free", "plan", "needs", "tokens/s predicted", "measured with these settings", "best measured that fits")
    return table(header, rows)


def _choice_table() -> str:
    config, rows = recipe(2048), []
    for name in _SHOWN_MODELS:
        cells = [name]
        for card in (next(card for card in CARDS if card.name == wanted) for wanted in _SHOWN_CARDS):
            fit = fit_of(find_model(name).shape(), config, device_like(card), Rows(packed=True, row=PACKED_ROW))
            chosen = f"{fit.recipe.micro_batch} × {fit.recipe.checkpointing}"
            speed = "" if fit.speed is None else f", {fit.speed.tokens_per_second.point:,.0f}"
            cells.append(f"{chosen}{speed}" if fit.fits == "yes" else f"{fit.fits}: {fit.process.high / GIB:.0f} GiB")
        rows.append(cells)
    return table(("model", *_SHOWN_CARDS), rows)


def main() -> None:
    """Measure and publish; torch must not have been needed."""
    found = answers()
    assert "torch" not in sys.modules
    verdicts = ", ".join(f"{name} {count:,}" for name, count in sorted(found.verdicts.items()))
    lines = (
        f"- **Model and card pairs**: {len(found.plans):,} = {len(catalog())} × {len(CARDS)} planned and answered "
        f"({verdicts}), without torch.",
        f"- **A whole plan**, with the largest batch and length: median {1e3 * statistics.median(found.plans):.2f} ms, "
        f"99 of 100 within {1e3 * statistics.quantiles(found.plans, n=100)[98]:.1f} ms.",
        f"- **One estimate**: median {1e6 * statistics.median(found.estimates):.0f} µs, "
        f"99 of 100 within {1e6 * statistics.quantiles(found.estimates, n=100)[98]:.0f} µs.",
    )
    budgets = "Llama 3.1 8B on an H100, rank 64, 8 packed rows of 2,048 tokens an update:\n\n" + _budget_table()
    choices = "Rank 16, 16 packed rows of 2,048 tokens an update; micro-batch × checkpointing, tokens/s:\n\n"
    publish("plan", "\n".join(lines), budgets, choices + _choice_table())


if __name__ == "__main__":
    main()
