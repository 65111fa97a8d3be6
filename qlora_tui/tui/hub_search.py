"""Looking for models on the hub from the model step: what was asked, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qlora_tui.text import one_line
from qlora_tui.tui.base_models import BaseModel

SEARCH: Final = "hub:search"
"""The id of the line that asks the hub; no model can be called so."""
_SHORTEST: Final = 2


@dataclass(frozen=True, slots=True)
class HubSearch:
    """The last question to the hub."""

    words: str = ""
    found: tuple[BaseModel, ...] | None = None
    """None while the hub is asked, or if it could not be."""
    problem: str = ""

    def answers(self, typed: str) -> tuple[BaseModel, ...]:
        """What the hub has for the words that are typed, if they were asked for."""
        return self.found or () if typed.strip() == self.words else ()

    def line(self, typed: str) -> str:
        """The line that asks the hub, or tells what became of it; empty where there is nothing to ask."""
        words = typed.strip()
        if len(words) < _SHORTEST or words.startswith(("/", ".", "~")):
            return ""
        shown = one_line(words, 40)
        if words != self.words:
            return f"Search the hub for {shown}"
        if self.problem:
            return f"✗ {one_line(self.problem, 300)} Enter tries again."
        if self.found is None:
            return f"Asking the hub for {shown} …"
        return "" if self.found else f"The hub has no model for writing text that is called {shown}."
