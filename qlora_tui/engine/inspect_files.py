"""The rows of a config for an inspection: counted, fingerprinted, and read again one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from qlora_tui.config import DataSection
from qlora_tui.data.licence import licence_of_card
from qlora_tui.data.source import RawRow, locate, read_jsonl
from qlora_tui.errors import DataError

_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class Part:
    """The training rows, or the separate evaluation rows."""

    path: Path
    split: str = "train"

    def rows(self) -> Iterator[RawRow]:
        """All rows, lazily.

        Raises:
            DataError: on the first one that cannot be read.
        """
        return read_jsonl(self.path, self.split)

    def some(self, numbers: Collection[int]) -> dict[int, RawRow]:
        """The rows with these numbers, as far as there are such."""
        found: dict[int, RawRow] = {}
        wanted = set(numbers)
        for row in self.rows() if wanted else ():
            if row.number in wanted:
                found[row.number] = row
                if len(found) == len(wanted):
                    break
        return found

    def fingerprint(self, report: Callable[[int, int], None]) -> tuple[str, int]:
        """SHA-256 of the bytes, and how many lines there are.

        Args:
            report: Called with bytes done and bytes in all; may raise to stop.
        """
        digest, lines, done = hashlib.sha256(), 0, 0
        try:
            total = self.path.stat().st_size
            with self.path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    lines += piece.count(b"\n")
                    done += len(piece)
                    report(done, total)
        except OSError as error:
            raise DataError(
                f"The data file {self.path.name} cannot be read.",
                f"The system says: {error.strerror or error}.",
                "Check the path and its permissions.",
            ) from error
        return digest.hexdigest(), lines

    @property
    def licence(self) -> str | None:
        """The licence that the card beside the data names."""
        return licence_of_card(self.path.parent / "README.md")


def training_part(section: DataSection) -> Part:
    """The rows to train on.

    Raises:
        DataError: if there is no such source.
    """
    return Part(locate(section.source), section.split)


def evaluation_part(section: DataSection) -> Part | None:
    """The separate evaluation rows; None if a share of the training rows is held out instead.

    Raises:
        DataError: if there is no such source.
    """
    source = section.evaluation.source
    return None if source is None else Part(locate(source))
