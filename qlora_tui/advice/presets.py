"""Recipes to start from: what a light, a balanced and a thorough run differ in, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from qlora_tui.config import RunConfig

PresetName = Literal["light", "balanced", "thorough"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Values of some fields, by dotted path; every other field keeps what it has."""

    name: PresetName
    reason: str
    values: Mapping[str, Any]


def _preset(name: PresetName, reason: str, **values: Any) -> Preset:
    return Preset(name, reason, MappingProxyType({path.replace("__", "."): value for path, value in values.items()}))


PRESETS: Final = (
    _preset(
        "light",
        "A first look in little memory and time: one pass, a small adapter, rows cut early.",
        adapter__rank=8, data__max_length=512, training__epochs=1.0, training__effective_batch=8, evaluation__rows=100,
    ),
    _preset(
        "balanced",
        "What suits most tasks: rank 16, two passes, room for rows of a page.",
        adapter__rank=16, data__max_length=1024, training__epochs=2.0, training__effective_batch=8,
        evaluation__rows=200,
    ),
    _preset(
        "thorough",
        "For thousands of rows or new knowledge: a larger adapter, three passes, long rows, a steadier measure.",
        adapter__rank=32, data__max_length=2048, training__epochs=3.0, training__effective_batch=16,
        evaluation__rows=400,
    ),
)  # fmt: skip


def preset_of(config: RunConfig) -> PresetName | None:
    """The preset whose values a recipe has, if it has one's."""
    values = config.model_dump()
    return next((preset.name for preset in PRESETS if _agrees(values, preset)), None)


def _agrees(values: dict[str, Any], preset: Preset) -> bool:
    return all(values[path.split(".")[0]][path.split(".")[1]] == value for path, value in preset.values.items())
