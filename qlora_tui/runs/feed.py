"""Reading ``events.jsonl`` while it grows: bounded, tolerant of a torn last line, never blocking for long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from qlora_tui.runs.events import Record, Step, from_line

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 8 << 20
TAIL_BYTES = 256 << 10


class EventFeed:
    """Follows one event log from its beginning. Each :meth:`poll` returns what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._inode: int | None = None
        self.restarts = 0
        """How often the log was found replaced or cut, and was read again from its beginning."""
        self.problem: OSError | None = None
        """Why the log could not be read at the last look."""

    @property
    def behind(self) -> int:
        """Bytes of the log that are not read yet."""
        try:
            return max(0, self._path.stat().st_size - self._offset)
        except OSError:
            return 0

    def poll(self) -> list[Record]:
        """The records written since the last call, at most about a megabyte of them; empty if there are none.

        A log that was replaced or cut starts again from its beginning.
        """
        return [record for line in self.poll_lines() if (record := from_line(line)) is not None]

    def poll_lines(self) -> list[bytes]:
        """As :meth:`poll`, but the lines as they stand in the log."""
        try:
            with self._path.open("rb") as handle:
                self._notice_replacement(handle.fileno())
                handle.seek(self._offset)
                chunk = handle.read(CHUNK_BYTES)
        except OSError as error:
            self.problem = error
            return []
        self.problem = None
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = b""
        return [line for line in lines if line]

    def _notice_replacement(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if status.st_size < self._offset or (self._inode is not None and status.st_ino != self._inode):
            self._offset, self._rest = 0, b""
            self.restarts += 1
        self._inode = status.st_ino

    def drain(self) -> list[Record]:
        """Everything that is there now."""
        records: list[Record] = []
        while new := self.poll():
            records += new
        return records

    def wait(self, seconds: float, interval: float = 0.1) -> list[Record]:
        """New records as soon as there are any, or an empty list after ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            if records := self.poll():
                return records
            if time.monotonic() >= end:
                return []
            time.sleep(interval)


def read_events(path: Path) -> list[Record]:
    """All records of a log; empty if there is no log."""
    return EventFeed(path).drain()


def last_event(path: Path) -> Record | None:
    """The last readable record of a log, from its tail only."""
    return next(_tail(path), None)


def last_step(path: Path) -> int:
    """The newest optimizer step in a log's tail; 0 if there is none."""
    steps = (record.event.step for record in _tail(path) if isinstance(record.event, Step))
    return next(steps, 0)


def tail_records(path: Path) -> list[Record]:
    """The records in the last part of a log, oldest first."""
    return list(_tail(path))[::-1]


def _tail(path: Path) -> Iterator[Record]:
    """The records in the last part of a log, newest first."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - TAIL_BYTES))
            tail = handle.read()
    except OSError:
        return
    for line in reversed(tail.split(b"\n")):
        if line and (record := from_line(line)) is not None:
            yield record
