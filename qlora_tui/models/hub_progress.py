"""What a download reports while it runs: the hub client's progress bars, turned into calls."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

from huggingface_hub.utils import tqdm

Progress = Callable[[int, int | None], None]
"""Called with bytes done and bytes in total, from any thread; what it raises ends the download."""


class Meter:
    """Adds up what several downloading threads report."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._lock = threading.Lock()

    def report(self, done: float) -> None:
        """Tell how many bytes have arrived in all."""
        with self._lock:
            if self._progress is not None and self._total:
                self._progress(min(int(done), self._total), self._total)


def bar_class(meter: Meter | None) -> type[Any]:
    """A progress bar for the hub's client that draws nothing, since a screen of ours may be there."""

    class SilentBar(tqdm):  # type: ignore[misc]  # the hub's client is not checked, so its classes are Any
        """Counts for the meter; a subclass, because the client asks its bar for more than the obvious methods."""

        monitor_interval = 0

        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            # Of the client's two bars over bytes this one counts what has arrived on the disk.
            self._counts = str(options.get("desc", "")).startswith("Reconstruct")
            super().__init__(*arguments, **{**options, "disable": False, "file": io.StringIO()})

        def display(self, *arguments: Any, **options: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            if self._counts and meter is not None:
                meter.report(self.n)

    return SilentBar
