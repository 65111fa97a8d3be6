"""A program in a terminal of its own, as a person meets it: keys go in, and what it draws is read back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import psutil

_CONTROLS: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[P_^][^\x1b]*\x1b\\|[@-Z\\-_=>])"
)
_KEPT_BYTES: Final = 1 << 20
SIZE: Final = (120, 36)
MIB: Final = 1 << 20


class NothingDrawn(AssertionError):
    """A program did not draw in time what was waited for."""


class Terminal:
    """Runs a program in a pseudo terminal; everything is timed from its start, in seconds.

    Args:
        environment: Set in addition to this process's own.
        folder: Where it is started.
        size: Columns and rows.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        size: tuple[int, int] = SIZE,
    ) -> None:
        self._text = b""
        self._begun = time.perf_counter()
        self.process, self._handle = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            colours = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # who installs a program has its bytecode
            os.chdir(folder)
            os.execvpe(command[0], list(command), {**os.environ, **colours, **environment})

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self._handle)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begun

    def press(self, keys: str) -> float:
        """Send keys as the terminal would; the time at which they were sent. What was drawn before is forgotten."""
        self.read(0.0)
        self._text = b""
        moment = self.now
        os.write(self._handle, keys.encode())
        return moment

    def wait(self, *words: str, seconds: float = 60.0) -> float:
        """The time at which all of the words had been drawn since the last key.

        Raises:
            NothingDrawn: if they were not drawn in time.
        """
        end = self.now + seconds
        wanted = [word.encode() for word in words]
        while True:
            drawn = _CONTROLS.sub(b"", self._text)
            if all(word in drawn for word in wanted):
                return self.now
            if self.now > end:
                raise NothingDrawn(f"{words} was not drawn; the last was: {drawn[-2000:].decode(errors='replace')}")
            self.read(0.1)

    def read(self, seconds: float) -> None:
        """Take in what is drawn within ``seconds``, or the first of it."""
        while select.select([self._handle], [], [], seconds)[0]:
            try:
                self._text = (self._text + os.read(self._handle, 1 << 16))[-_KEPT_BYTES:]
            except OSError as error:
                raise NothingDrawn(f"the program ended: {self._text[-2000:].decode(errors='replace')}") from error
            seconds = 0.0

    def rest(self, seconds: float) -> None:
        """Let it do what it does, and read along."""
        end = self.now + seconds
        while (left := end - self.now) > 0:
            self.read(left)

    def resident(self) -> int:
        """Bytes of memory that the program holds, its libraries included."""
        return int(psutil.Process(self.process).memory_info().rss)

    def processor_seconds(self) -> float:
        """Processor time of the program so far."""
        times = psutil.Process(self.process).cpu_times()
        return float(times.user + times.system)
