"""The stations of the journey, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Station:
    """One step of the rail."""

    number: int
    name: str
    title: str
    needs_run: bool = False


STATIONS: Final = (
    Station(1, "hardware", "Hardware"),
    Station(2, "model", "Model"),
    Station(3, "data", "Data"),
    Station(4, "recipe", "Recipe"),
    Station(5, "review", "Review"),
    Station(6, "train", "Train", needs_run=True),
    Station(7, "chat", "Chat", needs_run=True),
    Station(8, "ship", "Ship", needs_run=True),
)
LAST_QUESTION: Final = 5
"""Number of the last step that asks."""


def station(number: int) -> Station:
    """The station of that number."""
    return STATIONS[number - 1]
