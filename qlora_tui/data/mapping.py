"""A raw row as an :class:`Example`, once its format is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from qlora_tui.data.formats import Example, Format, Role, RowMapping, Turn
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.prompt_template import PromptTemplate, parse_prompt_template
from qlora_tui.data.source import RawRow
from qlora_tui.text import one_line

_KNOWN_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}
NO_ANSWER = "no answer"


class RowMapper:
    """Turns rows into examples.

    Args:
        mapping: What :func:`qlora_tui.data.formats.detect` found.
        system_prompt: System turn for conversations that have none.
    """

    def __init__(self, mapping: RowMapping, system_prompt: str | None) -> None:
        self.columns = mapping.columns
        self.template = None if mapping.template is None else parse_prompt_template(mapping.template)
        self._system = () if system_prompt is None else (Turn("system", system_prompt),)
        readers: dict[Format, Callable[[RawRow], Example]] = {
            "messages": self._messages,
            "prompt-completion": self._pair,
            "alpaca": self._alpaca,
            "text": self._plain,
        }
        self._read = readers[mapping.format]

    def example(self, row: RawRow) -> Example:
        """``row`` as an example.

        Raises:
            RowProblem: if the row has no answer, a wrong type, an unknown role, or text that is not Unicode.
        """
        example = self._read(row)
        if example.text is not None:
            _check_unicode(row.number, example.text)
            return example
        if not any(turn.role == "assistant" and turn.content.strip() for turn in example.turns[example.context :]):
            raise RowProblem(row.number, NO_ANSWER, "It has no assistant turn with text.")
        for turn in example.turns:
            _check_unicode(row.number, turn.content)
        if self._system and not any(turn.role == "system" for turn in example.turns):
            return Example(row.number, self._system + example.turns, None, example.context + 1)
        return example

    def _plain(self, row: RawRow) -> Example:
        column = self.columns["text"]
        value = row.values.get(column)
        if value is None or value == "":
            raise RowProblem(row.number, "no text", f"Column {column!r} is empty.")
        return Example(row.number, (), _string(row.number, value, f"column {column!r}"))

    def _messages(self, row: RawRow) -> Example:
        column = self.columns["messages"]
        value = row.values.get(column)
        if not value:
            raise RowProblem(row.number, NO_ANSWER, f"Column {column!r} holds no messages.")
        if not isinstance(value, list):
            raise _wrong_type(row.number, value, f"column {column!r}", "a list of messages")
        return Example(row.number, _turns(row.number, value))

    def _pair(self, row: RawRow) -> Example:
        completion = row.values.get(self.columns["completion"])
        if completion is None or completion == []:
            raise RowProblem(row.number, NO_ANSWER, f"Column {self.columns['completion']!r} is empty.")
        answer = self._side(row, "completion", completion, "assistant")
        if self.template is None:
            prompt = row.values.get(self.columns["prompt"])
            asked = () if prompt is None else self._side(row, "prompt", prompt, "user")
        else:
            asked = (Turn("user", self._filled(self.template, row)),)
        if not any(turn.content.strip() for turn in asked):
            raise RowProblem(row.number, "no prompt", "Its prompt is missing or empty.")
        return Example(row.number, asked + answer, None, len(asked))

    def _side(self, row: RawRow, role: str, value: object, speaker: Role) -> tuple[Turn, ...]:
        if isinstance(value, list):
            return _turns(row.number, value)
        return (Turn(speaker, _string(row.number, value, f"column {self.columns[role]!r}")),)

    def _filled(self, template: PromptTemplate, row: RawRow) -> str:
        try:
            if all(row.values.get(column) in (None, "") for column in template.columns):
                return ""
            return template.fill(row.values)
        except TypeError as error:
            raise RowProblem(row.number, "wrong type", str(error)) from error

    def _alpaca(self, row: RawRow) -> Example:
        texts: dict[str, str] = {}
        for role, column in self.columns.items():
            value = row.values.get(column)
            texts[role] = "" if value is None else _string(row.number, value, f"column {column!r}")
        prompt = "\n\n".join(text for text in (texts["instruction"], texts.get("input", "")) if text.strip())
        if not texts["output"].strip():
            raise RowProblem(row.number, NO_ANSWER, f"Column {self.columns['output']!r} is empty.")
        if not prompt:
            raise RowProblem(row.number, "no prompt", "Its instruction and input are empty.")
        return Example(row.number, (Turn("user", prompt), Turn("assistant", texts["output"])), None, 1)


def _turns(number: int, messages: list[Any]) -> tuple[Turn, ...]:
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise _wrong_type(number, message, "a message", "an object with role and content")
        role = message.get("role")
        known = _KNOWN_ROLES.get(role) if isinstance(role, str) else None
        if known is None:
            known_roles = ", ".join(_KNOWN_ROLES)
            raise RowProblem(number, "unknown role", f"The role {one_line(repr(role), 60)} is none of {known_roles}.")
        turns.append(Turn(known, _string(number, message.get("content"), f"the content of a {known} message")))
    return tuple(turns)


def _string(number: int, value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(number, value, where, "text")
    return value


def _wrong_type(number: int, value: object, where: str, wanted: str) -> RowProblem:
    kinds = {"NoneType": "nothing", "str": "text", "dict": "an object", "list": "a list", "bool": "a boolean"}
    kind = kinds.get(type(value).__name__, "a number")
    return RowProblem(number, "wrong type", f"{where[0].upper()}{where[1:]} holds {kind} where {wanted} is needed.")


def _check_unicode(number: int, text: str) -> None:
    """JSON can spell lone surrogates, which are not characters and which no tokenizer takes."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem(number, "not Unicode", f"It holds a lone surrogate at character {error.start + 1}.") from error
