"""Rows in tables of text (CSV, TSV) and in plain text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

from qlora_tui.data.files import MAX_LINE_BYTES, DataFile, as_text, line_error, lines
from qlora_tui.text import one_line

MAX_COLUMNS = 10_000
"""Most columns of a table; more are a matrix, or a file that was read wrongly."""

MAX_ROW_BYTES = 4 * MAX_LINE_BYTES
"""Longest row of a table, whose quoted fields may go over many lines."""

_DELIMITERS = ",;\t|"
_LOOKED_AT = 50
"""Lines by which the delimiter of a table and the rows of a text are recognised."""


def table_rows(file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with their line; the first line names the columns.

    Raises:
        DataError: if a line cannot be read or has more or fewer fields than there are columns.
    """
    delimiter = "\t" if file.form == "tsv" else _delimiter(file)
    csv.field_size_limit(MAX_LINE_BYTES)
    source = _Lines(file)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        source.held = 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            why = f"It is not valid {file.form.upper()}: {one_line(str(error), 100)}."
            hint = (
                "Put fields with quotes, delimiters or line breaks into double quotes, and double the quotes in them."
            )
            raise line_error(file, number, why, hint) from error
        if fields is None:
            return
        if not fields:
            continue
        if header is None:
            header = _header(file, number, fields)
        elif len(fields) != len(header):
            raise line_error(
                file,
                number,
                f"It has {len(fields)} fields where the first line names {len(header)} columns.",
                "Put fields that hold the delimiter or a line break into double quotes.",
            )
        else:
            yield number, dict(zip(header, fields, strict=True))


class _Lines:
    """The lines of a table; ``held`` are the bytes given since the last row was whole."""

    def __init__(self, file: DataFile) -> None:
        self._file, self._lines = file, lines(file, keep_blank=True)
        self.held = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.held += len(line)
        if self.held > MAX_ROW_BYTES:
            why = f"The row that ends there or later is longer than {MAX_ROW_BYTES // 1024**2} MiB."
            raise line_error(self._file, number, why, "Look for a double quote that is never closed.")
        return as_text(self._file, number, line)


def _header(file: DataFile, number: int, fields: list[str]) -> list[str]:
    if len(fields) > MAX_COLUMNS:
        why = f"It names {len(fields)} columns, more than {MAX_COLUMNS}."
        raise line_error(file, number, why, "Keep the columns that are needed.")
    names = [field.strip() or f"column {index}" for index, field in enumerate(fields, start=1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise line_error(file, number, f"Two columns are called {one_line(twice, 60)!r}.", "Give each its own name.")
    return names


def _delimiter(file: DataFile) -> str:
    """The sign that cuts the first lines into the same number of fields, and into most; a comma if none does."""
    head = list(islice(_Lines(file), _LOOKED_AT))
    widths = {}
    for sign in _DELIMITERS:
        try:
            rows = list(csv.reader(head, delimiter=sign))
        except csv.Error:
            continue
        # The last of them may go on behind the lines that were looked at.
        found = {len(row) for row in (rows[:-1] if len(head) == _LOOKED_AT else rows) if row}
        if len(found) == 1 and found != {1}:
            widths[sign] = found.pop()
    return max(widths, key=lambda sign: widths[sign], default=",")


def text_rows(file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a plain text: its paragraphs if blank lines part it into blocks of several lines, else its lines."""
    by_paragraph = _has_paragraphs(file)
    block: list[str] = []
    first = last = size = 0
    for number, line in lines(file):
        text = as_text(file, number, line).rstrip("\r\n")
        if not by_paragraph:
            yield number, {"text": text}
            continue
        if block and number > last + 1:
            yield first, {"text": "\n".join(block)}
            block, size = [], 0
        first = first if block else number
        block.append(text)
        size += len(text)
        if size > MAX_LINE_BYTES:
            why = f"The paragraph that begins there is longer than {MAX_LINE_BYTES // 1024**2} MiB."
            raise line_error(file, first, why, "Part it by blank lines.")
        last = number
    if block:
        yield first, {"text": "\n".join(block)}


def _has_paragraphs(file: DataFile) -> bool:
    """Whether blank lines stand between blocks of which most have several lines."""
    numbers = [number for number, _ in islice(lines(file), 20 * _LOOKED_AT)]
    blocks = [1]
    for earlier, later in pairwise(numbers):
        if later > earlier + 1:
            blocks.append(1)
        else:
            blocks[-1] += 1
    return len(blocks) > 1 and 2 * sum(length > 1 for length in blocks) > len(blocks)
