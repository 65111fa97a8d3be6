"""What a data source string names, and the rows of a JSON-lines file, both checked.

Reading is strict where a mistake would train the wrong thing silently (a broken line, a wrong encoding) and tolerant
where it cannot (blank lines, a byte-order mark, Windows line ends).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

from qlora_tui.data.slices import Split, parse_split
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

JSONL_SUFFIXES = (".jsonl", ".ndjson")
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest line read. A row beyond it is no training row but a file without line breaks."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_BOM = b"\xef\xbb\xbf"
_SUPPORTED = "This version reads JSON-lines files (.jsonl or .ndjson, one object a line)."


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in its file: ``number`` is the line, counted from 1; ``values`` maps column to value."""

    number: int
    values: dict[str, Any]


def locate(source: str) -> Path:
    """The JSON-lines file that ``source`` names.

    Raises:
        DataError: if there is no such file, or it names something that is not read by this version.
    """
    path = Path(source).expanduser()
    try:
        is_file, exists = path.is_file(), path.exists()
    except (OSError, ValueError) as error:
        raise DataError(
            f"The data source {one_line(source, 120)!r} is not a usable path.", f"{one_line(str(error))}.", _SUPPORTED
        ) from error
    if is_file and path.suffix.lower() in JSONL_SUFFIXES:
        return path
    shown = repr(one_line(source, 120))
    if is_file:
        raise DataError(
            f"The file {shown} is not read.", _SUPPORTED, "Write it as one JSON object a line, and name it .jsonl."
        )
    if exists:
        raise DataError(f"The data source {shown} is a folder, not a file.", _SUPPORTED, "Name one file in it.")
    if path.suffix.lower() not in JSONL_SUFFIXES and (source.startswith("bundled:") or _HUB_ID.fullmatch(source)):
        raise DataError(
            f"The data source {shown} is neither a file here nor something this version can fetch.",
            f"{_SUPPORTED} Hub and bundled data sets are not read.",
            "Download the data set as .jsonl and give its path.",
        )
    raise DataError(
        f"The data file {shown} does not exist.",
        f"Looked in {one_line(str(path.absolute().parent))}.",
        _nearest_file(path),
    )


def _nearest_file(path: Path) -> str:
    try:
        names = [entry.name for entry in islice(path.absolute().parent.iterdir(), 1000)]
    except OSError:
        return "Check the folder's name."
    near = difflib.get_close_matches(path.name, names, n=1)
    return (
        f"Did you mean {one_line(near[0], 80)!r}?" if near else "Check the path; it is relative to the current folder."
    )


def read_jsonl(path: Path, split: str = "train") -> Iterator[RawRow]:
    """The rows of a JSON-lines file, lazily, in file order.

    Args:
        path: UTF-8 file with one JSON object a line; blank lines do not count as rows.
        split: ``train``, or a slice of it. A file has no other split.

    Raises:
        DataError: on the first line that cannot be read, or if the file or the slice holds no row.
    """
    chosen = parse_split(split)
    if chosen.name != "train":
        raise DataError(
            f"The file {_shown(path)} has no split {chosen.name!r}.",
            "A file holds a single split, named train.",
            "Set data.split to train, or to a slice such as train[:100].",
        )
    total = sum(1 for _ in _lines(path)) if chosen.needs_total else None
    start, stop = chosen.bounds(total)
    empty = True
    for number, line in islice(_lines(path), start, max(start, stop) if stop is not None else None):
        empty = False
        yield RawRow(number, _parse(path, number, line))
    if empty:
        raise _no_rows(path, chosen)


def file_fingerprint(path: Path) -> str:
    """SHA-256 of the file's bytes, as 64 hexadecimal digits.

    Raises:
        DataError: if the file cannot be read.
    """
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes of each line that is not blank."""
    with _open(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise _line_error(
                    path,
                    number,
                    f"It is longer than {MAX_LINE_BYTES // 1024**2} MiB.",
                    "Put each row on a line of its own.",
                )
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield number, line


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(
            f"The data file {_shown(path)} cannot be opened.",
            f"The system says: {reason}.",
            "Check the path and its permissions.",
        ) from error


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if b"\0" in line:
        raise _line_error(path, number, "It holds NUL bytes.", "The file is damaged or UTF-16; save it as UTF-8.")
    try:
        value = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _line_error(path, number, f"Byte {error.start + 1} is not UTF-8.", "Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise _line_error(
            path, number, f"It is not valid JSON: {error.msg} at column {error.colno}.", _json_hint(number, line)
        ) from error
    except RecursionError as error:
        raise _line_error(path, number, "Its values are nested too deeply.", "Flatten or remove this row.") from error
    except ValueError as error:
        raise _line_error(
            path, number, f"A value is out of range: {one_line(str(error), 100)}.", "Write very long numbers as text."
        ) from error
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise _line_error(
            path, number, f"It holds {kind}, not an object.", 'A row looks like {"prompt": "…", "completion": "…"}.'
        )
    return value


def _json_hint(number: int, line: bytes) -> str:
    if number == 1 and line.lstrip()[:1] in (b"[", b"{"):
        return "If the file is one JSON document over several lines, write each row as one line."
    return "Correct or remove this line."


def _line_error(path: Path, number: int, why: str, hint: str) -> DataError:
    return DataError(f"Line {number} of {_shown(path)} cannot be read.", why, hint)


def _no_rows(path: Path, split: Split) -> DataError:
    rows = sum(1 for _ in _lines(path))
    if rows == 0:
        return DataError(f"The data file {_shown(path)} is empty.", "It holds no row.", "Write one JSON object a line.")
    written = f"{split.name}[{split.start or ''}:{split.stop or ''}]"
    return DataError(
        f"The slice {written} selects no row.", f"{_shown(path)} holds {rows} rows.", "Widen the slice in data.split."
    )


def _shown(path: Path) -> str:
    return repr(one_line(str(path), 160))
