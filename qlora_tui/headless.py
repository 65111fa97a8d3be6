"""Follows a run from a terminal, a pipe or a script: shows its events, passes on signals, ends with its result.

The run belongs to its own process; following it only reads the log. What the terminal sends is passed on: the first
Ctrl-C (or SIGTERM) asks the run to finish its step and save, the second ends it; a closed terminal leaves it alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from typing import Literal

import psutil

from qlora_tui.errors import ExitCode, RunError
from qlora_tui.runs import launch
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Record, RunStarted
from qlora_tui.runs.feed import EventFeed
from qlora_tui.runs.progress import RunProgress
from qlora_tui.terminal.interruptions import Interruptions
from qlora_tui.terminal.narration import Narrator, PlainNarrator, QuietNarrator
from qlora_tui.terminal.outcome import ErrorReport, Outcome, Summary, summarise, tell_end

__all__ = ["ErrorReport", "ExitCode", "Interruptions", "Style", "Summary", "follow"]

Style = Literal["rich", "plain", "json", "quiet"]

POLL_SECONDS = 0.2
ALIVE_CHECK_SECONDS = 0.5
LEAVE_SECONDS = 10.0
"""How long a process may take to exit once its last event is written; its libraries have to let go of the device."""
KEYS = "Ctrl-C: finish the step, save, stop · Ctrl-\\: leave, the run goes on"


def follow(
    run: RunDirectory,
    *,
    style: Style,
    process: subprocess.Popen[bytes] | None,
    from_start: bool,
    after: int | None = None,
    interruptions: Interruptions | None = None,
) -> Summary:
    """Follow ``run`` to its end and write its result: narration to stderr, one last line or object to stdout.

    Args:
        run: The run; it may be alive or have ended.
        style: How to show it. ``json`` and ``quiet`` show nothing; ``json`` ends with the summary as one object.
        process: The training process if the caller started it.
        from_start: Tell the log from its beginning; else only what is new.
        after: Number of the last event before the process was started, for a run that goes on: what stands before it
            is history, also if it says that the run has ended. Default: all that is there now, if not ``from_start``.
        interruptions: Signals already being caught, if the caller began to before it started the process.
    """
    narrator = _narrator(style)
    with Interruptions() if interruptions is None else nullcontext(interruptions) as signals:
        follower = _Follower(run, narrator, process, signals)
        outcome = follower.follow(0 if from_start else after)
    summary = follower.summary(outcome)
    with suppress(OSError):  # nobody may be left to read it, which changes nothing about the run
        if outcome != "hung_up":
            tell_end(run, narrator, summary, outcome)
        if style == "json":
            print(summary.to_json(), flush=True)
        elif outcome != "hung_up":
            print(run.path, flush=True)
    return summary


def _narrator(style: Style) -> Narrator:
    if style == "rich":
        from qlora_tui.terminal.live_display import LiveNarrator

        return LiveNarrator(KEYS)
    return PlainNarrator(sys.stderr) if style == "plain" else QuietNarrator()


class _Follower:
    """One watch over one run."""

    def __init__(
        self,
        run: RunDirectory,
        narrator: Narrator,
        process: subprocess.Popen[bytes] | None,
        interruptions: Interruptions,
    ) -> None:
        self._run = run
        self._narrator = narrator
        self._process = process
        self._interruptions = interruptions
        self._feed = EventFeed(run.events)
        self._progress = RunProgress()
        self._last: Record | None = None
        self._asked_to_stop = False
        self._next_check = 0.0
        self._finished_at: float | None = None

    def follow(self, after: int | None) -> Outcome:
        """Watch until something ends the watch; events up to number ``after`` (None: all of now) are history."""
        try:
            new = self._read_history(after)
            self._narrator.begin(self._progress)
            self._take(new)
            return self._watch()
        except OSError:
            return "hung_up"  # stderr is gone: the terminal was closed, or the reader of the pipe has left
        finally:
            with suppress(OSError):
                self._narrator.close()

    def summary(self, outcome: Outcome) -> Summary:
        """What the watch has seen."""
        returncode = self._process.returncode if self._process is not None else None
        return summarise(self._run, self._progress, outcome, returncode=returncode, alive=self._alive())

    def _read_history(self, after: int | None) -> list[Record]:
        """Take in the events up to number ``after`` without telling them; the ones that are new."""
        records = [] if after == 0 else self._feed.drain()
        history = [record for record in records if after is None or record.seq <= after]
        for record in history:
            self._progress.add(record)
            self._last = record
        if after is not None or self._goes_on():
            self._progress.finished = self._progress.failed = None
        return records[len(history) :]

    def _goes_on(self) -> bool:
        """Whether the run's process is younger than the end that the log tells of, so that another life begins."""
        owner = self._run.owner()
        if owner is None or self._last is None or self._progress.finished is None:
            return False
        with suppress(psutil.Error):
            return psutil.Process(owner).create_time() > self._last.time
        return False

    def _watch(self) -> Outcome:
        while True:
            self._take(self._feed.wait(POLL_SECONDS, 0.05))
            if (outcome := self._obey() or self._check()) is not None:
                return outcome
            self._narrator.tick(self._progress)

    def _take(self, records: list[Record]) -> None:
        for record in records:
            if self._last is not None and record.seq <= self._last.seq:
                continue  # the log was read again from its beginning after its torn end was cut off
            self._last = record
            self._progress.add(record)
            if isinstance(record.event, RunStarted):
                self._finished_at = None
            self._narrator.event(record, self._progress)

    def _obey(self) -> Outcome | None:
        """Do what the signals ask."""
        signals = self._interruptions
        if signals.hung_up:
            return "hung_up"
        if signals.leave:
            return "left"
        if signals.stops >= 2:
            self._narrator.say("Ending the run now.")
            launch.kill(self._run)
            self._wait_for_exit()
            return "killed"
        if signals.stops == 1 and not self._asked_to_stop:
            self._asked_to_stop = True
            self._ask_to_stop()
        return None

    def _ask_to_stop(self) -> None:
        try:
            launch.request_stop(self._run)
        except RunError:
            return  # it ended in the same moment; the next check sees how
        except OSError as error:
            self._narrator.say(f"Cannot ask the run to stop ({error.strerror}); Ctrl-C once more ends it.")
            return
        self._narrator.say("Finishing the step and saving; Ctrl-C once more ends it now.")

    def _check(self) -> Outcome | None:
        """Whether the run has ended, by its process and its log."""
        now = time.monotonic()
        if now < self._next_check:
            return None
        self._next_check = now + ALIVE_CHECK_SECONDS
        if not self._run.path.is_dir():
            return "vanished"
        alive = self._alive()
        if not alive:
            self._take(self._feed.drain())
        if self._progress.finished is not None:
            self._finished_at = self._finished_at or now
            # Whoever started the run may go on with it at once, so its process should have left the directory.
            return "ended" if not alive or now - self._finished_at > LEAVE_SECONDS else None
        return None if alive else "died"

    def _alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self._run.owner() is not None

    def _wait_for_exit(self) -> None:
        end = time.monotonic() + LEAVE_SECONDS
        while self._alive() and time.monotonic() < end:
            time.sleep(0.05)
        self._take(self._feed.drain())
