"""An inspection in the engine's own process, as the events that the application shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qlora_tui.data.inspection import Glance, Inspection, from_values
from qlora_tui.runs.inspecting import InspectionFailed, Inspector
from qlora_tui.tui.inspecting import Stage

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig
    from qlora_tui.data.preview import Which


class InspectionProcess:
    """Starts the process; see :class:`~qlora_tui.tui.inspecting.Running`.

    Raises:
        EnvironmentFault: if it cannot be started.
    """

    def __init__(self, config: RunConfig, which: Which) -> None:
        self._process = Inspector(config, which)

    def events(self) -> Iterator[Stage | Glance | Inspection]:
        with self._process:
            for event in self._process.events():
                match event.get("event"):
                    case "glance":
                        yield from_values(Glance, event.get("glance"))
                    case "progress":
                        unit, total = str(event.get("unit", "")), event.get("total")
                        yield Stage(str(event.get("name", "")), event.get("done", 0), total, unit)
                    case "done":
                        yield from_values(Inspection, event.get("inspection"))
                        return
                    case "error":
                        raise InspectionFailed(event)
                    case _:
                        pass
            raise self._process.died()

    def cancel(self) -> None:
        self._process.cancel()
