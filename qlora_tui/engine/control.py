"""What may interrupt a run from outside: signals, and requests left in ``control/``."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

from qlora_tui.errors import ExitCode


class StopRequested(Exception):
    """Raised between two pieces of work, once a stop has been asked for, where there is no step to finish."""


class Control:
    """Answers whether a stop, a checkpoint or a sample has been asked for.

    The first SIGINT or SIGTERM asks for a stop; the second ends the process at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signalled = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._signalled:
            os._exit(ExitCode.INTERRUPTED)
        self._signalled = True

    @property
    def stop(self) -> bool:
        """Whether the run should finish its step, save and exit."""
        return self._signalled or (self._folder / "stop").exists()

    def take(self, request: str) -> bool:
        """Whether ``request`` (checkpoint, sample) was asked for; it is then done with."""
        path = self._folder / request
        if not path.exists():
            return False
        path.unlink(missing_ok=True)
        return True

    def raise_if_stopped(self) -> None:
        """Leave the current phase if a stop was asked for.

        Raises:
            StopRequested: if so.
        """
        if self.stop:
            raise StopRequested
