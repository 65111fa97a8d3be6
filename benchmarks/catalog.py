"""Every catalog entry's parameters against transformers and against what is published, and every entry on every card.

python -m benchmarks.catalog
"""

from __future__ import annotations

import csv
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.measured_runs import DATA
from benchmarks.tables import publish, table
from qlora_tui.cards import CARDS
from qlora_tui.config import RunConfig
from qlora_tui.memory.device import device_like
from qlora_tui.memory.fit import fit_of
from qlora_tui.models.catalog import CatalogEntry, catalog


@dataclass(frozen=True, slots=True)
class Counted:
    """One entry's parameters: as the catalog counts them, as transformers builds them, as they were published."""

    id: str
    family: str
    catalog: int
    built: int
    published: int | None

    @property
    def difference(self) -> int:
        """The larger of the two differences, in parameters."""
        return max(abs(self.catalog - other) for other in (self.built, self.published) if other is not None)


def published_counts() -> dict[str, int]:
    """Parameters by id, as published."""
    with (DATA / "published_parameters.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: int(row["parameters"]) for row in csv.DictReader(file)}


def built(config: Mapping[str, Any]) -> int:
    """Parameters of the model that transformers builds from a config, on the meta device."""
    values = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **values, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        )
    return sum(parameter.numel() for parameter in model.parameters())


def counted() -> list[Counted]:
    """Every entry; models of one shape are built once."""
    published = published_counts()
    shapes: dict[str, int] = {}
    found = []
    for entry in catalog():
        key = repr(sorted(entry.config.items()))
        if key not in shapes:
            shapes[key] = built(entry.config)
        family = entry.config["model_type"]
        found.append(Counted(entry.id, family, entry.shape().parameters, shapes[key], published.get(entry.id)))
    return found


def answered() -> tuple[Counter[str], list[float]]:
    """Verdicts of every entry on every card with the default recipe, and the seconds that each took."""
    config = RunConfig.model_validate({"name": "x", "data": {"source": "rows.jsonl"}})
    verdicts: Counter[str] = Counter()
    seconds = []
    for entry in catalog():
        shape = entry.shape()
        for card in CARDS:
            begun = time.perf_counter()
            verdicts[fit_of(shape, config, device_like(card)).fits] += 1
            seconds.append(time.perf_counter() - begun)
    return verdicts, seconds


def _families(found: Sequence[Counted], entries: Sequence[CatalogEntry]) -> str:
    rows = []
    for family in sorted({one.family for one in found}):
        chosen = [one for one in found if one.family == family]
        sizes = sorted(entry.parameters / 1e9 for entry in entries if entry.config["model_type"] == family)
        checked = sum(one.published is not None for one in chosen)
        worst = max(one.difference for one in chosen)
        rows.append((family, len(chosen), f"{sizes[0]:.2f} to {sizes[-1]:.2f}", len(chosen), checked, worst))
    header = ("family", "entries", "10⁹ parameters", "against transformers", "against published", "worst difference")
    return table(header, rows)


def main() -> None:
    """Count everything, ask for every pair, publish both."""
    entries, found = catalog(), counted()
    verdicts, seconds = answered()
    exact = sum(one.difference == 0 for one in found)
    known = sum(count for verdict, count in verdicts.items() if verdict != "unknown")
    said = ", ".join(f"{verdict} {verdicts[verdict]:,}" for verdict in ("yes", "tight", "no"))
    lines = (
        f"- **Parameters**: {exact} of {len(found)} entries equal what transformers builds from their config and, "
        f"where the hub's total is published ({len(published_counts())} of them), that total too.",
        f"- **Model and card pairs**: {known:,} of {len(entries)} × {len(CARDS)} = {len(seconds):,} answered with the "
        f"default recipe ({said}); {1e3 * statistics.median(seconds):.1f} ms each, the slowest "
        f"{1e3 * max(seconds):.0f} ms.",
    )
    raw = [asdict(one) for one in found]
    publish("catalog", "\n".join(lines), _families(found, entries), raw=raw)


if __name__ == "__main__":
    main()
