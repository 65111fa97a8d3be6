"""A raw row as an :class:`Example`, once its format is known."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qlora_tui.data.columns import as_flag
from qlora_tui.data.formats import Example, Format, Role, RowMapping, Turn
from qlora_tui.data.messages import read_turns, string, tool_definitions, with_reasoning, wrong_type
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.prompt_template import PromptTemplate, parse_prompt_template
from qlora_tui.data.source import RawRow
from qlora_tui.text import one_line

NO_ANSWER = "no answer"
NOT_LIKED = "answer that was not liked"

_SPOKEN = re.compile(r"\n\n(Human|Assistant): ?")
_UNTRAINED = -100


class RowMapper:
    """Turns rows into examples.

    Args:
        mapping: What :func:`qlora_tui.data.detection.detect` found.
        system_prompt: System turn for conversations that have none.
    """

    def __init__(self, mapping: RowMapping, system_prompt: str | None) -> None:
        self.mapping = mapping
        self.columns = mapping.columns
        self.template = None if mapping.template is None else parse_prompt_template(mapping.template)
        self._system = () if system_prompt is None else (Turn("system", system_prompt),)
        readers: dict[Format, Callable[[RawRow], Example]] = {
            "messages": self._messages,
            "sharegpt": self._messages,
            "prompt-completion": self._pair,
            "alpaca": self._alpaca,
            "preference": self._preference,
            "text": self._plain,
            "segments": self._segments,
            "pre-tokenised": self._tokens,
        }
        self._read = readers[mapping.format]
        # Most data has none of these, and the look for each costs time in every row.
        self._surroundings = {"system", "history", "tools", "template_values", "label"} & set(mapping.columns)

    def example(self, row: RawRow) -> Example:
        """``row`` as an example.

        Raises:
            RowProblem: if the row has no answer, a wrong type, an unknown role, or text that is not Unicode.
        """
        example = self._read(row)
        if example.text is not None:
            _check_unicode(row.number, example.text)
        if not example.turns:
            return example
        example = _without_tail(example)
        for turn in example.turns:
            if not turn.content.isascii() or turn.fields:
                _check_turn(row.number, turn)
        if self._surroundings:
            example = self._with_surroundings(example, row)
        if self._system and not any(turn.role == "system" for turn in example.turns):
            return _behind(example, self._system)
        return example

    def _plain(self, row: RawRow) -> Example:
        column = self.columns["text"]
        value = _there(row.values.get(column))
        if value is None or value == "":
            raise RowProblem(row.number, "no text", f"Column {column!r} is empty.")
        return Example(row.number, (), string(row.number, value, f"column {column!r}"))

    def _messages(self, row: RawRow) -> Example:
        column = self.columns["messages" if "messages" in self.columns else "conversations"]
        turns = self._turns(row, column)
        if not turns:
            raise RowProblem(row.number, NO_ANSWER, f"Column {column!r} holds no messages.")
        return Example(row.number, turns)

    def _turns(self, row: RawRow, column: str) -> tuple[Turn, ...]:
        """The messages in a column: a list, one alone, a request that holds them, or the JSON of these."""
        value = _there(row.values.get(column))
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            value = _parsed_messages(row.number, value, column)
        if isinstance(value, dict):
            value = value.get("messages", [value])
        if not value:
            return ()
        if not isinstance(value, list):
            raise wrong_type(row.number, value, f"column {column!r}", "a list of messages")
        return read_turns(row.number, value, self.mapping.keys, self.mapping.speakers)

    def _pair(self, row: RawRow) -> Example:
        column = self.columns["completion"]
        answer = self._side(row, "completion", "assistant")
        if not answer:
            raise RowProblem(row.number, NO_ANSWER, f"Column {column!r} is empty.")
        if self.template is None:
            asked = self._side(row, "prompt", "user")
        else:
            asked = (Turn("user", self._filled(self.template, row)),)
        if not any(turn.content.strip() for turn in asked):
            raise RowProblem(row.number, "no prompt", "Its prompt is missing or empty.")
        return Example(row.number, asked + self._thought(answer, row), None, len(asked))

    def _side(self, row: RawRow, role: str, speaker: Role) -> tuple[Turn, ...]:
        """A column that holds the text of a speaker, or messages."""
        column = self.columns[role]
        value = _there(row.values.get(column))
        if isinstance(value, (list, dict)):
            if isinstance(value, dict) and not ({"messages", "role", "from"} & set(value)):
                raise wrong_type(row.number, value, f"column {column!r}", "text")
            return self._turns(row, column)
        return () if value is None else (Turn(speaker, string(row.number, value, f"column {column!r}")),)

    def _filled(self, template: PromptTemplate, row: RawRow) -> str:
        try:
            if all(row.values.get(column) in (None, "") for column in template.columns):
                return ""
            return template.fill(row.values)
        except TypeError as error:
            raise RowProblem(row.number, "wrong type", str(error)) from error

    def _alpaca(self, row: RawRow) -> Example:
        asked = [self._text(row, "instruction"), self._text(row, "input")]
        prompt = "\n\n".join([text for text in asked if text.strip()])
        said = self._text(row, "output")
        if not said.strip():
            raise RowProblem(row.number, NO_ANSWER, f"Column {self.columns['output']!r} is empty.")
        if not prompt:
            raise RowProblem(row.number, "no prompt", "Its instruction and input are empty.")
        answer = self._thought((Turn("assistant", said),), row)
        return Example(row.number, (Turn("user", prompt), *answer), None, 1)

    def _text(self, row: RawRow, role: str) -> str:
        """The text of a column that there may be."""
        column = self.columns.get(role)
        value = None if column is None else row.values.get(column)
        if isinstance(value, str):
            return value
        return "" if _there(value) is None else string(row.number, value, f"column {column!r}")

    def _preference(self, row: RawRow) -> Example:
        """The chosen answer; what it shares with the rejected one is their prompt."""
        chosen = self._side(row, "chosen", "assistant")
        if not any(turn.content.strip() for turn in chosen):
            raise RowProblem(row.number, NO_ANSWER, f"Column {self.columns['chosen']!r} is empty.")
        if "prompt" in self.columns:
            asked = self._side(row, "prompt", "user")
            if "input" in self.columns and (more := self._side(row, "input", "user")) and more[0].content.strip():
                asked = (Turn("user", f"{asked[0].content}\n\n{more[0].content}"),) if asked else more
            if asked and chosen[: len(asked)] == asked:  # it stands before both answers too
                chosen = chosen[len(asked) :]
            return Example(row.number, asked + chosen, None, len(asked))
        value = row.values.get(self.columns["chosen"])
        if not isinstance(value, str):
            rejected = self._side(row, "rejected", "assistant") if "rejected" in self.columns else ()
            return Example(row.number, chosen, None, _shared(chosen, rejected))
        spoken = _SPOKEN.split(value)
        if len(spoken) < 3 or spoken[0].strip():
            return Example(row.number, (), value)
        roles = {"Human": "user", "Assistant": "assistant"}
        turns = [Turn(roles[who], said.strip()) for who, said in zip(spoken[1::2], spoken[2::2], strict=True)]  # type: ignore[arg-type]
        return Example(row.number, tuple(turns), None, max(0, len(turns) - 1))

    def _segments(self, row: RawRow) -> Example:
        column = self.columns["segments"]
        value = row.values.get(column)
        if not isinstance(value, list) or not value:
            raise wrong_type(row.number, value, f"column {column!r}", "a list of segments")
        text, spans = "", []
        for segment in value:
            if not isinstance(segment, dict) or not isinstance(segment.get("text"), str):
                raise wrong_type(row.number, segment, "a segment", "an object with label and text")
            start, text = len(text), text + segment["text"]
            if segment.get("label") is True and segment["text"]:
                spans.append((start, len(text)))
        if not spans:
            raise RowProblem(row.number, NO_ANSWER, "None of its segments is labelled true.")
        return Example(row.number, (), text, spans=tuple(spans))

    def _tokens(self, row: RawRow) -> Example:
        ids = self._numbers(row, "input_ids")
        if not ids:
            raise RowProblem(row.number, "no text", f"Column {self.columns['input_ids']!r} is empty.")
        trained = [True] * len(ids)
        if "labels" in self.columns:
            labels = self._numbers(row, "labels", len(ids))
            if any(label not in (_UNTRAINED, token) for label, token in zip(labels, ids, strict=True)):
                raise RowProblem(row.number, "wrong type", "Its labels are neither -100 nor the token itself.")
            trained = [label != _UNTRAINED for label in labels]
        elif "mask" in self.columns:
            trained = [bool(bit) for bit in self._numbers(row, "mask", len(ids))]
        if "attention_mask" in self.columns:  # tokens that are not read are padding
            seen = [bool(bit) for bit in self._numbers(row, "attention_mask", len(ids))]
            trained = [bit for bit, kept in zip(trained, seen, strict=True) if kept]
            ids = [token for token, kept in zip(ids, seen, strict=True) if kept]
        return Example(row.number, (), ids=(ids, trained))

    def _numbers(self, row: RawRow, role: str, length: int | None = None) -> list[int]:
        column = self.columns[role]
        value = row.values.get(column)
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise wrong_type(row.number, value, f"column {column!r}", "a list of whole numbers")
        if length is not None and len(value) != length:
            detail = f"Column {column!r} has {len(value)} entries for {length} tokens."
            raise RowProblem(row.number, "wrong type", detail)
        return value

    def _thought(self, answer: tuple[Turn, ...], row: RawRow) -> tuple[Turn, ...]:
        """The answer with the reasoning that stands in a column of its own."""
        column = self.columns.get("reasoning")
        reasoning = None if column is None else _there(row.values.get(column))
        if reasoning in (None, ""):
            return answer
        fields = {"reasoning_content": string(row.number, reasoning, f"column {column!r}")}
        first = replace(answer[0], fields=with_reasoning({**(answer[0].fields or {}), **fields}))
        return (first, *answer[1:])

    def _with_surroundings(self, example: Example, row: RawRow) -> Example:
        """The example with what other columns say of the conversation."""
        values = {role: _there(row.values.get(self.columns[role])) for role in self._surroundings}
        if (label := values.get("label")) is not None:
            liked = as_flag(label) if not isinstance(label, (int, float)) else bool(label)
            if not liked:
                raise RowProblem(row.number, NOT_LIKED, f"Column {self.columns['label']!r} says so.")
        if history := values.get("history"):
            earlier = self._history(row.number, history)
            example = replace(example, turns=earlier + example.turns, context=0)  # its answers are learnt too
        system = values.get("system")
        if system not in (None, "") and not any(turn.role == "system" for turn in example.turns):
            where = f"column {self.columns['system']!r}"
            example = _behind(example, (Turn("system", string(row.number, system, where)),))
        if "tools" in values:
            example = replace(example, tools=tool_definitions(row.number, values["tools"]))
        if options := values.get("template_values"):
            if not isinstance(options, dict):
                raise wrong_type(row.number, options, "the values for the chat template", "an object")
            example = replace(example, values={name: value for name, value in options.items() if value is not None})
        return example

    def _history(self, number: int, history: Any) -> tuple[Turn, ...]:
        """Earlier rounds, each a pair of question and answer."""
        if not isinstance(history, list):
            raise wrong_type(number, history, "the history", "a list of pairs")
        turns = []
        for round_ in history:
            if not isinstance(round_, list) or len(round_) != 2:
                raise wrong_type(number, round_, "a round of the history", "a pair of texts")
            turns += [Turn("user", string(number, round_[0], "the history")),
                      Turn("assistant", string(number, round_[1], "the history"))]  # fmt: skip
        return tuple(turns)


def _there(value: Any) -> Any:
    """``value``, or None for the number that is not one, which tables put where nothing is."""
    return None if isinstance(value, float) and value != value else value


def _behind(example: Example, turns: tuple[Turn, ...]) -> Example:
    """The example with ``turns`` before it; they are read, not trained, if it has a prompt."""
    context = example.context + len(turns) if example.context else 0
    return replace(example, turns=turns + example.turns, context=context)


def _without_tail(example: Example) -> Example:
    """The example up to its last answer; nothing of what follows could be learnt.

    Raises:
        RowProblem: if there is no answer.
    """
    last = None
    for index, turn in enumerate(example.turns):
        is_answer = turn.role == "assistant" and index >= example.context and turn.trained
        if is_answer and (turn.fields or turn.content.strip()):
            last = index
    if last is None:
        raise RowProblem(example.number, NO_ANSWER, "It has no assistant turn with text.")
    while last + 1 < len(example.turns) and example.turns[last + 1].role == "assistant":
        last += 1
    return example if last + 1 == len(example.turns) else replace(example, turns=example.turns[: last + 1])


def _shared(chosen: tuple[Turn, ...], rejected: tuple[Turn, ...]) -> int:
    """How many turns two answers begin with alike, without the last one."""
    shared = 0
    for one, other in zip(chosen[:-1], rejected, strict=False):
        if one != other:
            break
        shared += 1
    return shared


def _parsed_messages(number: int, text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        detail = f"Column {column!r} is text that is not the JSON of messages: {one_line(str(error), 100)}."
        hint = "Write the rows as JSON lines; a table in Python's own notation cannot be read."
        raise RowProblem(number, "wrong type", detail, hint) from error


def _check_turn(number: int, turn: Turn) -> None:
    _check_unicode(number, turn.content)
    if turn.fields:
        try:
            _check_unicode(number, json.dumps(turn.fields, ensure_ascii=False))
        except (TypeError, RecursionError) as error:
            raise RowProblem(number, "wrong type", "A message holds values that are not JSON.") from error


def _check_unicode(number: int, text: str) -> None:
    """JSON can spell lone surrogates, which are not characters and which no tokenizer takes."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem(number, "not Unicode", f"It holds a lone surrogate at character {error.start + 1}.") from error
