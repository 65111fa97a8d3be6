"""Follows a run for a screen: a thread reads the log in pieces, looks whether the run is well, and says when something
has changed. The screen reads the view under its lock; nothing here touches a widget.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event, RLock, Thread
from typing import Literal

from qlora_tui.runs.directory import RunDirectory, RunStatus
from qlora_tui.runs.events import from_line
from qlora_tui.runs.feed import EventFeed, last_step
from qlora_tui.runs.view import RunView
from qlora_tui.text import one_line

POLL_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""Between two looks at the process and the disk."""
BATCH = 100
"""Records taken in while the lock is held, so that the screen never waits for long."""
LITTLE_DISK = 64 << 20
JOIN_SECONDS = 2.0

Trouble = Literal["", "dead", "vanished", "cut", "disk", "unreadable", "silent"]


@dataclass(frozen=True, slots=True)
class Condition:
    """How a run is, apart from what its events say."""

    status: RunStatus = "created"
    trouble: Trouble = ""
    detail: str = ""
    """The trouble in a sentence."""
    behind: int = 0
    """Bytes of the log that are not read yet."""
    newest_step: int = 0
    """As the log's end says, while its beginning is still being read."""


class Follower:
    """Follows one run until it is closed.

    Args:
        changed: Called from the thread when there is something new; it must only pass the word on.
        now: The time of day; tests stop it.
    """

    def __init__(self, run: RunDirectory, changed: Callable[[], None], now: Callable[[], float] = time.time) -> None:
        self.run = run
        self.lock = RLock()
        self.view = RunView()
        self.condition = Condition()
        self._changed = changed
        self._now = now
        self._feed = EventFeed(run.events)
        self._closed = Event()
        self._before_cut = 0
        """Number of the last event before the log was found cut, until it is read again."""
        self._lost = ""
        self._thread = Thread(target=self._follow, name=f"follow {run.name}", daemon=True)

    def start(self) -> None:
        """Begin; the first word comes at once."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def look_again(self) -> None:
        """Forget what was said about lost events, as after the screen has told it."""
        self._lost = ""

    def _follow(self) -> None:
        try:
            self._follow_on()
        except Exception as error:  # a thread that ends without a word would leave a screen that never changes
            detail = f"The run cannot be followed any more: {type(error).__name__}: {one_line(str(error))}."
            self.condition = replace(self.condition, trouble="unreadable", detail=detail)
            self._changed()

    def _follow_on(self) -> None:
        next_look = 0.0
        while not self._closed.is_set():
            read = self._read()
            now = time.monotonic()
            caught_up = self.condition.behind > 0 and not self._feed.behind  # is told at once, not at the next look
            if caught_up or now >= next_look:
                next_look = now + LOOK_SECONDS
                changed = self._look()
            else:
                changed = False
            if read or changed:
                self._changed()
            # While there is more to read, only give way to the screen's own thread.
            self._closed.wait(0.002 if read and self._feed.behind else POLL_SECONDS)

    def _read(self) -> bool:
        """Take in one piece of the log; whether there was anything."""
        restarts, last = self._feed.restarts, self.view.last_seq
        lines = self._feed.poll_lines()
        if self._feed.restarts != restarts:
            with self.lock:
                self.view = RunView()
            self._before_cut = max(self._before_cut, last)
        for begin in range(0, len(lines), BATCH):
            if self._closed.is_set():
                return False
            with self.lock:
                for line in lines[begin : begin + BATCH]:
                    if (record := from_line(line)) is not None:
                        self.view.add(record)
        if self._before_cut and not self._feed.behind:
            # Going on with a run cuts a torn last line off, which loses nothing.
            if self.view.last_seq < self._before_cut:
                self._lost = f"it ended at event {self._before_cut:,} and now ends at {self.view.last_seq:,}"
            self._before_cut = 0
        return bool(lines) or self._feed.restarts != restarts

    def _look(self) -> bool:
        """Whether the run's condition has changed."""
        condition = self._condition()
        if condition == self.condition:
            return False
        self.condition = condition
        return True

    def _condition(self) -> Condition:
        run, behind = self.run, self._feed.behind
        if not run.path.is_dir():
            return Condition("interrupted", "vanished", f"The run's directory {run.path} is gone.", 0, 0)
        newest = last_step(run.events) if behind else 0
        owner = run.owner()
        trouble, detail = self._trouble(owner is not None, behind)
        return Condition(self._status(owner is not None), trouble, detail, behind, newest)

    def _status(self, alive: bool) -> RunStatus:
        if alive:
            return "running"
        finished = self.view.progress.finished
        if finished is not None:
            return finished.status
        return "interrupted" if self.view.last_seq or self._feed.behind else "created"

    def _trouble(self, alive: bool, behind: int) -> tuple[Trouble, str]:
        run, progress = self.run, self.view.progress
        if self._feed.problem is not None and run.events.exists():
            return "unreadable", f"The event log cannot be read: {self._feed.problem.strerror}."
        if alive and (free := _free(run)) is not None and free < LITTLE_DISK:
            return "disk", f"The disk is full: {free / 1e6:,.0f} MB are free at {run.path}."
        if not alive and not behind and self.view.last_seq and progress.finished is None:
            return "dead", "The run's process is gone without a last word."
        if self._lost:
            return "cut", f"The event log was cut or replaced: {self._lost}."
        if alive and not behind and (quiet := self._silence()) is not None:
            return "silent", f"No sign of life for {quiet / 60:,.0f} minutes; the process is still there."
        return "", ""

    def _silence(self) -> float | None:
        """Seconds since the last event, if that is long for this run."""
        last, step = self.view.last_time, self.view.progress.step
        if last is None:
            return None
        quiet = self._now() - last
        usual = 30 * step.step_seconds if step is not None else 0.0
        return quiet if quiet > max(600.0, usual) else None


def _free(run: RunDirectory) -> int | None:
    try:
        return shutil.disk_usage(run.path).free
    except OSError:
        return None
