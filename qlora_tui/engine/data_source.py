"""The rows of a config, wherever they lie: files, folders, bundled samples, data sets on the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qlora_tui.config import DataSection
from qlora_tui.data.files import FileForm
from qlora_tui.data.reading import READERS, Reader, fingerprint, read_rows, row_count
from qlora_tui.data.source import RawRow, Source, evaluation_source, training_source
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from qlora_tui.models.hub_progress import Progress


@dataclass(frozen=True, slots=True)
class Data:
    """Rows ready to be read: ``card`` is where the README of a data set lies, ``notes`` what to know of the source."""

    source: Source
    card: Path | None
    notes: tuple[str, ...] = ()

    def rows(self, passed: Callable[[int], None] = lambda _passed: None) -> Iterator[RawRow]:
        """All rows that the slice selects, lazily; may be called again.

        Args:
            passed: As for :func:`qlora_tui.data.reading.read_rows`.

        Raises:
            DataError: on the first one that cannot be read, or if there is none.
            EnvironmentFault: if the network or the disk is in the way.
        """
        with self._told():
            yield from read_rows(self.source, _readers(self.source), passed)

    def count(self) -> int:
        """How many rows there are before any slice; reads them where nothing else tells."""
        with self._told():
            return row_count(self.source, _readers(self.source))

    def fingerprint(
        self,
        report: Callable[[int, int | None], None] = lambda _done, _total: None,
        see: Callable[[bytes], None] | None = None,
    ) -> str:
        """SHA-256 of the files, or of a data set's commit; see :func:`qlora_tui.data.reading.fingerprint`."""
        return fingerprint(self.source, report, see)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Within it, a fault of the rows says whose they are, unless it is one of the config's ``data`` section."""
        try:
            yield
        except DataError as error:
            shown = repr(one_line(self.source.name, 160))
            known = (self.source.name, *(file.name for file in self.source.files or ()))
            if not error.what.startswith("data.") and not any(name in str(error) for name in known):
                error.what = f"{error.what.rstrip('.')} ({shown})."
                error.args = (f"{error.what} {error.why} {error.hint}",)
            raise

    def _told(self) -> AbstractContextManager[None]:
        if self.source.revision is None:
            return nullcontext()
        from qlora_tui.engine.hub_data import told

        return told(self.source.name, self.source.revision)


def open_source(source: Source, progress: Progress | None = None) -> Data:
    """The rows of ``source``; a data set on the hub is asked for its files.

    Args:
        progress: Called with bytes done and bytes in all of each file that is fetched, from any thread.

    Raises:
        DataError: if there are no such rows.
        EnvironmentFault: if the hub cannot be reached and the cache does not help.
    """
    if source.files is not None:
        return Data(source, source.card)
    from qlora_tui.engine.hub_data import hub_data

    found = hub_data(source, progress)
    return Data(found.source, found.card, found.notes)


def open_training(section: DataSection, progress: Progress | None = None) -> Data:
    """The rows to train on.

    Raises:
        DataError, EnvironmentFault: as :func:`open_source`.
    """
    return open_source(training_source(section), progress)


def open_evaluation(section: DataSection, training: Data, progress: Progress | None = None) -> Data | None:
    """The rows to measure with; None if a share of the training rows is held out instead.

    Raises:
        DataError: as :func:`open_source`, or if they are the training rows themselves.
        EnvironmentFault: as :func:`open_source`.
    """
    source = evaluation_source(section)
    if source is None:
        return None
    data = open_source(source, progress)
    if _same(data.source, training.source):
        raise DataError(
            "The evaluation rows are the training rows.",
            f"Both are split {one_line(str(data.source.split.name), 60)!r} of {one_line(data.source.name, 120)!r}.",
            "Name another split in data.evaluation.split, or remove it to hold out a share of the rows.",
        )
    return data


def _same(one: Source, other: Source) -> bool:
    return replace(one, name="", asked=None) == replace(other, name="", asked=None)


def _readers(source: Source) -> Mapping[FileForm, Reader]:
    """Readers for the source's files; pyarrow is loaded only where it is needed."""
    if source.is_light:
        return READERS
    from qlora_tui.engine.tables import ALL_READERS

    return ALL_READERS
