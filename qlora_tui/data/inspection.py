"""What an inspection finds out about the data of a run, as plain values for the terminal, the wizard and scripts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from qlora_tui.data.preview import Preview
from qlora_tui.data.report import TokenCounts

Severity = Literal["serious", "warning", "notice"]
"""How much a finding matters: it spoils the result or harms people; it probably costs quality; it is good to know."""

SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "notice")
QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)
"""Percentiles of row length that are told."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row that shows a finding: its number and a masked excerpt, on one line. ``part`` is the side it stands on."""

    row: int
    text: str = ""
    part: Literal["train", "evaluation"] = "train"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the rows that a person should know before training.

    ``rows`` counts the rows concerned. ``message`` says what is the case and ``advice`` what to do, a sentence each.
    """

    kind: str
    rows: int
    severity: Severity
    message: str
    advice: str
    examples: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows by length in tokens: ``counts[i]`` rows have from ``edges[i]`` to below ``edges[i + 1]`` tokens.

    If there are as many edges as counts, the last count has no upper edge. ``cut`` is ``data.max_length``.
    """

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    cut: int


@dataclass(frozen=True, slots=True)
class Licences:
    """The licences that meet in the adapter, as their cards name them; None where a card names none."""

    data: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Glance:
    """What is known after a look at the first rows only."""

    format: str
    columns: dict[str, str]
    reason: str
    preview: Preview


@dataclass(frozen=True, slots=True)
class Inspection:
    """The whole account of a data set.

    Attributes:
        reason: How the format was recognised, one sentence.
        rows: Rows read; ``kept`` of them are trained on, the others are in ``dropped`` by reason.
        first_dropped: Number of the first dropped row of each reason.
        quantiles: Row length in tokens by percentile (:data:`QUANTILES`), before any cut.
        untrained_rows: Rows without a token to learn.
        duplicates: Rows that repeat an earlier row exactly; ``near_duplicates`` those that do so almost.
        evaluation_rows: Rows of the separate evaluation data; None without one.
        eval_overlap: Of those, how many also stand among the training rows.
        special_rows: Numbers of the ``longest`` and the ``shortest`` kept row.
        redacted: Private values replaced, by kind; empty unless the config asks for it.
        seconds: What the inspection took; ``cached`` says that it was remembered.
    """

    source: str
    format: str
    columns: dict[str, str]
    reason: str
    rows: int
    kept: int
    dropped: dict[str, int]
    first_dropped: dict[str, int]
    truncated: int
    tokens_lost: int
    tokens: TokenCounts
    quantiles: dict[int, int]
    histogram: Histogram
    untrained_rows: int
    end_of_turn_trained: bool
    duplicates: int
    near_duplicates: int
    evaluation_rows: int | None
    eval_overlap: int
    findings: tuple[Finding, ...]
    licences: Licences
    special_rows: dict[str, int]
    redacted: dict[str, int] = field(default_factory=dict)
    samples: tuple[Preview, ...] = ()
    seconds: float = 0.0
    cached: bool = False

    def contract(self) -> dict[str, Any]:
        """The object that ``inspect --json`` writes; its keys are a promise."""
        return {
            "format": self.format,
            "columns": self.columns,
            "rows": self.rows,
            "kept": self.kept,
            "dropped": self.dropped,
            "truncated": self.truncated,
            "tokens": asdict(self.tokens),
            "untrained_rows": self.untrained_rows,
            "end_of_turn_trained": self.end_of_turn_trained,
            "duplicates": self.duplicates,
            "eval_overlap": self.eval_overlap,
            "findings": [asdict(each) for each in self.findings],
            "samples": [asdict(each) for each in self.samples],
        }


Value = TypeVar("Value", Inspection, Glance, Preview)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def to_json(value: Inspection | Glance | Preview) -> str:
    """The value as one line of ASCII, whatever its texts hold; half of a surrogate pair becomes a question mark."""
    text = json.dumps(asdict(value), ensure_ascii=False).encode("utf-8", "replace")
    return json.dumps(json.loads(text))


def from_json(kind: type[Value], text: str | bytes) -> Value:
    """What :func:`to_json` wrote.

    Raises:
        ValueError: if it is something else.
    """
    return from_values(kind, json.loads(text))


def from_values(kind: type[Value], values: Any) -> Value:
    """The same from values that are parsed already.

    Raises:
        ValueError: if they do not describe one.
    """
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    found: Value = _ADAPTERS[kind].validate_python(values)
    return found
