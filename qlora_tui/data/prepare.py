"""All rows of a data set as trained tokens, with an account of everything that was lost on the way."""

from __future__ import annotations

import gc
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from qlora_tui.config import DataSection
from qlora_tui.data.detection import detect
from qlora_tui.data.encode import EncodedRow, Encoder
from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.mapping import RowMapper
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.report import PreparationReport, TokenCounts
from qlora_tui.data.source import RawRow
from qlora_tui.errors import DataError

if TYPE_CHECKING:
    from qlora_tui.data.privacy import Redactor

DETECTION_ROWS = 100
"""Rows looked at to recognise the format."""

CHUNK_ROWS = 1024
"""Rows tokenised together: enough to keep all cores busy, few enough to show progress."""

CHUNK_BYTES = 1024 * 1024
"""Fewer are if they are this long, which is about half a second's worth of tokens."""

DETECTION_BYTES = 32 * 1024 * 1024
"""Fewer rows than :data:`DETECTION_ROWS` are looked at if they are this long."""

TOO_LONG = "longer than max_length"
UNTRAINED = "no trained token"
CUT_UNTRAINED = "no trained token after truncation"


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """A row, or a piece of one, as training takes it: ids and mask have the same length, at most ``max_length`` tokens.

    ``turns`` are those of the row, or of the part of it that ends with the answer learnt here (empty for plain text),
    so that an evaluation has its reference answer.
    """

    number: int
    input_ids: list[int]
    trained: list[bool]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows ready to train, in the order of their source, and the report on them."""

    rows: tuple[PreparedRow, ...]
    report: PreparationReport


def prepare(
    rows: Iterable[RawRow],
    encoder: Encoder,
    section: DataSection,
    progress: Callable[[int], None] | None = None,
    redactor: Redactor | None = None,
) -> Prepared:
    """Maps, encodes and cuts all rows.

    Args:
        progress: Called with the number of rows done so far, after each chunk.
        redactor: Puts placeholders for private data first; one for all data of a run, so that they mean the same.

    Raises:
        DataError: if the rows cannot be read or mapped, a row is too long and ``long_rows`` is ``error``, or no row is
            usable.
    """
    preparation = Preparation(rows, encoder, section, redactor)
    kept: list[PreparedRow] = []
    with collector_paused():
        for chunk in preparation.chunks():
            for outcome in chunk:
                kept.extend(outcome.prepared(encoder.shared))
            if progress is not None:
                progress(preparation.seen)
    return Prepared(tuple(kept), preparation.report())


@contextmanager
def collector_paused() -> Iterator[None]:
    """Rows make no reference cycles, but their number makes the collector walk all of them again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


Part = tuple[EncodedRow, tuple[tuple[int, int], ...]]
"""A sequence of tokens and the stretches of it that are kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one raw row: the stretches of its tokens that are kept, or the problem that it is dropped for.

    ``example`` and ``encoded`` are there as far as the row came. ``pieces`` are pairs of first token and the one after
    the last.
    """

    raw: RawRow
    example: Example | None = None
    encoded: EncodedRow | None = None
    pieces: tuple[tuple[int, int], ...] = ()
    problem: RowProblem | None = None
    more: tuple[Part, ...] = ()
    """The further sequences of a row whose earlier answers have sequences of their own."""

    def prepared(self, shared: Callable[[Sequence[int]], list[int]]) -> Iterator[PreparedRow]:
        """The row as training takes it; nothing if it is dropped, several pieces if it is split.

        Args:
            shared: :meth:`Encoder.shared`, for rows that are kept.
        """
        if self.example is not None and self.encoded is not None:
            for row, pieces in (*self.more, (self.encoded, self.pieces)):
                turns = self.example.turns[: row.turns] if row.turns else self.example.turns
                for start, stop in pieces:
                    ids = shared(row.input_ids[start:stop])
                    yield PreparedRow(row.number, ids, row.trained[start:stop], turns)


class Preparation:
    """The way of rows into training, a chunk at a time, and the counts gathered so far. It keeps no row.

    Args:
        rows: Read lazily; the first ones are looked at to recognise the format.
        redactor: Puts placeholders for private data before anything else is done with a row.

    Raises:
        DataError: if there is no row, or the first ones cannot be read or mapped.
    """

    def __init__(
        self, rows: Iterable[RawRow], encoder: Encoder, section: DataSection, redactor: Redactor | None = None
    ) -> None:
        self._rows = iter(rows)
        self.first = tuple(_chunk(self._rows, DETECTION_ROWS, DETECTION_BYTES))
        if not self.first:
            raise DataError(
                "There is nothing to train on.", "The data holds no row.", "Check data.source and data.split."
            )
        self.section = section
        self.encoder = encoder
        self.redactor = redactor
        self.mapping = detect(self.first, section)
        if redactor is not None and self.mapping.format == "pre-tokenised":
            raise DataError(
                "Rows of token ids cannot be redacted.",
                "data.redact replaces text, and these rows hold none.",
                "Set data.redact to false, or give the rows as text.",
            )
        self.mapper = RowMapper(self.mapping, section.system_prompt)
        self.seen = self.kept = self.truncated = self.tokens_lost = self.untrained = self.straddling = 0
        self.tokens = self.trained_tokens = self.open_ends = 0
        self.unrolled = self.sequences = self.split = self.pieces = 0
        self.unseen: Counter[str] = Counter()
        self.lengths = array("I")
        self.dropped: Counter[str] = Counter()
        self.first_problems: dict[str, RowProblem] = {}

    def chunks(self) -> Iterator[list[Outcome]]:
        """What becomes of the rows, in their order, :data:`CHUNK_ROWS` at a time or fewer.

        Raises:
            DataError: if a row cannot be read, or is too long and ``long_rows`` is ``error``.
        """
        stream = chain(self.first, self._rows)
        waiting: Callable[[], list[Outcome]] | None = None
        # While a thread makes tokens of one chunk, which needs no lock of Python's, the next one is read and rendered.
        with ThreadPoolExecutor(max_workers=1) as tokeniser:
            while chunk := _chunk(stream, CHUNK_ROWS, CHUNK_BYTES):
                following = self._begun(chunk, tokeniser)
                if waiting is not None:
                    yield waiting()
                waiting = following
            if waiting is not None:
                yield waiting()

    def add(self, chunk: Sequence[RawRow]) -> list[Outcome]:
        """What becomes of some rows, which are counted.

        Raises:
            DataError: if a row is too long and ``long_rows`` is ``error``.
        """
        return self._begun(chunk, None)()

    def _begun(self, chunk: Sequence[RawRow], tokeniser: Executor | None) -> Callable[[], list[Outcome]]:
        """What waits for the outcome of some rows."""
        mapped = [self._mapped(raw) for raw in chunk]
        rows = self.encoder.begin_batch([item for item in mapped if isinstance(item, Example)], tokeniser)

        def outcomes() -> list[Outcome]:
            self.seen += len(chunk)
            encoded = iter(rows())
            return [
                self._outcome(raw, item, next(encoded)) if isinstance(item, Example) else self._drop(Outcome(raw), item)
                for raw, item in zip(chunk, mapped, strict=True)
            ]

        return outcomes

    def _mapped(self, raw: RawRow) -> Example | RowProblem:
        if self.redactor is not None:
            raw = replace(raw, values=self.redactor.values(raw.values))
        try:
            return self.mapper.example(raw)
        except RowProblem as problem:
            return problem

    def _drop(self, outcome: Outcome, problem: RowProblem) -> Outcome:
        if outcome.raw.place:
            problem = problem.at(outcome.raw.place)
        self.dropped[problem.reason] += 1
        self.first_problems.setdefault(problem.reason, problem)
        return replace(outcome, problem=problem)

    def _outcome(self, raw: RawRow, example: Example, row: EncodedRow | RowProblem) -> Outcome:
        if isinstance(row, RowProblem):
            return self._drop(Outcome(raw, example), row)
        kept: list[Part] = []
        problem: RowProblem | None = None
        tokens = 0
        for sequence in (row, *row.more):
            self.lengths.append(len(sequence.input_ids))
            tokens += len(sequence.input_ids)
            pieces = self._pieces(sequence)
            if isinstance(pieces, RowProblem):
                problem = problem or pieces
            else:
                kept.append((sequence, tuple(pieces)))
        if not kept and problem is not None:
            self.untrained += problem.reason in (UNTRAINED, CUT_UNTRAINED)
            return self._drop(Outcome(raw, example, row), problem)
        self._count(example, row, kept, tokens)
        return Outcome(raw, example, *kept[0], more=tuple(kept[1:]))

    def _count(self, example: Example, row: EncodedRow, kept: Sequence[Part], tokens: int) -> None:
        """Count a row that is kept, which has so many tokens before any cut."""
        self.kept += 1
        if row.unseen:
            self.unseen.update(row.unseen)
        if row.more:
            self.unrolled += 1
            self.sequences += len(kept)
        if example.ids is not None or example.spans is not None:
            self.open_ends += not self.encoder.is_closed(row)
        left, straddles = 0, False
        for sequence, pieces in kept:
            straddles = straddles or sequence.straddles
            for start, stop in pieces:
                left += stop - start
                self.trained_tokens += sequence.trained[start:stop].count(True)
            if len(pieces) > 1:
                self.split += 1
                self.pieces += len(pieces)
        self.straddling += straddles
        self.tokens += left
        self.tokens_lost += tokens - left
        self.truncated += left < tokens

    def _pieces(self, row: EncodedRow) -> list[tuple[int, int]] | RowProblem:
        """The stretches of the row that are kept, in tokens; the problem if it is dropped."""
        length, limit = len(row.input_ids), self.section.max_length
        if True not in row.trained:
            return RowProblem(row.number, UNTRAINED, "None of its tokens is to be learnt.")
        if length <= limit:
            return [(0, length)]
        if self.section.long_rows == "error":
            raise DataError(
                f"Row {row.number} is too long.",
                f"It has {length} tokens, and data.max_length is {limit}.",
                "Raise data.max_length, or set data.long_rows to truncate, split or drop.",
            )
        if self.section.long_rows == "drop":
            detail = f"It has {length} tokens; the limit is {limit}."
            return RowProblem(row.number, TOO_LONG, detail, "Raise data.max_length.")
        starts = range(0, length, limit) if self.section.long_rows == "split" else (0,)
        pieces = [(start, min(start + limit, length)) for start in starts if True in row.trained[start : start + limit]]
        if not pieces:
            detail = f"Its prompt alone fills the {limit} tokens of data.max_length."
            return RowProblem(row.number, CUT_UNTRAINED, detail, "Raise data.max_length.")
        return pieces

    def report(self) -> PreparationReport:
        """The account of the rows so far.

        Raises:
            DataError: if none of them is kept.
        """
        if not self.kept:
            raise self._nothing_left()
        is_text = self.mapping.format == "text"
        is_conversation = self.mapping.format not in ("text", "segments", "pre-tokenised")
        return PreparationReport(
            format=self.mapping.format,
            columns=self.mapping.columns,
            reason=self.mapping.reason,
            rows=self.seen,
            kept=self.kept,
            dropped=dict(self.dropped.most_common()),
            first_dropped={reason: problem.number for reason, problem in self.first_problems.items()},
            truncated=self.truncated,
            tokens_lost=self.tokens_lost,
            tokens=self._token_counts(),
            untrained_rows=self.untrained,
            straddling_rows=self.straddling,
            end_of_turn_trained=is_text
            or (self.encoder.end_of_turn_trained if is_conversation else not self.open_ends),
            notes=self.mapping.notes,
            open_ends=self.open_ends,
            unrolled=self.unrolled,
            sequences=self.sequences,
            split=self.split,
            pieces=self.pieces,
            unseen=dict(self.unseen.most_common()),
            template_warnings=self.encoder.warnings if is_conversation else (),
            lengths=self.lengths,
        )

    def _token_counts(self) -> TokenCounts:
        import numpy as np  # here, for the first answers of an inspection would wait for it

        ordered = np.sort(np.frombuffer(self.lengths, dtype=np.uint32))
        last = len(ordered) - 1
        return TokenCounts(
            total=self.tokens,
            trained=self.trained_tokens,
            p50=int(ordered[round(0.5 * last)]),
            p95=int(ordered[round(0.95 * last)]),
            max=int(ordered[-1]),
        )

    def _nothing_left(self) -> DataError:
        reason, count = self.dropped.most_common(1)[0]
        problem = self.first_problems[reason]
        share = (
            f"All {self.seen} rows are"
            if count == self.seen
            else f"None of the {self.seen} rows is usable: {count} are"
        )
        if self.seen == 1:
            share = "The only row is"
        return DataError(
            "No row can be trained on.",
            f"{share} dropped for this reason: {reason}. The first is row {problem.number}: {problem.why}",
            problem.hint if problem.hint != "Correct or remove the row." else "Check data.format and data.columns.",
        )


def _chunk(rows: Iterator[RawRow], most: int, most_bytes: int) -> list[RawRow]:
    """The next rows: so many, or fewer if they are long."""
    chunk, size = [], 0
    for row in rows:
        chunk.append(row)
        size += row.size
        if len(chunk) == most or size > most_bytes:
            break
    return chunk
