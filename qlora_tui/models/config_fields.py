"""The fields of a ``config.json``, with the defaults of its family and a check on each value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.text import one_line

# Far above any published model, so that what is refused is a mistake and not a record.
SIZE_LIMIT = 2**22
LAYER_LIMIT = 4096
_POSITION_LIMIT = 2**40


class Fields:
    """Checked reading of one configuration; a field that it lacks has the family's default."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._config = config
        self._defaults = defaults

    def has(self, name: str) -> bool:
        """Whether the configuration itself holds a value under this name."""
        return self._config.get(name) is not None

    def value(self, name: str) -> Any:
        """The value as it stands, or the default; an explicit null is None."""
        return self._config[name] if name in self._config else self._defaults.get(name)

    def size(self, name: str, *, minimum: int = 1, limit: int = SIZE_LIMIT) -> int:
        """A whole number that has to be there.

        Raises:
            ModelError: if it is missing, no whole number, or out of range.
        """
        value = self._config.get(name)
        if value is None:
            value = self._defaults.get(name)
        if value is None:
            raise refused(f"It lacks {name}.")
        return _whole(name, value, minimum, limit)

    def optional_size(self, name: str) -> int | None:
        """A whole number, or None where the configuration (or the default) says null.

        Raises:
            ModelError: if it is no whole number from 1 up.
        """
        value = self.value(name)
        return None if value is None else _whole(name, value, 1, _POSITION_LIMIT)

    def positions(self) -> int:
        """The longest context the model was made for."""
        return self.size("max_position_embeddings", limit=_POSITION_LIMIT)

    def flag(self, name: str) -> bool:
        """A yes or no; null is the default.

        Raises:
            ModelError: if it is anything else.
        """
        value = self._config.get(name)
        if value is None:
            value = self._defaults.get(name, False)
        if not isinstance(value, bool):
            raise refused(f"{name} is {_shown(value)} where true or false is expected.")
        return value

    def number(self, name: str, *, maximum: float = math.inf) -> float | None:
        """A number from 0 up, or None for null.

        Raises:
            ModelError: if it is no number or out of range.
        """
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
            raise refused(f"{name} is {_shown(value)}, which is no number it can be.")
        return float(value)

    def share(self, name: str) -> float:
        """A share from 0 to 1; null is 0."""
        return self.number(name, maximum=1) or 0.0

    def text(self, name: str) -> str:
        """A word; null is the default."""
        value = self._config.get(name) or self._defaults.get(name, "")
        if not isinstance(value, str):
            raise refused(f"{name} is {_shown(value)} where a word is expected.")
        return value

    def items(self, name: str, count: int) -> list[Any] | None:
        """A list with one item per layer, or None.

        Raises:
            ModelError: if it is no list or has another length.
        """
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            length = f"a list of {len(value)}" if isinstance(value, list) else _shown(value)
            raise refused(f"{name} is {length}, but there are {count} layers.")
        return value


def _whole(name: str, value: Any, minimum: int, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= limit:
        raise refused(f"{name} is {_shown(value)}; it has to be a whole number from {minimum} to {limit}.")
    return value


def _shown(value: Any) -> str:
    return one_line(repr(value), 60)


def refused(why: str) -> ModelError:
    """The error for a configuration that contradicts itself or cannot be read; ``why`` is its second sentence."""
    return ModelError(
        "This config.json describes no model that can be built.",
        why,
        "Copy or download config.json again; if it was edited by hand, undo that.",
    )
