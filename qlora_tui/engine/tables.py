"""Rows in Parquet and Arrow files, as JSON would have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow
import pyarrow.parquet

from qlora_tui.data.files import DataFile, FileForm
from qlora_tui.data.reading import READERS, Reader
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

BATCH_ROWS = 256
"""Rows unpacked together: few, since a row of a table may be long."""

MAX_BATCH_BYTES = 1 << 30

Convert = Callable[[Any], Any]


def _parquet_rows(file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    with closing(file.open()) as stream, _told(file) as place:
        table = pyarrow.parquet.ParquetFile(stream)
        yield from _numbered(file, table.schema_arrow, table.iter_batches(batch_size=BATCH_ROWS), place)


def _parquet_count(file: DataFile) -> int:
    with closing(file.open()) as stream, _told(file):
        return int(pyarrow.parquet.ParquetFile(stream).metadata.num_rows)


def _arrow_rows(file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    with closing(file.open()) as stream, _told(file) as place:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            table = pyarrow.ipc.open_file(stream)
            batches = (table.get_batch(index) for index in range(table.num_record_batches))
        else:
            table = pyarrow.ipc.open_stream(stream)
            batches = iter(table)
        yield from _numbered(file, table.schema, batches, place)


class _Place:
    """How many rows have been read so far."""

    rows = 0


@contextmanager
def _told(file: DataFile) -> Iterator[_Place]:
    """Turns what the library says of a broken file into a sentence that names the row."""
    place = _Place()
    try:
        yield place
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        why = one_line(str(error), 160).rstrip(".") or type(error).__name__
        raise DataError(
            f"Row {place.rows + 1} of {file.shown} cannot be read.",
            f"It is no whole {file.form.capitalize()} file: {why}.",
            "Download the file again, or write the rows as JSON lines.",
        ) from error


def _numbered(
    file: DataFile, schema: Any, batches: Iterator[Any], place: _Place
) -> Iterator[tuple[int, dict[str, Any]]]:
    names = list(schema.names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"The columns of {file.shown} cannot be told apart.",
            f"Two of them are called {one_line(twice, 60)!r}.",
            "Give each its own name.",
        )
    converters = {field.name: _converter(field.type) for field in schema}
    converters |= _class_names(schema)
    for batch in batches:
        # Unless it is checked, what a damaged file says of its own lengths is believed, and any memory is read.
        batch.validate(full=True)
        if batch.nbytes > MAX_BATCH_BYTES:
            raise DataError(
                f"Row {place.rows + 1} of {file.shown} cannot be read.",
                f"It and the rows behind it are longer than {MAX_BATCH_BYTES // 1024**2} MiB.",
                "Write the file with smaller row groups.",
            )
        columns = [_column(batch.column(index), converters[name]) for index, name in enumerate(names)]
        for values in zip(*columns, strict=True):
            place.rows += 1
            yield place.rows, dict(zip(names, values, strict=True))


def _column(column: Any, convert: Convert | None) -> list[Any]:
    values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    return values if convert is None else [convert(value) for value in values]


def _converter(kind: Any) -> Convert | None:
    """What makes JSON's kinds of the values of a column; None where they are that already."""
    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _as_json if _converter(kind.value_type) else None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind):
        return None
    return _as_json


def _as_json(value: Any) -> Any:
    """``value`` in JSON's kinds; the nulls that a table writes where an object lacks a key are taken out again."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        return {str(name): _as_json(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value) if isinstance(value, (Decimal, timedelta, UUID)) else one_line(repr(value), 200)


def _class_names(schema: Any) -> dict[str, Convert]:
    """For columns of class numbers, as ``datasets`` notes them in its files: what makes names of them."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted.get("info", {}).get("features", {})
        labels = {name: value["names"] for name, value in features.items() if value.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}
    return {
        name: names_of_classes(names)
        for name, names in labels.items()
        if isinstance(names, list) and name in schema.names
    }


def names_of_classes(names: list[Any]) -> Convert:
    """What turns the number of a class into its name; other values stay as they are."""
    return lambda value: str(names[value]) if isinstance(value, int) and 0 <= value < len(names) else value


ALL_READERS: dict[FileForm, Reader] = {
    **READERS,
    "parquet": Reader(_parquet_rows, count=_parquet_count),
    "arrow": Reader(_arrow_rows),
}
"""Readers for every form of file."""
