"""Rows in JSON: one object a line, a list of objects, or one document that holds either."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from qlora_tui.data.files import MAX_LINE_BYTES, DataFile, as_text, line_error, unpacked
from qlora_tui.data.slices import SPLIT_NAMES
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

MAX_DOCUMENT_BYTES = 128 * 1024 * 1024
"""Longest file that is one JSON object; a list of objects is read piece by piece and may be of any length."""

_PIECE = 1 << 20
_SPACE = " \t\n\r"


def parse_line(file: DataFile, number: int, line: bytes) -> dict[str, Any]:
    """The object on a line of JSON.

    Raises:
        DataError: if there is none.
    """
    text = as_text(file, number, line.rstrip(b"\r\n"))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        why = f"It is not valid JSON: {_fault(error)} at column {error.colno}."
        raise line_error(file, number, why, _hint(number, line)) from error
    except (RecursionError, ValueError) as error:
        _refuse(file, number, error)
    if not isinstance(value, dict):
        raise _no_object(file, number, value)
    return value


def json_objects(file: DataFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a ``.json`` file, numbered from 1: those of a list, those that follow each other, or those in the
    one object that the file holds.

    Raises:
        DataError: if the file cannot be read; the line is named.
    """
    with unpacked(file) as stream:
        values = _Values(file, stream)
        if values.peek() == "[":
            yield from enumerate(values.of_list(), start=1)
            return
        first = values.next(MAX_DOCUMENT_BYTES)
        if not values.peek():
            yield from enumerate(_rows_inside(file, first), start=1)
            return
        yield 1, first
        number = 1
        while values.peek():
            number += 1
            yield number, values.next(MAX_LINE_BYTES)


class _Values:
    """The JSON objects of a stream, one after the other."""

    def __init__(self, file: DataFile, stream: IO[bytes]) -> None:
        self._file, self._stream = file, stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._lines, self._ended = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_PIECE):
                return ""

    def of_list(self) -> Iterator[dict[str, Any]]:
        """The objects of the list that begins here."""
        self._at += 1
        if self.peek() == "]":
            return
        while True:
            yield self.next(MAX_LINE_BYTES)
            sign = self.peek()
            self._at += 1
            if sign == "]":
                if self.peek():
                    self._fail("Something follows the end of the list.")
                return
            if sign != ",":
                self._fail("A comma or the end of the list is missing.")

    def next(self, limit: int) -> dict[str, Any]:
        """The object that begins here.

        Args:
            limit: Longest one that is read, in characters.
        """
        self.peek()
        wanted = _PIECE
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                # Cut off or wrong cannot be told apart before the end, or before there is too much of it.
                if len(self._text) - self._at > limit:
                    self._fail(
                        f"It is longer than {limit // 1024**2} MiB, or not valid JSON: {_fault(error)}.", error.pos
                    )
                if not self._more(wanted):
                    self._fail(f"It is not valid JSON: {_fault(error)}.", error.pos)
                wanted *= 2
                continue
            except (RecursionError, ValueError) as error:
                _refuse(self._file, self._line(self._at), error)
            if not isinstance(value, dict):
                raise _no_object(self._file, self._line(self._at), value)
            self._at = end
            return value

    def _more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        self._lines += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :], 0
        piece = self._stream.read(size)
        self._ended = not piece
        try:
            self._text += self._decoder.decode(piece, final=self._ended)
        except UnicodeDecodeError as error:
            number = self._line(len(self._text)) + error.object[: error.start].count(b"\n")
            raise line_error(self._file, number, "It is not UTF-8.", "Save the file as UTF-8.") from error
        return True

    def _line(self, position: int) -> int:
        return self._lines + self._text.count("\n", 0, position)

    def _fail(self, why: str, position: int | None = None) -> NoReturn:
        number = self._line(self._at if position is None else position)
        raise line_error(self._file, number, why, "Correct the file, or write it as JSON lines, one row a line.")


def _rows_inside(file: DataFile, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a file's only object holds: in its one list of objects, column by column, or as itself."""
    lists = {name: value for name, value in document.items() if _is_rows(value)}
    if len(lists) == 1:
        return next(iter(lists.values()))
    if lists:
        splits = ", ".join(name for name in lists if name in SPLIT_NAMES)
        raise DataError(
            f"The data file {file.shown} holds several lists of rows.",
            f"They are {', '.join(repr(one_line(name, 40)) for name in list(lists)[:12])}.",
            "Write each into a file of its own"
            + (", and name the held-out one in data.evaluation.source." if splits else "."),
        )
    columns = [_column(value) for value in document.values()]
    lengths = {len(column) for column in columns if column is not None}
    if None not in columns and len(lengths) == 1 and lengths != {0}:
        return [dict(zip(document, values, strict=True)) for values in zip(*columns, strict=True)]
    return [document]


def _is_rows(value: object) -> bool:
    """Whether a value is a list of rows, and not one of messages, which a row itself has."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return False
    return not {"role", "from"} & set(value[0])


def _column(value: object) -> list[Any] | None:
    """The values of a column, listed or numbered as pandas writes them; None if it is none."""
    if isinstance(value, list):
        return None if value and isinstance(value[0], dict) and {"role", "from"} & set(value[0]) else value
    if isinstance(value, dict) and value and all(name == str(index) for index, name in enumerate(value)):
        return list(value.values())
    return None


def _no_object(file: DataFile, number: int, value: object) -> DataError:
    kind = {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
    hint = 'A row looks like {"prompt": "…", "completion": "…"}.'
    return line_error(file, number, f"It holds {kind}, not an object.", hint)


def _refuse(file: DataFile, number: int, error: Exception) -> NoReturn:
    if isinstance(error, RecursionError):
        raise line_error(file, number, "Its values are nested too deeply.", "Flatten or remove this row.") from error
    why = f"A value is out of range: {one_line(str(error), 100)}."
    raise line_error(file, number, why, "Write very long numbers as text.") from error


def _fault(error: json.JSONDecodeError) -> str:
    return error.msg.removesuffix(" starting at")


def _hint(number: int, line: bytes) -> str:
    if line.lstrip().startswith(b"{'"):
        return "JSON has double quotes; write the rows with a JSON library."
    if line.rstrip().endswith(b"},"):
        return "Remove the commas between the lines, or put [ and ] around all of them and name the file .json."
    if number == 1 and line.lstrip()[:1] in (b"[", b"{"):
        return "If the file is one JSON document over several lines, name it .json."
    return "Correct or remove this line."
