"""Split slices: which rows ``train[10%:20%]`` means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qlora_tui.errors import DataError
from qlora_tui.text import one_line

_SPLIT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)(?:\[(?P<start>-?\d{1,15}%?)?:(?P<stop>-?\d{1,15}%?)?\])?")


@dataclass(frozen=True, slots=True)
class Split:
    """A split's name and the bounds of its slice as written (``"240"``, ``"-5"``, ``"10%"``, or None)."""

    name: str
    start: str | None = None
    stop: str | None = None

    @property
    def needs_total(self) -> bool:
        """True if the number of rows must be known before the first row can be chosen."""
        return any(
            bound is not None and (bound.startswith("-") or bound.endswith("%")) for bound in (self.start, self.stop)
        )

    def bounds(self, total: int | None) -> tuple[int, int | None]:
        """First row (from 0) and the row after the last one; None means up to the end.

        Args:
            total: Rows there are; may be None when :attr:`needs_total` is False.
        """
        start = 0 if self.start is None else _row(self.start, total)
        stop = None if self.stop is None else _row(self.stop, total)
        return start, stop


def parse_split(text: str) -> Split:
    """``text`` such as ``train`` or ``train[:2%]`` as a :class:`Split`.

    Raises:
        DataError: if it is neither a name nor a name with a slice.
    """
    match = _SPLIT.fullmatch(text)
    if match is None:
        raise DataError(
            f"The split {one_line(text, 60)!r} cannot be read.",
            "A split is a name, or a name with a slice of rows or percent.",
            "Write for example train, train[:240], train[-100:] or train[10%:20%].",
        )
    return Split(match["name"], match["start"], match["stop"])


def _row(bound: str, total: int | None) -> int:
    if bound.endswith("%"):
        percent, rows = int(bound[:-1]), _known(total)
        row = round(percent * rows / 100)
        return max(0, min(rows, row + rows if percent < 0 else row))
    row = int(bound)
    return max(0, row + _known(total)) if row < 0 else row


def _known(total: int | None) -> int:
    assert total is not None, "bounds() needs the number of rows for this slice"
    return total


SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
"""What splits are called in the names of files and folders -> the split's name."""

_WORD = re.compile("[a-z]+")


def split_in_name(name: str) -> str | None:
    """The split that a file belongs to by its name or its folders' names, ``/`` between them; None if they name none.

    The file's own name counts before its folder's, as in ``test/train-of-thought.jsonl``.
    """
    for part in reversed(name.lower().split("/")):
        for word in _WORD.findall(part):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return None
