"""All rows of a data set as trained tokens, with an account of everything that was lost on the way."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

from qlora_tui.config import DataSection
from qlora_tui.data.encode import EncodedRow, Encoder
from qlora_tui.data.formats import Example, RowMapping, Turn, detect
from qlora_tui.data.mapping import RowMapper
from qlora_tui.data.problems import RowProblem
from qlora_tui.data.report import PreparationReport, TokenCounts
from qlora_tui.data.source import RawRow
from qlora_tui.errors import DataError

DETECTION_ROWS = 100
"""Rows looked at to recognise the format."""

CHUNK_ROWS = 1024
"""Rows tokenised together: enough to keep all cores busy, few enough to show progress."""

TOO_LONG = "longer than max_length"
UNTRAINED = "no trained token"
CUT_UNTRAINED = "no trained token after truncation"


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """A row, or a piece of one, as training takes it: ids and mask have the same length, at most ``max_length`` tokens.

    ``turns`` are those of the whole row (empty for plain text), so that an evaluation has its reference answer.
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
    rows: Iterable[RawRow], encoder: Encoder, section: DataSection, progress: Callable[[int], None] | None = None
) -> Prepared:
    """Maps, encodes and cuts all rows.

    Args:
        progress: Called with the number of rows done so far, after each chunk.

    Raises:
        DataError: if the rows cannot be read or mapped, a row is too long and ``long_rows`` is ``error``, or no row is
            usable.
    """
    iterator = iter(rows)
    first = list(islice(iterator, DETECTION_ROWS))
    if not first:
        raise DataError("There is nothing to train on.", "The data holds no row.", "Check data.source and data.split.")
    mapping = detect(first, section)
    preparation = _Preparation(section, mapping)
    mapper = RowMapper(mapping, section.system_prompt)
    stream = chain(first, iterator)
    with _collector_paused():
        while chunk := list(islice(stream, CHUNK_ROWS)):
            preparation.add(chunk, mapper, encoder)
            if progress is not None:
                progress(preparation.seen)
    return preparation.finished(encoder)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Rows make no reference cycles, but their number makes the collector walk all of them again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Preparation:
    """The rows and counts gathered so far."""

    def __init__(self, section: DataSection, mapping: RowMapping) -> None:
        self.section = section
        self.mapping = mapping
        self.seen = self.kept = self.truncated = self.tokens_lost = self.untrained = self.straddling = 0
        self.rows: list[PreparedRow] = []
        self.lengths: list[int] = []
        self.dropped: Counter[str] = Counter()
        self.first_problems: dict[str, RowProblem] = {}

    def add(self, chunk: list[RawRow], mapper: RowMapper, encoder: Encoder) -> None:
        self.seen += len(chunk)
        examples = list(self._examples(chunk, mapper))
        for example, row in zip(examples, encoder.encode_batch(examples), strict=True):
            if isinstance(row, RowProblem):
                self._drop(row)
            else:
                self._keep(example, row)

    def _examples(self, chunk: list[RawRow], mapper: RowMapper) -> Iterator[Example]:
        for raw in chunk:
            try:
                yield mapper.example(raw)
            except RowProblem as problem:
                self._drop(problem)

    def _drop(self, problem: RowProblem) -> None:
        self.dropped[problem.reason] += 1
        self.first_problems.setdefault(problem.reason, problem)

    def _keep(self, example: Example, row: EncodedRow) -> None:
        self.lengths.append(len(row.input_ids))
        pieces = self._pieces(row)
        if not pieces:
            return
        self.kept += 1
        self.straddling += row.straddles
        lost = len(row.input_ids) - sum(stop - start for start, stop in pieces)
        self.tokens_lost += lost
        self.truncated += lost > 0
        for start, stop in pieces:
            self.rows.append(PreparedRow(row.number, row.input_ids[start:stop], row.trained[start:stop], example.turns))

    def _pieces(self, row: EncodedRow) -> list[tuple[int, int]]:
        """The stretches of the row that are kept, in tokens; none if it is dropped, which is then counted."""
        length, limit = len(row.input_ids), self.section.max_length
        if True not in row.trained:
            self.untrained += 1
            self._drop(RowProblem(row.number, UNTRAINED, "None of its tokens is to be learnt."))
            return []
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
            self._drop(RowProblem(row.number, TOO_LONG, detail, "Raise data.max_length."))
            return []
        starts = range(0, length, limit) if self.section.long_rows == "split" else (0,)
        pieces = [(start, min(start + limit, length)) for start in starts if True in row.trained[start : start + limit]]
        if not pieces:
            self.untrained += 1
            detail = f"Its prompt alone fills the {limit} tokens of data.max_length."
            self._drop(RowProblem(row.number, CUT_UNTRAINED, detail, "Raise data.max_length."))
        return pieces

    def finished(self, encoder: Encoder) -> Prepared:
        if not self.rows:
            raise self._nothing_left()
        is_text = self.mapping.format == "text"
        report = PreparationReport(
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
            end_of_turn_trained=is_text or encoder.end_of_turn_trained,
            template_warnings=() if is_text else encoder.warnings,
            lengths=tuple(self.lengths),
        )
        return Prepared(tuple(self.rows), report)

    def _token_counts(self) -> TokenCounts:
        ordered = sorted(self.lengths)
        last = len(ordered) - 1
        return TokenCounts(
            total=sum(len(row.input_ids) for row in self.rows),
            trained=sum(sum(row.trained) for row in self.rows),
            p50=ordered[round(0.5 * last)],
            p95=ordered[round(0.95 * last)],
            max=ordered[-1],
        )

    def _nothing_left(self) -> DataError:
        reason, count = self.dropped.most_common(1)[0]
        problem = self.first_problems[reason]
        share = f"All {self.seen} rows" if count == self.seen else f"None of the {self.seen} rows is usable: {count}"
        return DataError(
            "No row can be trained on.",
            f"{share} are dropped for this reason: {reason}. The first is row {problem.number}: {problem.why}",
            problem.hint if problem.hint != "Correct or remove the row." else "Check data.format and data.columns.",
        )
