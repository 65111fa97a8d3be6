"""A prompt written as ``"{question}\\n{context}"``: plain column names in braces, nothing that is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from qlora_tui.errors import DataError
from qlora_tui.text import one_line


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Alternating literal text and column name (None after the last literal)."""

    parts: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it uses, in order, each once."""
        return tuple(dict.fromkeys(column for _, column in self.parts if column is not None))

    def fill(self, values: Mapping[str, Any]) -> str:
        """The prompt for one row; a missing or null column is empty, a list of texts has a line for each.

        Raises:
            TypeError: if a column holds an object or a list of other things; the message is a sentence.
        """
        return "".join(
            literal + (_text(column, values.get(column)) if column else "") for literal, column in self.parts
        )


def parse_prompt_template(template: str) -> PromptTemplate:
    """``template`` cut into its parts; ``{{`` and ``}}`` are literal braces.

    Raises:
        DataError: if a brace is not closed, a name is not plain, or there is no name at all.
    """
    try:
        fields = list(Formatter().parse(template))
    except ValueError as error:
        raise _unreadable(f"{one_line(str(error))}.") from error
    parts: list[tuple[str, str | None]] = []
    for literal, name, form, conversion in fields:
        if name is not None and (not name or form or conversion or any(mark in name for mark in ".[]")):
            raise _unreadable(f"{{{one_line(name, 60)}}} is not a plain column name.")
        parts.append((literal, name))
    if not any(name for _, name in parts):
        raise _unreadable("It names no column, so every prompt would be the same.")
    return PromptTemplate(tuple(parts))


def _unreadable(why: str) -> DataError:
    return DataError(
        "data.template cannot be used.", why, 'Write column names in braces, such as "{question}\\n{context}".'
    )


def _text(column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
        return "\n".join(map(str, value))
    raise TypeError(f"Column {column!r} holds {type(value).__name__} where text is needed.")
