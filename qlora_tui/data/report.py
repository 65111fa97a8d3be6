"""The account of a preparation: what became of the rows and their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qlora_tui.data.formats import Format


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of the kept rows, and percentiles of row length before any cut, all in tokens."""

    total: int
    trained: int
    p50: int
    p95: int
    max: int


@dataclass(frozen=True, slots=True)
class PreparationReport:
    """What became of the rows.

    ``rows`` were read, ``kept`` of them are trained on (a row split into pieces counts once), the others are in
    ``dropped`` by reason, ``first_dropped`` holds the line of the first one of each reason. ``lengths`` are those of
    all encoded rows before any cut, in order; ``tokens_lost`` were cut from rows that are kept; a straddling row has a
    token that covers both prompt and answer. ``open_ends`` counts rows with a mask of their own that does not train an
    end token last; ``notes`` are what the format itself gives to know.

    ``unrolled`` rows have ``sequences`` together, because the chat template renders earlier answers otherwise once
    later ones follow. ``split`` sequences were longer than max_length and cut into ``pieces`` in all. ``unseen`` says
    how many rows have something that the template leaves out.
    """

    format: Format
    columns: dict[str, str]
    reason: str
    rows: int
    kept: int
    dropped: dict[str, int]
    first_dropped: dict[str, int]
    truncated: int
    tokens_lost: int
    tokens: TokenCounts
    untrained_rows: int
    straddling_rows: int
    end_of_turn_trained: bool
    notes: tuple[str, ...]
    open_ends: int
    unrolled: int
    sequences: int
    split: int
    pieces: int
    unseen: dict[str, int]
    template_warnings: tuple[str, ...]
    lengths: Sequence[int] = field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before training, one sentence each; empty if there is nothing."""
        return self.notes + tuple(self.row_warnings()) + self.template_warnings

    def row_warnings(self) -> Iterator[str]:
        """Those about what became of the rows."""
        if self.truncated:
            yield f"{self.truncated} of {self.rows} rows are cut to data.max_length, {self.tokens_lost} tokens lost."
        if self.split:
            yield f"{self.split} rows are longer than data.max_length and split into {self.pieces} pieces."
        if self.unrolled:
            yield (
                f"{self.unrolled} of {self.rows} rows are trained as {self.sequences} sequences: the chat template "
                "renders earlier answers otherwise once later ones follow, and each is learnt as the model gives it."
            )
        for what, count in self.unseen.items():
            yield f"In {count} of {self.rows} rows the chat template leaves out {what}."
        if self.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            yield f"{self.rows - self.kept} of {self.rows} rows are not used: {reasons}."
        if self.open_ends:
            yield f"{self.open_ends} of {self.rows} rows do not end in a trained end token; the model may not stop."
        if self.straddling_rows:
            yield (
                f"In {self.straddling_rows} rows a token covers the end of the prompt and the start of the answer; "
                "let answers begin without white space."
            )
