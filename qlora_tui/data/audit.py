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

from qlora_tui.data.duplicates import Hashes, Indices, Sketches, repeats
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

    def repeated(self) -> Indices:
        """Numbers of the rows that repeat an earlier one exactly."""
        return self._numbers()[repeats(self.contents.values())]

    def almost_repeated(self) -> tuple[Indices, Indices]:
        """Numbers of the rows that almost repeat an earlier one, and of the first of their groups."""
        groups = self.sketches.groups()[: len(self.sketched)]
        positions = np.flatnonzero(groups != np.arange(len(groups)))
        exact = np.zeros(len(groups), dtype=bool)
        exact[repeats(self.contents.values()[: len(groups)])] = True
        positions = positions[~exact[positions]]
        numbers = np.array(self.sketched, dtype=np.int64)
        return numbers[positions], numbers[groups[positions]]

    def contradictions(self) -> Indices:
        """Numbers of the rows whose prompt has another answer in another row."""
        prompts, answers = self.prompts.values(), self.answers.values()
        if not len(prompts):
            return np.zeros(0, dtype=np.int64)
        pairs = np.unique(np.stack([prompts, answers], axis=1), axis=0)
        values, counts = np.unique(pairs[:, 0], return_counts=True)
        return self._numbers()[np.isin(prompts, values[counts > 1])]

    def repeated_answers(self) -> Iterator[RepeatedAnswer]:
        """Answers with something to say that many rows give, the most frequent first."""
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

    def overlap(self) -> Overlap:
        """Which rows here also stand among the training rows."""
        training = self.training
        if training is None or not self.numbers:
            return Overlap()
        numbers = self._numbers()
        same = np.isin(self.contents.values(), training.contents.values())
        asked = np.isin(self.prompts.values(), training.prompts.values()) & ~same
        groups = self.sketches.groups()[self._first_sketch :]
        near = np.zeros(len(numbers), dtype=bool)
        near[: len(groups)] = groups < self._first_sketch
        near &= ~same & ~asked
        return Overlap(*(tuple(int(number) for number in numbers[which]) for which in (same, asked, near)))

    def _numbers(self) -> Indices:
        return np.array(self.numbers, dtype=np.int64)
