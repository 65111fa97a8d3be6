"""One row that cannot be used: counted with its reason, fatal only when every row is."""

from __future__ import annotations

from qlora_tui.errors import DataError
from qlora_tui.text import one_line


class RowProblem(DataError):
    """A single unusable row.

    Args:
        number: The row's line, counted from 1.
        reason: A few words from a small vocabulary; rows are counted by it.
        detail: What exactly is wrong in this row, as a sentence.
    """

    def __init__(self, number: int, reason: str, detail: str, hint: str = "Correct or remove the row.") -> None:
        super().__init__(f"Row {number} cannot be used: {reason}.", one_line(detail, 300), hint)
        self.number = number
        self.reason = reason

    def at(self, place: str) -> RowProblem:
        """The same problem of a row whose number alone does not say where it stands."""
        return RowProblem(self.number, self.reason, f"{self.why} It is {place}.", self.hint)
