"""What was measured on held-out rows, row by row, so that two measurements can be compared as pairs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from qlora_tui.engine.metrics import compare, compare_loss
from qlora_tui.runs.events import Comparison


@dataclass(frozen=True, slots=True)
class RowResult:
    """One held-out row: summed loss in nats over its ``tokens`` trained tokens, and its metrics by name."""

    number: int
    loss: float
    tokens: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """All rows of one measurement, in the order given, and how long it took."""

    rows: tuple[RowResult, ...]
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    @property
    def loss(self) -> float:
        """Mean over trained tokens, in nats."""
        return sum(row.loss for row in self.rows) / max(1, self.tokens)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0)) if math.isfinite(self.loss) else math.nan

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric over the rows."""
        names = self.rows[0].metrics if self.rows else {}
        return {name: sum(row.metrics[name] for row in self.rows) / len(self.rows) for name in names}

    def with_metric(self, name: str, values: list[float]) -> Measurement:
        """The same rows with one more metric each."""
        rows = tuple(
            RowResult(row.number, row.loss, row.tokens, {**row.metrics, name: value})
            for row, value in zip(self.rows, values, strict=True)
        )
        return Measurement(rows, self.seconds)

    def compared_with(self, after: Measurement, seed: int) -> dict[str, Comparison]:
        """Each metric before (this) and after on the same rows, the loss first if it is finite on both sides."""
        comparison = {}
        if math.isfinite(self.loss) and math.isfinite(after.loss):
            comparison["loss"] = compare_loss(
                [(row.loss, row.tokens) for row in self.rows], [(row.loss, row.tokens) for row in after.rows], seed
            )
        for name in self.metrics:
            if name in after.metrics:
                comparison[name] = compare(
                    [row.metrics[name] for row in self.rows], [row.metrics[name] for row in after.rows], seed
                )
        return comparison

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Measurement | None:
        """The measurement in a file, or None if there is none that can be read."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(tuple(RowResult(**row) for row in values["rows"]), float(values["seconds"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
