"""The tokens that cover spans of characters.

A token is trained if it covers at least one character of a span. So all tokens of a character that is spelled by
several are trained together, and a token that reaches over the edge of a span is trained too: the answer's first
characters would not be learnt otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Span = tuple[int, int]
"""First character and the one after the last."""


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
