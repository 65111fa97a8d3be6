"""What is wrong with the rows, found while they pass: repeats, empty answers, damaged text, private data.

The audit keeps a few bytes of each row and the numbers of some, never the rows themselves.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from qlora_tui.data.duplicates import BANDS, Hashes, Indices, Sketches, contradicting, repeats
from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.prepare import Outcome
from qlora_tui.data.privacy import Kind, scan
from qlora_tui.data.text_trouble import Trouble, main_script, troubles

Part = Literal["train", "evaluation"]

EXAMPLES = 5
"""Rows shown for a finding."""
LONG_ANSWER = 40
"""An answer with so many characters says something; one that comes again is no label."""


def turn_text(turn: Turn) -> str:
    """Everything a turn says, tool calls and reasoning included."""
    if turn.fields is None:
        return turn.content
    return "\n".join(filter(None, [turn.content, *_strings(turn.fields)]))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


@dataclass(slots=True)
class Tally:
    """How many rows have something, and the first of them."""

    rows: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        self.rows += 1
        if len(self.first) < EXAMPLES:
            self.first.append(number)


@dataclass(frozen=True, slots=True)
class RepeatedAnswer:
    """An answer that many rows give: the first of them."""

    rows: int
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Numbers of evaluation rows that training has seen: whole, with another answer, or almost."""

    same: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    near: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What rows have in common with each other, as numbers of rows.

    Attributes:
        repeated: Rows that repeat an earlier one exactly.
        almost: Rows that almost repeat an earlier one; ``firsts`` are the first ones of their groups.
        contradicting: Rows whose prompt has another answer in another row.
        answers: Answers with something to say that many rows give, the most frequent first.
        overlap: Which rows also stand among the training rows, if these are evaluation rows.
    """

    repeated: Indices
    almost: Indices
    firsts: Indices
    contradicting: Indices
    answers: tuple[RepeatedAnswer, ...]
    overlap: Overlap


class Audit:
    """Takes rows in as they are prepared, and says what it found.

    Args:
        spell: Gives the text of token ids, for rows that are nothing else.
        training: For evaluation rows the audit of the training rows, which is complete.
    """

    def __init__(self, spell: Callable[[Sequence[int]], str], training: Audit | None = None) -> None:
        self._spell = spell
        self.training = training
        self.numbers: array[int] = array("I")
        self.contents = Hashes()
        self.prompts = Hashes()
        self.answers = Hashes()
        self.answer_lengths: array[int] = array("I")
        self.sketches: Sketches = Sketches() if training is None else training.sketches
        self._first_sketch = self.sketches.count
        self.sketched: array[int] = array("I")
        self.private: dict[Kind, Tally] = {}
        self.private_values: Counter[Kind] = Counter()
        self.trouble: dict[Trouble, Tally] = {}
        self.scripts: dict[str, Tally] = {}
        self.echoes = Tally()
        self.empty_turns = Tally()
        self.longest: tuple[int, int] | None = None
        self.shortest: tuple[int, int] | None = None
        self._compared: Comparison | None = None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Look at some rows; those that are dropped are passed over."""
        texts: list[str] = []
        for outcome in outcomes:
            example, encoded = outcome.example, outcome.encoded
            if example is None or encoded is None or not outcome.pieces:
                continue
            number, length = example.number, len(encoded.input_ids)
            self._remember_length(number, length)
            self.numbers.append(number)
            self.contents.add(array("I", encoded.input_ids).tobytes())
            text = self._look(example)
            if not self.sketches.full:
                texts.append(text)
                self.sketched.append(number)
        if texts:
            self.sketches.add(texts)

    def _remember_length(self, number: int, length: int) -> None:
        if self.longest is None or length > self.longest[0]:
            self.longest = (length, number)
        if self.shortest is None or length < self.shortest[0]:
            self.shortest = (length, number)

    def _look(self, example: Example) -> str:
        """Everything that is looked for in a single row; its text without system turns."""
        number, turns = example.number, example.turns
        if not turns:
            text = example.text if example.text is not None else self._spell(example.ids[0] if example.ids else ())
            prompt, answer, whole = text, "", text
        else:
            said = [turn_text(turn) for turn in turns if turn.role != "system"]
            text = "\n\n".join(said)
            whole = "\n\n".join(map(turn_text, turns)) if len(said) < len(turns) else text
            answer = said[-1] if turns[-1].role == "assistant" else ""
            prompt = whole[: len(whole) - len(answer)]
            if not all(map(str.strip, said)):
                self.empty_turns.add(number)
            if len(said) > 1 and answer.strip() and said[-2].strip() == answer.strip():
                self.echoes.add(number)
        self.prompts.add(prompt.encode())
        self.answers.add(answer.strip().encode())
        self.answer_lengths.append(len(answer))
        self._scan(number, whole)
        return text

    def _scan(self, number: int, text: str) -> None:
        if hits := scan(text):
            self.private_values.update(hit.kind for hit in hits)
            for kind in {hit.kind for hit in hits}:
                self.private.setdefault(kind, Tally()).add(number)
        for trouble in troubles(text):
            self.trouble.setdefault(trouble, Tally()).add(number)
        if (script := main_script(text)) is not None:
            self.scripts.setdefault(script, Tally()).add(number)

    def compare(self, report: Callable[[int, int], None] = lambda _done, _total: None) -> Comparison:
        """What the rows have in common, once all have passed.

        Args:
            report: Called with how many steps are done, and of how many; may raise to stop. With millions of rows each
                step takes part of a second.
        """
        if self._compared is None:
            total = BANDS + 5
            groups = self.sketches.groups(lambda band: report(band, total))
            report(BANDS, total)
            numbers, repeated = self._numbers(), repeats(self.contents.values())
            report(BANDS + 1, total)
            almost, firsts = self._almost_repeated(groups[: len(self.sketched)], repeated)
            report(BANDS + 2, total)
            against = contradicting(self.prompts.values(), self.answers.values())
            report(BANDS + 3, total)
            answers = tuple(self._repeated_answers())
            report(BANDS + 4, total)
            seen = self.training
            overlap = Overlap() if seen is None else self._overlap(seen, groups[self._first_sketch :])
            report(total, total)
            self._compared = Comparison(numbers[repeated], almost, firsts, numbers[against], answers, overlap)
        return self._compared

    def _almost_repeated(self, groups: Indices, repeated: Indices) -> tuple[Indices, Indices]:
        positions = np.flatnonzero(groups != np.arange(len(groups)))
        positions = positions[~np.isin(positions, repeated)]
        numbers = np.array(self.sketched, dtype=np.int64)
        return numbers[positions], numbers[groups[positions]]

    def _repeated_answers(self) -> Iterator[RepeatedAnswer]:
        answers = self.answers.values()
        if not len(answers):
            return
        lengths = np.frombuffer(self.answer_lengths, dtype=np.uint32)
        values, counts = np.unique(answers[lengths >= LONG_ANSWER], return_counts=True)
        for position in np.argsort(-counts, kind="stable")[:EXAMPLES]:
            if counts[position] < max(3, 0.01 * len(answers)):
                return
            rows = self._numbers()[answers == values[position]]
            yield RepeatedAnswer(int(counts[position]), tuple(int(number) for number in rows[:2]))

    def _overlap(self, training: Audit, groups: Indices) -> Overlap:
        numbers = self._numbers()
        same = np.isin(self.contents.values(), training.contents.values())
        asked = np.isin(self.prompts.values(), training.prompts.values()) & ~same
        near = np.zeros(len(numbers), dtype=bool)
        near[: len(groups)] = groups < self._first_sketch
        near &= ~same & ~asked
        return Overlap(*(tuple(int(number) for number in numbers[which]) for which in (same, asked, near)))

    def _numbers(self) -> Indices:
        return np.array(self.numbers, dtype=np.int64)
