"""The first rows of data column by column: what each holds, and which roles its name suggests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

from qlora_tui.data.messages import SPEAKER_KEYS, is_exchange, is_from_value, is_message
from qlora_tui.data.source import RawRow
from qlora_tui.text import one_line

Kind = Literal[
    "empty", "text", "number", "boolean", "message", "messages", "from-value", "json-messages", "request", "segments",
    "pairs", "numbers", "texts", "list", "object",
]  # fmt: skip
CONVERSATIONS: tuple[Kind, ...] = ("messages", "from-value", "json-messages")

NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversation", "conversations", "dialog", "dialogue", "chat", "turns", "message"),
    "conversations": ("conversations", "conversation", "messages", "dialog", "dialogue", "chat", "turns"),
    "prompt": ("prompt", "question", "query", "instruction", "input", "problem", "user", "human", "request"),
    "completion": ("completion", "response", "answer", "output", "target", "reply", "assistant", "generation"),
    "instruction": ("instruction", "instructions"),
    "input": ("input", "inputs", "context"),
    "output": ("output", "outputs", "response", "completion", "answer"),
    "chosen": ("chosen", "chosen_response", "preferred_output", "preferred", "accepted"),
    "rejected": ("rejected", "rejected_response", "non_preferred_output", "dispreferred"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "template_values": ("chat_template_kwargs",),
    "label": ("label", "kto_tag"),
    "reasoning": ("reasoning_content", "reasoning"),
    "text": ("text",),
    "segments": ("segments",),
    "input_ids": ("input_ids",),
    "labels": ("labels",),
    "mask": ("assistant_masks", "completion_mask", "assistant_mask"),
    "attention_mask": ("attention_mask",),
}
"""What columns of each role are called in published data, in lower case; the likeliest first."""

_LONGEST_JSON = 1 << 20
"""Characters of a text that are parsed to see whether it is a list of messages."""


class Table:
    """The first rows of data."""

    def __init__(self, rows: Sequence[RawRow]) -> None:
        self.rows = rows
        self.columns = list(dict.fromkeys(column for row in rows for column in row.values))
        self._by_name: dict[str, str] = {}
        for column in self.columns:
            self._by_name.setdefault(column.strip().lower(), column)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What each column holds."""
        return {column: kind_of(row.values.get(column) for row in self.rows) for column in self.columns}

    def named(self, name: str) -> str | None:
        """The column of that name, whatever its case."""
        return self._by_name.get(name)

    def playing(self, role: str, *kinds: Kind) -> str | None:
        """The likeliest column for ``role`` by its name, of those that hold one of ``kinds`` (or anything)."""
        return next(iter(self.all_playing(role, *kinds)), None)

    def all_playing(self, role: str, *kinds: Kind) -> list[str]:
        """All columns that are called as those of ``role`` are, the likeliest first."""
        named = [column for name in NAMES[role] if (column := self.named(name)) is not None]
        return [column for column in named if not kinds or self.kinds[column] in kinds]

    def of_kind(self, *kinds: Kind) -> list[str]:
        """The columns that hold one of ``kinds``."""
        return [column for column, kind in self.kinds.items() if kind in kinds]

    def among(self, names: frozenset[str], besides: Iterable[str]) -> list[str]:
        """The columns called one of ``names`` that hold something, without those ``besides``."""
        left_out = set(besides)
        return [
            column
            for column in self.columns
            if column not in left_out and column.strip().lower() in names and self.kinds[column] != "empty"
        ]

    def values(self, column: str) -> list[Any]:
        """The values of a column that are there."""
        return [value for row in self.rows if not _is_empty(value := row.values.get(column))]

    def goes_along(self, role: str, column: str) -> bool:
        """Whether an optional role takes a column without being told to."""
        kind = self.kinds[column]
        if role == "label":
            return is_flag(self.values(column))
        if role in ("reasoning", "labels"):
            return column.strip().lower() in ("reasoning_content", "labels")
        if role in ("system", "history"):
            return kind == {"system": "text", "history": "pairs"}[role]
        return role not in ("prompt", "rejected") or kind != "empty"


def kind_of(values: Iterable[Any]) -> Kind:
    """What most of the values are that are there."""
    kinds = Counter(_kind(value) for value in values if not _is_empty(value))
    return kinds.most_common(1)[0][0] if kinds else "empty"


def is_flag(values: Sequence[Any]) -> bool:
    """Whether all values say yes or no."""
    return bool(values) and all(as_flag(value) is not None for value in values)


def as_flag(value: object) -> bool | None:
    """``value`` as yes or no; None if it is neither."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in quotes, at most so many of them."""
    names = list(names)
    shown = [f'"{one_line(name, 60)}"' for name in names[:most]]
    if len(names) > most:
        shown.append(f"and {len(names) - most} more")
    return ", ".join(shown) or "none"


def _is_empty(value: object) -> bool:
    """Whether nothing is there; a number that is not equal to itself is how tables say so."""
    return value is None or value == "" or value == [] or value != value


def _kind(value: Any) -> Kind:
    if isinstance(value, str):
        return "json-messages" if _is_json_messages(value) else "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, dict):
        if is_message(value):
            return "message"
        return "request" if isinstance(value.get("messages"), list) else "object"
    return _kind_of_list(value) if isinstance(value, list) else "object"


def _kind_of_list(value: list[Any]) -> Kind:
    first = value[0]
    if is_from_value(first):
        return "from-value"
    if is_message(first) or is_exchange(first):
        return "messages"
    if isinstance(first, dict) and {"label", "text"} <= set(first):
        return "segments"
    if isinstance(first, str):
        return "texts"
    if isinstance(first, int) and not isinstance(first, bool):
        return "numbers"
    return "pairs" if isinstance(first, list) and len(first) == 2 and isinstance(first[0], str) else "list"


def _is_json_messages(text: str) -> bool:
    if not text.startswith("[{") or len(text) > _LONGEST_JSON or not any(f'"{key}"' in text for key in SPEAKER_KEYS):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(value) and is_message(value[0])
