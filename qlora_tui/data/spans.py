"""Where the assistant speaks: character spans of a rendered conversation, and the tokens that cover them.

The span of an assistant turn runs from the end of the generation prompt, which is where the model takes over when it is
used, to the end of the turn with its end-of-turn token, but without white space after that token.

A token is trained if it covers at least one character of a span. So all tokens of a character that is spelled by
several are trained together, and a token that reaches over the edge of a span is trained too: the answer's first
characters would not be learnt otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.template import ChatTemplate, Message
from qlora_tui.errors import DataError

Span = tuple[int, int]
"""First character and the one after the last."""

PROBE = Example(0, (Turn("user", "Hello"), Turn("assistant", "Good morning")))
"""The conversation on which a template shows how it ends an answer."""


def render_with_spans(template: ChatTemplate, example: Example, turn_end: str | None) -> tuple[str, list[Span]]:
    """The conversation as text and the spans of its assistant turns after ``example.context``.

    ``{% generation %}`` marks are used where a template carries them; an end token that follows a mark belongs to it.

    Args:
        turn_end: Text of the token that ends an answer (:func:`find_turn_end`).

    Raises:
        RowProblem: if the conversation opens with an assistant turn.
        TemplateRefusal: if the template refuses it.
        DataError: if the template renders earlier turns differently once later ones follow.
    """
    messages, variables = as_messages(example), template_variables(example)
    if example.turns[0].role == "assistant":
        raise RowProblem(example.number, "starts with the assistant", "There is no prompt before its first answer.")
    speaking = [index for index, turn in enumerate(example.turns) if turn.role == "assistant"]
    wanted = {index for index in speaking if index >= example.context and example.turns[index].trained}
    if template.has_marks:
        text, marks = template.render_marked(messages, variables)
        if len(marks) == len(speaking):
            pairs = zip(marks, speaking, strict=True)
            return text, [_closed_mark(text, mark, turn_end) for mark, index in pairs if index in wanted]
    else:
        text = template.render(messages, variables=variables)
    spans = []
    for index in sorted(wanted):
        span = _span(template, text, messages[: index + 1], variables, turn_end)
        if span is None:
            raise _no_span(example.number, index)
        spans.append(span)
    return text, spans


def find_turn_end(template: ChatTemplate, tokens: Iterable[str]) -> str | None:
    """The token that stands right behind an answer, found on a probe; None if there is none or the probe is refused.

    Args:
        tokens: Texts of the tokens that can end a turn.
    """
    try:
        text = template.render(as_messages(PROBE))
    except DataError:
        return None
    answer = PROBE.turns[-1].content
    end = text.rfind(answer) + len(answer)
    behind = [token for token in tokens if text.startswith(token, end)] if answer in text else []
    return max(behind, key=len, default=None)


def as_messages(example: Example) -> list[Message]:
    """The turns as a chat template takes them."""
    return [
        {"role": turn.role, "content": turn.content} if turn.fields is None else _with_fields(turn)
        for turn in example.turns
    ]


def template_variables(example: Example) -> dict[str, Any] | None:
    """What the chat template may read besides the messages."""
    if example.tools is None and example.values is None:
        return None
    return {"tools": example.tools, **(example.values or {})}


def _with_fields(turn: Turn) -> Message:
    message = {"role": turn.role, "content": turn.content, **(turn.fields or {})}
    return {name: value for name, value in message.items() if value is not None}


def _span(
    template: ChatTemplate,
    text: str,
    messages: list[Message],
    variables: dict[str, Any] | None,
    turn_end: str | None,
) -> Span | None:
    """The span in ``text`` of the last of ``messages``, which begin the conversation; None if it is not clear."""
    prompt = template.render(messages[:-1], add_generation_prompt=True, variables=variables)
    if not text.startswith(prompt):
        return None
    start = len(prompt)
    # The usual case first: the answer word for word with its end token behind it. It also serves templates that show
    # the reasoning of the last turn only, or that close the whole conversation with one token more.
    content = str(messages[-1].get("content", ""))
    for said in (content, content.strip()):
        if turn_end and text.startswith(said + turn_end, start):
            return start, start + len(said) + len(turn_end)
    until = template.render(messages, variables=variables)
    return (start, max(start, len(until.rstrip()))) if text.startswith(until) else None


def _closed_mark(text: str, mark: Span, turn_end: str | None) -> Span:
    start, end = mark
    if turn_end and text.startswith(turn_end, end):
        return start, end + len(turn_end)
    return start, start + len(text[start:end].rstrip())


def _no_span(number: int, index: int) -> DataError:
    return DataError(
        f"The model's chat template does not show where an answer of row {number} begins and ends.",
        f"It renders turn {index + 1} differently once later turns follow, or opens answers with text that it drops.",
        "Use single-turn rows, set data.train_on to all, or use a model with {% generation %} marks in its template.",
    )


def token_range(encoding: Any, span: Span) -> tuple[int, int, bool]:
    """Tokens that cover a span: the first, the one after the last, and whether the first begins before the span.

    Args:
        encoding: A ``tokenizers.Encoding`` of the text, with untrimmed character offsets.
    """
    start, end = span
    if start >= end:
        return 0, 0, False
    first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
    if first is None or last is None:
        return _token_range_by_offsets(encoding.offsets, span)
    count = len(encoding)
    stop = last + 1
    while stop < count and encoding.token_to_chars(stop)[0] < end:
        stop += 1
    return first, stop, encoding.token_to_chars(first)[0] < start


def _token_range_by_offsets(offsets: Sequence[Span], span: Span) -> tuple[int, int, bool]:
    """The same where the tokenizer gives no token to an edge character, such as a space it drops."""
    start, end = span
    covering = [
        index for index, (low, high) in enumerate(offsets) if low < end and (high > start or low == high >= start)
    ]
    if not covering:
        return 0, 0, False
    return covering[0], covering[-1] + 1, offsets[covering[0]][0] < start
