"""The rows of a source, one after the other: all of them, or those of a slice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qlora_tui.data.files import DataFile, FileForm, lines
from qlora_tui.data.json_rows import json_objects, parse_line
from qlora_tui.data.source import RawRow, Source, combined
from qlora_tui.data.table_rows import table_rows, text_rows
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class Reader:
    """How files of one form are read: ``records`` with their line or place, and each as ``values`` by column.

    ``count`` is the number of records, if that is known without reading them.
    """

    records: Callable[[DataFile], Iterator[tuple[int, Any]]]
    values: Callable[[DataFile, int, Any], dict[str, Any]] = lambda _file, _number, record: record
    count: Callable[[DataFile], int | None] = lambda _file: None


READERS: dict[FileForm, Reader] = {
    "jsonl": Reader(lines, parse_line),
    "json": Reader(json_objects),
    "csv": Reader(table_rows),
    "tsv": Reader(table_rows),
    "text": Reader(text_rows),
}
"""What the standard library can read; the engine adds the others."""


PASSED_ROWS = 256
"""So many rows are passed over between two calls of whoever wants to know that."""


def _nobody(_passed: int) -> None:
    """Is told how many rows were passed over, and does nothing."""


def read_rows(
    source: Source, readers: Mapping[FileForm, Reader] = READERS, passed: Callable[[int], None] = _nobody
) -> Iterator[RawRow]:
    """The rows that a source's slice selects, lazily and in order.

    Args:
        passed: Called now and then with how many rows were counted, or skipped, before the slice; may raise to stop.

    Raises:
        DataError: on the first row that cannot be read, naming its file and line, or if there is none.
    """
    assert source.files is not None, "a data set on the hub is read through its files"
    total = row_count(source, readers, passed) if source.split.needs_total else None
    start, stop = source.split.bounds(total)
    several = len(source.files) > 1
    given = 0
    for place, (file, number, record) in enumerate(_records(source, readers)):
        if stop is not None and place >= stop:  # only a slice that begins behind its end comes here
            break
        if place >= start:
            given += 1
            values = readers[file.form].values(file, number, record)
            where = f"row {number} of {file.shown}" if several else ""
            yield RawRow(place + 1 if several else number, values, where, _size(record))
        elif place % PASSED_ROWS == 0:
            passed(place)
        if stop is not None and place + 1 >= stop:  # the next row is not looked at: it may be a broken one
            break
    if not given:
        raise _no_rows(source, readers)


def _records(source: Source, readers: Mapping[FileForm, Reader]) -> Iterator[tuple[DataFile, int, Any]]:
    for file in source.files or ():
        for number, record in readers[file.form].records(file):
            yield file, number, record


def _size(value: Any) -> int:
    """Roughly how many bytes a record holds."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list):
        return sum(map(_size, value)) if value and isinstance(value[0], (str, dict, list)) else 8 * len(value)
    return 8


def row_count(
    source: Source, readers: Mapping[FileForm, Reader] = READERS, passed: Callable[[int], None] = _nobody
) -> int:
    """How many rows the files of a source hold, before any slice.

    Args:
        passed: Called now and then with how many were counted; may raise to stop.
    """
    total = 0
    for file in source.files or ():
        known = readers[file.form].count(file)
        if known is not None:
            total += known
            continue
        for _ in readers[file.form].records(file):
            total += 1
            if total % PASSED_ROWS == 0:
                passed(total)
    return total


def fingerprint(
    source: Source,
    report: Callable[[int, int | None], None] = lambda _done, _total: None,
    see: Callable[[bytes], None] | None = None,
) -> str:
    """SHA-256 of the bytes of a source's files, as 64 hexadecimal digits; on the hub, of its commit and their names.

    Args:
        report: Called with bytes done and bytes in all; may raise to stop.
        see: Called with each piece of the files as they are stored.

    Raises:
        DataError: if a file cannot be read.
    """
    files = source.files or ()
    if source.revision is not None:
        return combined([(source.name, source.revision), *((file.name, "") for file in files)])
    total = None if any(file.size is None for file in files) else sum(file.size or 0 for file in files)
    done = 0
    prints = []
    for file in files:
        digest = hashlib.sha256()
        with file.open() as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                if see is not None:
                    see(piece)
                done += len(piece)
                report(done, total)
        prints.append((file.path.name if file.path else file.name, digest.hexdigest()))
    return combined(prints)


def _no_rows(source: Source, readers: Mapping[FileForm, Reader]) -> DataError:
    rows = row_count(source, readers)
    shown = repr(one_line(source.name, 160))
    if rows == 0:
        return DataError(f"The data source {shown} is empty.", "It holds no row.", "Write one JSON object a line.")
    split = source.split
    written = f"{split.name}[{split.start or ''}:{split.stop or ''}]"
    return DataError(
        f"The slice {written} selects no row.", f"{shown} holds {rows} rows.", "Widen the slice in data.split."
    )
