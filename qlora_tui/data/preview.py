"""One row three times: as it stands in the data, as the model reads it, and as tokens with the trained ones marked.

Everything in a preview is as it is in the data, not made safe to show: that is done where it is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from qlora_tui.data.encode import Encoder
    from qlora_tui.data.prepare import Outcome

Which = Literal["first", "longest", "shortest", "random"] | int
"""A row of the data: by its number, or by what is special about it."""

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Preview:
    """A row for people to look at.

    Attributes:
        row: Its number in the data, counted from 1.
        which: What was asked for, such as ``longest``.
        raw: The row as JSON text over several lines.
        rendered: The text that the tokens are made from; None if the row does not come that far.
        tokens: Each token's text and whether it is trained. A character spelled by several tokens stands with the
            first of them; the others are empty.
        pieces: First token of each stretch that is trained on and the one after its last; tokens outside are cut away.
        problem: Why the row is not used, as a sentence; None if it is.
        sequences: As how many sequences the row is trained; the last one, which is the longest, is shown.
    """

    row: int
    which: str
    raw: str
    rendered: str | None = None
    tokens: tuple[tuple[str, bool], ...] = ()
    pieces: tuple[tuple[int, int], ...] = ()
    problem: str | None = None
    sequences: int = 1

    @property
    def trained(self) -> int:
        """Number of tokens that are learnt."""
        return sum(trained for start, stop in self.pieces for _, trained in self.tokens[start:stop])


def preview(outcome: Outcome, encoder: Encoder, which: str) -> Preview:
    """What became of a row, for people to look at."""
    encoded = outcome.encoded
    return Preview(
        row=outcome.raw.number,
        which=which,
        raw=_json(outcome.raw.values),
        rendered=encoder.rendered(outcome.example) if outcome.example is not None and encoded is not None else None,
        tokens=tuple(zip(token_texts(encoder.tokenizer, encoded.input_ids), encoded.trained, strict=True))
        if encoded is not None
        else (),
        pieces=outcome.pieces,
        problem=f"{outcome.problem.reason}: {outcome.problem.why}" if outcome.problem is not None else None,
        sequences=1 + len(outcome.more),
    )


def _json(values: dict[str, Any]) -> str:
    try:
        return json.dumps(values, ensure_ascii=False, indent=2, default=str)
    except (ValueError, RecursionError):
        return repr(values)


def token_texts(tokenizer: Any, input_ids: Sequence[int]) -> list[str]:
    """Each token's own text, such that the texts together are the text of all.

    Where a character is spelled by several tokens, the first of them has it and the others are empty.
    """
    anchor, ahead = _anchor(tokenizer)
    texts: list[str] = [
        text.removeprefix(ahead) if text.startswith(ahead) else text
        for text in tokenizer.decode_batch([[*anchor, token] for token in input_ids], skip_special_tokens=False)
    ]
    start = 0
    while start < len(texts):
        stop = start + 1
        if _UNKNOWN in texts[start]:
            while stop < len(texts) and _UNKNOWN in texts[stop]:
                stop += 1
            _spell_out(tokenizer, input_ids, texts, start, stop)
        start = stop
    return texts


def _anchor(tokenizer: Any) -> tuple[list[int], str]:
    """Tokens to put before each one, and their text: many tokenizers drop the space that begins a text."""
    ids: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    return ids, tokenizer.decode(ids, skip_special_tokens=False)


def _spell_out(tokenizer: Any, input_ids: Sequence[int], texts: list[str], start: int, stop: int) -> None:
    """Give each whole character among ``start`` to ``stop`` to its first token, if the tokens spell whole ones."""
    first = start
    while first < stop:
        for last in range(first + 1, min(stop, first + 8) + 1):
            text = tokenizer.decode(list(input_ids[first:last]), skip_special_tokens=False)
            if _UNKNOWN not in text:
                texts[first:last] = [text] + [""] * (last - first - 1)
                first = last
                break
        else:
            first += 1
