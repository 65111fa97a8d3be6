"""Data files: opened, unpacked, and read line by line, within bounds of memory and time whatever they hold.

Reading is strict where a mistake would train the wrong thing silently (a broken line, a wrong encoding) and tolerant
where it cannot (blank lines, a byte-order mark, Windows line ends).
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from qlora_tui.errors import DataError
from qlora_tui.text import one_line

FileForm = Literal["jsonl", "json", "csv", "tsv", "text", "parquet", "arrow"]
Packing = Literal["gz", "zst"]

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Longest line read. A row beyond it is no training row but a file without line breaks."""

MAX_BLANK_LINES = 1_000_000
"""Most blank lines in a row: what lies behind a file's worth of them is not looked for."""

MAX_EXPANSION = 250
UNPACKED_UNCHECKED = 256 * 1024 * 1024
"""A packed file may unpack to this many bytes, and beyond that to 250 times its size; text packs to a tenth or so."""

SUFFIXES: dict[str, FileForm] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".txt": "text", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow",
}  # fmt: skip
PACKINGS: dict[str, Packing] = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}
KNOWN = ".jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow, also packed as .gz or .zst"

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows. ``open`` gives its bytes as they are stored; ``size`` is their number, if it is known."""

    name: str
    form: FileForm
    packing: Packing | None
    open: Callable[[], IO[bytes]] = field(repr=False, compare=False)
    size: int | None = None
    path: Path | None = None
    """Where it lies, if that is on this machine."""

    @property
    def shown(self) -> str:
        """Its name for messages."""
        return repr(one_line(self.name, 160))

    @property
    def is_light(self) -> bool:
        """Whether the standard library can read it; the others need pyarrow, which is slow to load."""
        return self.form not in ("parquet", "arrow") and self.packing != "zst"


def file_form(name: str) -> tuple[FileForm, Packing | None] | None:
    """What a file of that name holds; None if it is no file of rows."""
    lower = name.lower()
    packing = next((packing for suffix, packing in PACKINGS.items() if lower.endswith(suffix)), None)
    stem = lower.rpartition(".")[0] if packing else lower
    form = SUFFIXES.get("." + stem.rpartition(".")[2]) if "." in stem else None
    if form is None or (packing and form in ("parquet", "arrow")):
        return None
    return form, packing


def local_file(path: Path) -> DataFile | None:
    """The data file at ``path``; None if its name is not that of one."""
    found = file_form(path.name)
    return None if found is None else DataFile(str(path), *found, lambda: _open(path), _size(path), path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"The data file {one_line(repr(str(path)), 160)} cannot be opened.",
            f"The system says: {error.strerror or type(error).__name__}.",
            "Check the path and its permissions.",
        ) from error


@contextmanager
def unpacked(file: DataFile) -> Iterator[IO[bytes]]:
    """The bytes of a file as they were before it was packed.

    Raises:
        DataError: if it cannot be opened, or unpacks to far more than a data file does (on reading).
    """
    with closing(file.open()) as stored:
        if file.packing is None:
            yield stored
        else:
            plain: Any = gzip.GzipFile(fileobj=stored) if file.packing == "gz" else _zstandard(file, stored)
            yield io.BufferedReader(_Bounded(file, stored, plain), 1 << 20)


def _zstandard(file: DataFile, stored: IO[bytes]) -> Any:
    import pyarrow

    try:
        return pyarrow.input_stream(stored, compression="zstd")
    except (OSError, pyarrow.ArrowException) as error:
        raise damaged(file, 1, error) from error


class _Bounded(io.RawIOBase):
    """A packed file as plain bytes, which ends in an error when it grows beyond all proportion."""

    def __init__(self, file: DataFile, stored: IO[bytes], plain: Any) -> None:
        self._file, self._stored, self._plain = file, stored, plain
        self._given = 0
        self._lines = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece: bytes = self._plain.read(len(buffer))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise damaged(self._file, self._lines, error) from error
        buffer[: len(piece)] = piece
        self._given += len(piece)
        self._lines += piece.count(b"\n")
        if self._given > UNPACKED_UNCHECKED and self._given > MAX_EXPANSION * self._packed_so_far():
            raise DataError(
                f"Line {self._lines} of {self._file.shown} is not read.",
                f"The file unpacks to more than {MAX_EXPANSION} times its size; some are made so, to fill memory.",
                "Unpack it yourself if you trust it, and give the unpacked file.",
            )
        return len(piece)

    def _packed_so_far(self) -> int:
        try:
            return max(self._stored.tell(), 1)
        except (OSError, ValueError):  # not a file that says how far it is
            return self._file.size or 1


def damaged(file: DataFile, line: int, error: Exception) -> DataError:
    """The error for a packed file that cannot be unpacked any further."""
    return DataError(
        f"Line {line} of {file.shown} cannot be read.",
        f"The packed file is damaged or cut off: {one_line(str(error), 100).rstrip('.')}.",
        "Download or pack it again.",
    )


def lines(file: DataFile, keep_blank: bool = False) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line, without a byte-order mark; blank ones are left out unless they are to be kept.

    Raises:
        DataError: if the file cannot be opened, or a line is longer than :data:`MAX_LINE_BYTES`.
    """
    with unpacked(file) as stream:
        number = blank = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                why = f"It is longer than {MAX_LINE_BYTES // 1024**2} MiB."
                raise line_error(file, number, why, "Put each row on a line of its own.")
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.isspace() or not line:
                blank += 1
                if blank > MAX_BLANK_LINES:
                    why = f"More than {MAX_BLANK_LINES:,} blank lines come before it."
                    raise line_error(file, number, why, "Remove the blank lines.")
                if not keep_blank:
                    continue
            else:
                blank = 0
            yield number, line


def as_text(file: DataFile, number: int, line: bytes) -> str:
    """A line as text.

    Raises:
        DataError: if it is not UTF-8, or holds NUL bytes.
    """
    if b"\0" in line:
        raise line_error(file, number, "It holds NUL bytes.", "The file is damaged or UTF-16; save it as UTF-8.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise line_error(file, number, f"Byte {error.start + 1} is not UTF-8.", "Save the file as UTF-8.") from error


def line_error(file: DataFile, number: int, why: str, hint: str) -> DataError:
    """The error for a line that cannot be read."""
    return DataError(f"Line {number} of {file.shown} cannot be read.", why, hint)


def read_text(file: DataFile, limit: int) -> str:
    """The whole text of a file.

    Raises:
        DataError: if it is longer than ``limit`` bytes or not UTF-8.
    """
    with unpacked(file) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"The data file {file.shown} is too large to be read as one piece.",
            f"It is one JSON value of more than {limit // 1024**2} MiB.",
            "Write it as JSON lines, one row a line.",
        )
    try:
        return content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise line_error(file, number, "It is not UTF-8.", "Save the file as UTF-8.") from error
