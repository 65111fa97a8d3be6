"""Which format rows have, and a row of that format as turns.

:func:`detect` looks at the first rows once and explains itself in one sentence; :class:`RowMapper` then turns each row
into an :class:`Example` or raises :class:`RowProblem`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from qlora_tui.config import DataSection
from qlora_tui.data.prompt_template import parse_prompt_template
from qlora_tui.data.source import RawRow
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

Format = Literal["messages", "prompt-completion", "alpaca", "text"]
Role = Literal["system", "user", "assistant", "tool"]

ROLES: dict[Format, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "alpaca": ("instruction", "input", "output"),
    "text": ("text",),
}
"""The roles that columns play in each format."""

OPTIONAL_ROLES = frozenset({"input"})

_PAIRS = (
    ("prompt", "response"), ("prompt", "answer"), ("prompt", "output"), ("question", "answer"),
    ("question", "response"), ("query", "response"), ("query", "answer"), ("instruction", "completion"),
    ("instruction", "response"), ("instruction", "answer"), ("input", "output"), ("input", "target"),
    ("source", "target"),
)  # fmt: skip
_ANSWERS = ("completion", "response", "answer", "output", "target")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A row ready to encode: a conversation, or plain text (then ``turns`` is empty and ``text`` is not None).

    The first ``context`` turns are the prompt: read, never trained, even where the assistant speaks in them.
    """

    number: int
    turns: tuple[Turn, ...]
    text: str | None = None
    context: int = 0


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows are read: ``columns`` maps role to column, ``reason`` is one sentence for people.

    With a ``template`` the prompt is made from it, and only the completion has a column.
    """

    format: Format
    columns: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    template: str | None = None


def detect(rows: Sequence[RawRow], section: DataSection) -> RowMapping:
    """The format of ``rows``, which are the first ones of the data; ``section`` overrules what they look like.

    Raises:
        DataError: if a named column or role does not exist, or no format fits.
    """
    seen = list(dict.fromkeys(column for row in rows for column in row.values))
    _check_columns(section.columns, seen)
    if section.template is not None:
        return _from_template(section.template, section, seen)
    if section.format != "auto":
        return _named(section.format, section.columns, seen, "as configured")
    if section.columns:
        return _from_roles(section.columns, seen)
    return _guess(rows, seen)


def _check_columns(columns: dict[str, str], seen: Sequence[str]) -> None:
    roles = sorted({role for names in ROLES.values() for role in names})
    for role, column in columns.items():
        if role not in roles:
            raise DataError(
                f"data.columns names the role {one_line(role, 60)!r}, which does not exist.",
                f"The roles are {', '.join(roles)}.",
                _nearest(role, roles) or "Use one of them.",
            )
        if column not in seen:
            raise _no_column(column, seen, f"data.columns.{role}")


def _from_template(template: str, section: DataSection, seen: Sequence[str]) -> RowMapping:
    for column in parse_prompt_template(template).columns:
        if column not in seen:
            raise _no_column(column, seen, "data.template")
    if section.format not in ("auto", "prompt-completion"):
        raise DataError(
            f"data.template does not go with data.format {section.format!r}.",
            "A template makes the prompt of prompt and completion rows.",
            "Set data.format to auto, or remove the template.",
        )
    if unused := sorted(set(section.columns) - {"completion"}):
        raise DataError(
            f"data.columns.{unused[0]} is not used.",
            "data.template makes the prompt; only the completion has a column then.",
            f"Remove {unused[0]} from data.columns, or remove data.template.",
        )
    answer = section.columns.get("completion") or next((name for name in _ANSWERS if name in seen), None)
    if answer is None:
        raise DataError(
            "There is no column for the answer.",
            f"The columns are {_listed(seen)}.",
            "Name it: data.columns: {completion: COLUMN}.",
        )
    reason = f'The prompt is made from data.template, the answer is column "{one_line(answer, 60)}".'
    return RowMapping("prompt-completion", {"completion": answer}, reason, template)


def _from_roles(columns: dict[str, str], seen: Sequence[str]) -> RowMapping:
    for name, roles in ROLES.items():
        if set(columns) <= set(roles):
            return _named(name, columns, seen, "by the roles in data.columns")
    raise DataError(
        "The roles in data.columns belong to different formats.",
        f"They are {', '.join(sorted(columns))}.",
        "Use those of one format: " + "; ".join(f"{name}: {', '.join(roles)}" for name, roles in ROLES.items()) + ".",
    )


def _named(name: Format, columns: dict[str, str], seen: Sequence[str], ground: str) -> RowMapping:
    """The mapping for a known format; roles without a column of their own use the column of the same name."""
    if foreign := sorted(set(columns) - set(ROLES[name])):
        raise DataError(
            f"data.columns.{foreign[0]} does not belong to the format {name}.",
            f"Its roles are {', '.join(ROLES[name])}.",
            f"Remove {foreign[0]}, or choose another data.format.",
        )
    chosen = {role: columns.get(role, role) for role in ROLES[name]}
    for role, column in list(chosen.items()):
        if column in seen:
            continue
        if role in OPTIONAL_ROLES:
            del chosen[role]
        else:
            raise _no_column(column, seen, f"the format {name} ({role})")
    return RowMapping(name, chosen, f"{_sentence(name, chosen)}, {ground}{_unused(chosen, seen)}.")


def _guess(rows: Sequence[RawRow], seen: Sequence[str]) -> RowMapping:
    for column in ("messages", "conversation", "conversations"):
        if column in seen and any(_is_message_list(row.values.get(column)) for row in rows):
            return _found("messages", {"messages": column}, seen)
    if "prompt" in seen and "completion" in seen:
        return _found("prompt-completion", {"prompt": "prompt", "completion": "completion"}, seen)
    if "instruction" in seen and "output" in seen:
        return _found("alpaca", {role: role for role in ROLES["alpaca"] if role in seen}, seen)
    for prompt, completion in _PAIRS:
        if prompt in seen and completion in seen:
            return _found("prompt-completion", {"prompt": prompt, "completion": completion}, seen)
    if "messages" in seen:
        return _found("messages", {"messages": "messages"}, seen)
    if "text" in seen:
        return _found("text", {"text": "text"}, seen)
    raise DataError(
        "The format of the rows is not recognised.",
        f"The columns are {_listed(seen)}; known are messages, prompt and completion, instruction and output, text.",
        "Name the columns, data.columns: {prompt: COLUMN, completion: COLUMN}, or write data.template.",
    )


def _found(name: Format, columns: dict[str, str], seen: Sequence[str]) -> RowMapping:
    return RowMapping(name, columns, f"{_sentence(name, columns)}{_unused(columns, seen)}.")


def _is_message_list(value: object) -> bool:
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and {"role", "content"} <= set(value[0])
    )


def _sentence(name: Format, columns: dict[str, str]) -> str:
    plural = "columns" if len(columns) > 1 else "column"
    return f"Rows are read as {name} from {plural} {_listed(columns.values())}"


def _unused(columns: dict[str, str], seen: Sequence[str]) -> str:
    unused = [column for column in seen if column not in columns.values()]
    return f"; not used: {_listed(unused)}" if unused else ""


def _no_column(column: str, seen: Sequence[str], where: str) -> DataError:
    return DataError(
        f"There is no column {one_line(column, 60)!r}, which {where} needs.",
        f"The columns are {_listed(seen)}.",
        _nearest(column, seen) or "Name the right one in data.columns.",
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), {item.lower(): item for item in known}, n=1, cutoff=0.5)
    return f"Did you mean {one_line({item.lower(): item for item in known}[near[0]], 60)!r}?" if near else ""


def _listed(names: Iterable[str], most: int = 12) -> str:
    shown = [f'"{one_line(name, 60)}"' for name in names]
    if len(shown) > most:
        shown = [*shown[:most], f"and {len(shown) - most} more"]
    return ", ".join(shown) or "none"
