"""The rows of a config for an inspection: counted, fingerprinted, and read again one by one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qlora_tui.config import DataSection
from qlora_tui.data.licence import licence_of_card
from qlora_tui.data.source import RawRow
from qlora_tui.engine.data_source import Data, open_evaluation, open_training

if TYPE_CHECKING:
    from qlora_tui.models.hub_progress import Progress

REPORT_ROWS = 256
"""So many rows are read between two reports, where one is looked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """The training rows, or the separate evaluation rows."""

    data: Data

    def rows(self, passed: Callable[[int], None]) -> Iterator[RawRow]:
        """All rows, lazily.

        Args:
            passed: Called now and then with how many rows were passed over before the slice; may raise to stop.

        Raises:
            DataError: on the first one that cannot be read.
        """
        return self.data.rows(passed)

    def read(self, report: Callable[[int], None]) -> Iterator[RawRow]:
        """All rows, lazily, for whoever looks for one among them.

        Args:
            report: Called now and then with how many rows have been read or passed over; may raise to stop.
        """
        for count, row in enumerate(self.rows(report)):
            if count % REPORT_ROWS == 0:
                report(count)
            yield row

    def some(self, numbers: Collection[int], report: Callable[[int], None]) -> dict[int, RawRow]:
        """The rows with these numbers, as far as there are such.

        Args:
            report: Called now and then with how many rows have been read; may raise to stop.
        """
        found: dict[int, RawRow] = {}
        wanted = set(numbers)
        for row in self.read(report) if wanted else ():
            if row.number in wanted:
                found[row.number] = row
                if len(found) == len(wanted):
                    break
        return found

    def fingerprint(self, report: Callable[[int, int | None], None]) -> tuple[str, int | None]:
        """SHA-256 of the bytes, and how many rows the slice has at most; None if only reading them tells.

        Args:
            report: Called with bytes done and bytes in all; may raise to stop.

        Raises:
            DataError, EnvironmentFault: if a file cannot be read.
        """
        breaks = 0

        def count(piece: bytes) -> None:
            nonlocal breaks
            breaks += piece.count(b"\n")

        files = self.data.source.files or ()
        in_lines = self.data.source.revision is None and all(
            file.packing is None and file.form in ("jsonl", "csv", "tsv", "text") for file in files
        )
        digest = self.data.fingerprint(report, count if in_lines else None)
        if not in_lines:
            return digest, None
        total = breaks + len(files)
        start, stop = self.data.source.split.bounds(total)
        return digest, max(0, (total if stop is None else min(stop, total)) - start)

    @property
    def licence(self) -> str | None:
        """The licence that the card of the data names."""
        return None if self.data.card is None else licence_of_card(self.data.card)


def training_part(section: DataSection, progress: Progress | None = None) -> Part:
    """The rows to train on.

    Args:
        progress: Called with bytes done and bytes in all of each file that is fetched, from any thread.

    Raises:
        DataError, EnvironmentFault: if there is no such source.
    """
    return Part(open_training(section, progress))


def evaluation_part(section: DataSection, training: Part, progress: Progress | None = None) -> Part | None:
    """The separate evaluation rows; None if a share of the training rows is held out instead.

    Raises:
        DataError, EnvironmentFault: if there is no such source.
    """
    data = open_evaluation(section, training.data, progress)
    return None if data is None else Part(data)
