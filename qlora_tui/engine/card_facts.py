"""What a model card is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qlora_tui.config import RunConfig
from qlora_tui.engine.lock import Lock
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.events import Comparison


@dataclass(frozen=True, slots=True)
class DataFacts:
    """How much was learnt from and measured on; ``tokens`` and ``trained_tokens`` are those of the training rows."""

    training_rows: int
    tokens: int
    trained_tokens: int
    evaluation_rows: int
    selection_is_test: bool = False
    """Whether the rows that chose the best adapter also measured it."""
    redacted: Mapping[str, int] = field(default_factory=dict)
    """Private values that were replaced, by kind."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is made of."""

    config: RunConfig
    """With every ``auto`` replaced by the choice made."""
    model: ModelFiles
    lock: Lock
    data: DataFacts
    comparison: Mapping[str, Comparison]
    prompt: str
    """A user's message that is fit to be public; the snippet asks it."""
    rendered_prompt: str
    """The same message, and the config's system prompt, through the training template with an answer opened."""
    end_of_turn: str | None
    """The token that ends an answer, as text."""
    steps: int | None = None
    best_step: int | None = None
    adapter: str = "."
    """What the snippet loads: the card's own folder, or the adapter's name on the hub."""
