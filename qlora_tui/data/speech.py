"""Where the assistant speaks in a rendered conversation, for any chat template.

The span of an answer runs from the end of the generation prompt, which is where the model takes over when it is used,
to the end of the turn with its end tokens, but without white space behind them. Where a template carries
``{% generation %}`` marks, these are the spans; an end token that follows a mark belongs to it.

Without marks, the answer is found by rendering what comes before it. Some templates render earlier turns otherwise once
later ones follow; most of them cut the reasoning out of earlier answers. What the model would be taught there is not
what it does when it is used. So such an answer gets a sequence of its own, which ends with it: exactly what the model
sees when it gives this answer. Several answers share a sequence as far as the template lets them stand.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.spans import Span
from qlora_tui.data.template import ChatTemplate, Message, TemplateRefusal
from qlora_tui.data.template_input import as_messages, check_shown, reasoning_of, template_variables
from qlora_tui.data.template_probes import LONGER, PROBE, REASONED, SYSTEM, ends_of_answers, rendered, shared_length

REASONING = "the reasoning"
SYSTEM_TURN = "the system turn"
GREETING = "the first answer, which has no prompt"
_THINK, _THOUGHT = "<think>", "</think>"
# Put before the last answer of a conversation where it has no reasoning, and before no other.
_NO_THOUGHT = re.compile(r"\A<think>\s*</think>\s*")


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation as text: its first ``turns`` turns, and the spans of the answers that are learnt from it."""

    text: str
    spans: list[Span]
    turns: int


class Speech:
    """How one template lets the assistant speak.

    Args:
        tokens: Texts of the tokens that can end a turn.

    Attributes:
        last_end: The tokens right behind an answer at the end of a conversation; empty if there are none.
        middle_end: Those behind an answer that another turn follows.
        hides_system: Whether the template leaves system turns out without saying so.
    """

    def __init__(self, template: ChatTemplate, tokens: Collection[str]) -> None:
        self.template = template
        self.last_end, self.middle_end = ends_of_answers(template, sorted(tokens, key=len, reverse=True))
        self.hides_system = SYSTEM.turns[0].content not in (rendered(template, SYSTEM) or SYSTEM.turns[0].content)
        self._can_open = template.has_marks or self._prompt([], None) is not None
        self._openings = sorted(set(self._learnt_openings()), reverse=True)
        self._cue = self._learnt_cue()

    def renderings(self, example: Example) -> list[Rendering]:
        """The conversation as one text with the spans of its answers, or as several; the longest comes first.

        Raises:
            RowProblem: if the template leaves out tool calls or tools, or does not show where an answer is.
            TemplateRefusal: if the template refuses the conversation.
        """
        messages, variables = as_messages(example), template_variables(example)
        speaking = [index for index, turn in enumerate(example.turns) if turn.role == "assistant"]
        wanted = [index for index in speaking if index >= example.context and example.turns[index].trained]
        if wanted[:1] == [0] and not self._can_open:
            del wanted[0]
            if not wanted:
                raise RowProblem(example.number, "starts with the assistant", "There is no prompt before its answer.")
        if self.template.has_marks:
            text, marks = self.template.render_marked(messages, variables)
            chosen = self._of_turns(marks, messages, variables, speaking, wanted)
            if chosen is not None:
                check_shown(example, text)
                return [Rendering(text, [self._closed_mark(text, mark) for mark in chosen], len(messages))]
        else:
            text = self.template.render(messages, variables=variables)
        check_shown(example, text)
        spans = self._by_cue(example, text, speaking, wanted)
        if spans is not None:
            return [Rendering(text, spans, len(messages))]
        return self._unrolled(example, text, messages, variables, wanted)

    def unseen(self, example: Example, renderings: Iterable[Rendering]) -> tuple[str, ...]:
        """What of a conversation the template does not show, and nobody would miss in the text."""
        found = []
        if example.turns[0].role == "assistant" and example.turns[0].trained and not self._can_open:
            found.append(GREETING)
        if self.hides_system and example.turns[0].role == "system":
            found.append(SYSTEM_TURN)
        if any(turn.fields for turn in example.turns):
            texts = [rendering.text for rendering in renderings]
            reasons = (reasoning_of(turn) for turn in example.turns if turn.role == "assistant")
            if any(reason and not any(reason in text for text in texts) for reason in reasons):
                found.append(REASONING)
        return tuple(found)

    def _of_turns(
        self,
        marks: list[Span],
        messages: list[Message],
        variables: dict[str, Any] | None,
        speaking: list[int],
        wanted: list[int],
    ) -> list[Span] | None:
        """The marks of the turns that are wanted; None if it is not clear which these are."""
        if wanted == speaking:
            return marks or None
        if len(marks) == len(speaking):
            return [mark for mark, index in zip(marks, speaking, strict=True) if index in wanted]
        # A turn may have several marks, or none: as many as are there once it is, and were not before.
        counts = [0]
        for index in speaking:
            counts.append(len(self.template.render_marked(messages[: index + 1], variables)[1]))
        if counts[-1] != len(marks) or counts != sorted(counts):
            return None
        bounds = zip(speaking, counts, counts[1:], strict=False)
        return [mark for index, low, high in bounds if index in wanted for mark in marks[low:high]]

    def _closed_mark(self, text: str, mark: Span) -> Span:
        start, end = mark
        for tail in (self.last_end, self.middle_end):
            if tail and text.startswith(tail, end):
                return start, end + len(tail)
        return mark

    def _by_cue(self, example: Example, text: str, speaking: list[int], wanted: list[int]) -> list[Span] | None:
        """The spans where every answer stands word for word behind the same text, which stands nowhere else.

        The usual case, and several times faster than rendering what comes before each answer.
        """
        if not self._cue or text.count(self._cue) != len(speaking):
            return None
        spans: list[Span] = []
        at = 0
        for index in speaking:
            start = text.index(self._cue, at) + len(self._cue)
            turn = example.turns[index]
            span = None if turn.fields else self._word_for_word(text, start, turn.content)
            if span is None or _THOUGHT in turn.content:
                return None
            at = span[1]
            if index in wanted:
                spans.append(span)
        return spans

    def _word_for_word(self, text: str, start: int, content: str) -> Span | None:
        for said in (content, content.strip()):
            for tail in (self.last_end, self.middle_end):
                if tail and text.startswith(said + tail, start):
                    return start, start + len(said) + len(tail)
        return None

    def _unrolled(
        self, example: Example, text: str, messages: list[Message], variables: dict[str, Any] | None, wanted: list[int]
    ) -> list[Rendering]:
        """Sequences in which every answer stands as the model gives it, as few as the template allows."""
        found_so_far: list[Rendering] = []
        left, upto = list(wanted), len(messages)
        while left:
            found = {index: self._span(example, text, messages, variables, index, upto) for index in left}
            spans = [span for span in found.values() if span is not None]
            if left[-1] == upto - 1 and found[upto - 1] is None:
                text, span = self._as_spoken(example, messages, variables, upto - 1)
                spans = [span]
                found = {index: span if index == upto - 1 else None for index in left}
            if spans:
                found_so_far.append(Rendering(text, spans, upto))
            left = [index for index in left if found[index] is None]
            if left:
                upto = left[-1] + 1
                text = self.template.render(messages[:upto], variables=variables)
        return found_so_far

    def _span(
        self,
        example: Example,
        text: str,
        messages: list[Message],
        variables: dict[str, Any] | None,
        index: int,
        upto: int,
    ) -> Span | None:
        """The span of an answer in the text of the first ``upto`` messages; None if it does not stand there whole."""
        start = self._start(text, messages[:index], variables)
        if start is None:
            return None
        turn = example.turns[index]
        thinks = _THOUGHT in turn.content
        if not thinks and reasoning_of(turn) is None and "tool_calls" not in (turn.fields or {}):
            span = self._word_for_word(text, start, turn.content)
            if span is not None:
                return span
        alone = text if index == upto - 1 else self.template.render(messages[: index + 1], variables=variables)
        end = self._end(text, alone, start)
        # The generation prompt may have begun the thought already.
        if end is None or not _holds(text[max(0, start - 2 * len(_THINK)) if thinks else start : end], turn.content):
            return None
        return start, end

    def _start(self, text: str, before: list[Message], variables: dict[str, Any] | None) -> int | None:
        """Where the model takes over after the messages ``before``; None if they are rendered otherwise in ``text``."""
        prompt = self._prompt(before, variables)
        if prompt is None:
            return None
        if text.startswith(prompt):
            return len(prompt)
        # The generation prompt may hold more than the template writes before an answer that is there, such as the
        # beginning of a thought; how much of it, the probes have shown.
        shared = shared_length(prompt, text)
        head = shared_length(self._closed(before, variables), prompt)
        return next((head + opening for opening in self._openings if head + opening <= shared), None)

    def _prompt(self, before: list[Message], variables: dict[str, Any] | None) -> str | None:
        """The generation prompt behind some messages; None if the template cannot begin with an answer."""
        try:
            return self.template.render(before, add_generation_prompt=True, variables=variables)
        except TemplateRefusal:
            if before:
                raise
            return None

    def _closed(self, before: list[Message], variables: dict[str, Any] | None) -> str:
        return self.template.render(before, variables=variables)

    def _end(self, text: str, alone: str, start: int) -> int | None:
        """Where the answer ends that is the last in ``alone``; None if it stands otherwise in ``text``."""
        for body in (alone, alone[:start] + _NO_THOUGHT.sub("", alone[start:], count=1)):
            if self.last_end and (at := body.rfind(self.last_end, start)) >= 0:
                for tail in (self.last_end, self.middle_end):
                    if tail and text.startswith(body[:at] + tail):
                        return at + len(tail)
            elif text.startswith(whole := body.rstrip()):
                return max(start, len(whole))
        return None

    def _as_spoken(
        self, example: Example, messages: list[Message], variables: dict[str, Any] | None, index: int
    ) -> tuple[str, Span]:
        """An answer behind its prompt as the model writes it, where the template renders the two otherwise together.

        Raises:
            RowProblem: if it is not clear how the model writes it.
        """
        turn = example.turns[index]
        prompt = self._prompt(messages[:index], variables)
        said = None if prompt is None else self._own_words(turn, messages[: index + 1], variables, prompt)
        if prompt is None or said is None:
            raise _no_span(example.number, index)
        text = prompt + said
        return text, (len(prompt), len(text))

    def _own_words(
        self, turn: Turn, messages: list[Message], variables: dict[str, Any] | None, prompt: str
    ) -> str | None:
        """What the model writes behind ``prompt`` to give the last of ``messages``; None if that is not clear."""
        if self._cue and prompt.endswith(self._cue):
            alone = self.template.render(messages, variables=variables)
            at = alone.rfind(self._cue) + len(self._cue)
            end = self._end(alone, alone, at)
            once = alone.count(self._cue) == sum(message["role"] == "assistant" for message in messages)
            if once and end is not None and _holds(alone[at:end], turn.content):
                return alone[at:end]
        if not self.last_end or _THOUGHT not in turn.content or turn.fields:
            return None
        said = turn.content.strip()
        if prompt.rstrip().endswith(_THINK) and said.startswith(_THINK):  # the prompt has begun the thought
            said = said[len(_THINK) :].lstrip("\n")
        return said + self.last_end

    def _learnt_openings(self) -> Iterable[int]:
        """How much of the generation prompt stands before an answer, in characters."""
        for probe in (PROBE, *REASONED):
            text, before = rendered(self.template, probe), as_messages(probe)[:1]
            try:
                prompt, closed = self.template.render(before, add_generation_prompt=True), self.template.render(before)
            except TemplateRefusal:
                continue
            if text is not None and (opening := shared_length(prompt, text) - shared_length(closed, prompt)) > 0:
                yield opening

    def _learnt_cue(self) -> str | None:
        """What stands before every answer, if the template writes the same before each."""
        text = rendered(self.template, LONGER)
        if text is None:
            return None
        messages = as_messages(LONGER)
        try:
            one, other = (self._start(text, messages[:index], None) for index in (1, 3))
            heads = [shared_length(self._closed(messages[:index], None), text) for index in (1, 3)]
        except TemplateRefusal:
            return None
        if one is None or other is None:
            return None
        shared = text[one - shared_length(text[heads[0] : one][::-1], text[heads[1] : other][::-1]) : one]
        return shared if text.count(shared) == 2 else None


def _holds(text: str, words: str) -> bool:
    """Whether a text holds some words, whatever the white space between them."""
    return "".join(words.split()) in "".join(text.split())


def _no_span(number: int, index: int) -> RowProblem:
    return RowProblem(
        number,
        "answer that the chat template hides",
        f"It does not show where the answer in turn {index + 1} begins and ends: it renders what comes before "
        "otherwise once the answer follows, or leaves it out.",
        "Use single-turn rows, set data.train_on to all, or use a model with {% generation %} marks in its template.",
    )
