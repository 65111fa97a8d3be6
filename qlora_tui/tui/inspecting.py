"""One inspection at a time: started a moment after the last change, ended when another one is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from qlora_tui.errors import QloraError
from qlora_tui.tui.words import count

if TYPE_CHECKING:
    from textual.timer import Timer

    from qlora_tui.config import RunConfig
    from qlora_tui.data.inspection import Glance, Inspection
    from qlora_tui.data.preview import Which
    from qlora_tui.tui.app import QloraApp


@dataclass(frozen=True, slots=True)
class Stage:
    """How far an inspection is."""

    name: str
    done: int
    total: int | None
    unit: str

    def words(self) -> str:
        """For people."""
        if not self.done:
            return f"{self.name} …"
        if self.unit == "bytes":
            return f"{self.name}: {self.done / self.total:.0%}" if self.total else f"{self.name}: {self.done >> 20} MiB"
        whole = f" of {count(self.total)}" if self.total else ""
        return f"{self.name}: {count(self.done)}{whole} {self.unit}"


class Running(Protocol):
    """An inspection under way."""

    def events(self) -> Iterator[Stage | Glance | Inspection]:
        """What it says, the inspection last.

        Raises:
            QloraError: if the data cannot be inspected.
        """
        ...

    def cancel(self) -> None:
        """End it at once; its events end too."""
        ...


class Inspections:
    """Keeps ``app.seen`` true."""

    def __init__(self, app: QloraApp) -> None:
        self._app = app
        self._running: Running | None = None
        self._timer: Timer | None = None

    def start(self, config: RunConfig, which: Which, key: Any) -> None:
        """Look at the data of a config; whatever runs is ended."""
        self.cancel()
        pause = self._app.services.pause
        if pause > 0:
            self._timer = self._app.set_timer(pause, partial(self._begin, config, which, key))
        else:
            self._begin(config, which, key)

    def cancel(self) -> None:
        """End what runs."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def _begin(self, config: RunConfig, which: Which, key: Any) -> None:
        work = partial(self._follow, config, which, key)
        self._app.run_worker(work, thread=True, group="inspection", exit_on_error=False)

    def _follow(self, config: RunConfig, which: Which, key: Any) -> None:
        """In a thread: start the process and pass on what it says."""
        tell = self._app.call_from_thread
        try:
            running = self._app.services.inspection(config, which)
            if not tell(self._take_over, running, key):
                running.cancel()
                return
            for event in running.events():
                tell(self._take, running, key, event)
        except QloraError as error:
            tell(self._refuse, key, error)

    def _take_over(self, running: Running, key: Any) -> bool:
        wanted = self._app.seen is not None and self._app.seen.key == key
        if wanted:
            self.cancel()
            self._running = running
        return wanted

    def _take(self, running: Running, key: Any, event: Stage | Glance | Inspection) -> None:
        # Imported here: it brings the tokenizers, which nobody who only looks around should wait for.
        from qlora_tui.data.inspection import Glance

        seen = self._app.seen
        if running is not self._running or seen is None or seen.key != key:
            return
        match event:
            case Stage():
                self._app.seen = replace(seen, progress=event.words())
            case Glance():
                self._app.seen = replace(seen, reason=event.reason, preview=seen.preview or event.preview)
            case _:
                row = event.samples[0] if event.samples else seen.preview
                self._app.seen = replace(seen, progress="", reason=event.reason, preview=row, inspection=event)

    def _refuse(self, key: Any, error: QloraError) -> None:
        seen = self._app.seen
        if seen is not None and seen.key == key:
            self._app.seen = replace(seen, progress="", error=error)
