"""The signals that a terminal or a job scheduler sends to whoever follows a run."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

REPEAT_SECONDS = 0.3
"""Two signals closer than this are one key press that reached us on two ways."""


class Interruptions:
    """Counts the signals that ask a follower to do something; the handlers themselves do nothing.

    A signal that the caller's environment ignores (``nohup``, a background job) stays ignored.
    """

    def __init__(self) -> None:
        self.stops = 0
        self.hung_up = False
        self.leave = False
        self._last_stop = -math.inf
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            signal.SIGINT: self._on_stop,
            signal.SIGTERM: self._on_stop,
            signal.SIGHUP: self._on_hang_up,
            signal.SIGQUIT: self._on_leave,
        }
        for each, handler in handlers.items():
            if signal.getsignal(each) is not signal.SIG_IGN:
                self._previous[each] = signal.signal(each, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)
        self._previous.clear()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last_stop >= REPEAT_SECONDS:
            self.stops += 1
        self._last_stop = now

    def _on_hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self.hung_up = True

    def _on_leave(self, _number: int, _frame: FrameType | None) -> None:
        self.leave = True
