"""What the application asks of the rest of the program and of the machine; tests put stand-ins here.

Everything may block, so everything is called from thread workers only, except ``now``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qlora_tui.checks import Finding
    from qlora_tui.config import RunConfig
    from qlora_tui.data.preview import Which
    from qlora_tui.hardware import Hardware
    from qlora_tui.runs.directory import RunDirectory
    from qlora_tui.runs.overview import RunOverview
    from qlora_tui.tui.base_models import BaseModel
    from qlora_tui.tui.inspecting import Running


def _hardware() -> Hardware:
    from qlora_tui.hardware import snapshot

    return snapshot()


def _findings(hardware: Hardware) -> list[Finding]:
    from qlora_tui.doctor import examine

    return examine(hardware=hardware)


def _runs() -> list[RunOverview]:
    from qlora_tui.runs.overview import overviews

    return overviews()


def _launch(config: RunConfig, gpu: str | None) -> RunDirectory:
    """Make the run directory and start the detached engine, on the GPU of that uuid if one is given."""
    from qlora_tui.runs.directory import create_run
    from qlora_tui.runs.launch import start

    run = create_run(config)
    start(run, gpu=gpu)
    return run


def _look_up(source: str) -> object:
    from qlora_tui.tui.base_models import look_up

    return look_up(source)


def _cached() -> frozenset[str]:
    from qlora_tui.tui.base_models import look_in_cache

    return look_in_cache()


def _inspection(config: RunConfig, which: Which) -> Running:
    from qlora_tui.tui.inspection_process import InspectionProcess

    return InspectionProcess(config, which)


def _search(words: str) -> tuple[BaseModel, ...]:
    from qlora_tui.tui.base_models import search_hub

    return search_hub(words)


@dataclass(frozen=True, slots=True)
class Services:
    """The seams of the application."""

    hardware: Callable[[], Hardware] = _hardware
    findings: Callable[[Hardware], list[Finding]] = _findings
    runs: Callable[[], list[RunOverview]] = _runs
    launch: Callable[[RunConfig, str | None], RunDirectory] = _launch
    inspection: Callable[[RunConfig, Which], Running] = _inspection
    look_up: Callable[[str], object] = _look_up
    cached: Callable[[], frozenset[str]] = _cached
    search: Callable[[str], tuple[BaseModel, ...]] = _search
    now: Callable[[], float] = time.time
    pause: float = 0.3
    """Seconds without another change before the data is looked at."""
