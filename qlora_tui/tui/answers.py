"""What has been answered so far: a recipe, and which parts of it a person has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import ValidationError

from qlora_tui.advice.presets import PRESETS, PresetName
from qlora_tui.config import DataSection, RunConfig
from qlora_tui.text import one_line

NO_DATA: Final = "(nothing chosen yet)"
FIRST_NAME: Final = "my-run"


def first_recipe() -> RunConfig:
    """The recipe before anything is answered."""
    return RunConfig(name=FIRST_NAME, data=DataSection(source=NO_DATA))


@dataclass(frozen=True, slots=True)
class Answers:
    """Everything that has been answered; immutable, each answer makes a new one."""

    config: RunConfig = field(default_factory=first_recipe)
    model_chosen: bool = False
    licence_accepted: str | None = None
    """The model whose licence was accepted."""
    card: str | None = None
    """The card to plan for, if not one of this machine."""
    gpu: int = 0
    name_chosen: bool = False
    """Whether the run's name was typed; else it follows the data."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """What was typed into fields that cannot take it, by path; the recipe keeps the last usable value."""
    step: int = 1

    @property
    def data_chosen(self) -> bool:
        return self.config.data.source != NO_DATA

    @property
    def begun(self) -> bool:
        """Whether there is anything to lose."""
        return self.model_chosen or self.data_chosen or self.config != first_recipe()

    def value(self, path: str) -> Any:
        """The recipe's value at a dotted path."""
        return value_at(self.config, path)

    def with_value(self, path: str, value: Any) -> Answers:
        """With one field changed.

        Raises:
            ValidationError: if the recipe does not allow it.
        """
        unusable = {key: text for key, text in self.unusable.items() if key != path}
        return replace(self, config=with_values(self.config, {path: value}), unusable=unusable)

    def with_unusable(self, path: str, text: str) -> Answers:
        """With a text that a field cannot take."""
        return replace(self, unusable={**self.unusable, path: text})

    def with_preset(self, name: PresetName) -> Answers:
        """With the fields of a preset."""
        preset = next(preset for preset in PRESETS if preset.name == name)
        unusable = {key: text for key, text in self.unusable.items() if key not in preset.values}
        values = {**preset.values, "training.micro_batch": "auto"}
        return replace(self, config=with_values(self.config, values), unusable=unusable)


def value_at(config: RunConfig, path: str) -> Any:
    """The value at a dotted path such as ``data.evaluation.fraction``."""
    found: Any = config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """``config`` with values at dotted paths replaced, validated as a whole.

    Raises:
        ValidationError: if they are not allowed.
    """
    sections = config.model_dump()
    for path, value in values.items():
        *folders, name = path.split(".")
        inner = sections
        for folder in folders:
            inner = inner[folder]
        inner[name] = value
    return RunConfig.model_validate(sections)


def problem_of(error: ValidationError) -> str:
    """The first complaint of a validation, as one short line."""
    first = error.errors(include_url=False)[0]
    reason = first.get("ctx", {}).get("error") or first["msg"]
    return one_line(str(reason), 160)
