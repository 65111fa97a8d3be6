"""The application under test: a machine of our own, no child processes, and waiting without sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from textual.pilot import Pilot
from textual.widget import Widget

from qlora_tui.checks import Finding
from qlora_tui.config import RunConfig
from qlora_tui.hardware import Cpu, Disk, Gpu, GpuMemory, GpuProcess, Hardware, Memory
from qlora_tui.runs.directory import RunDirectory, create_run
from qlora_tui.runs.overview import RunOverview
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.preferences import Preferences
from qlora_tui.tui.services import Services

GIB = 1 << 30
NOW = 1_790_000_000.0

Steps = Callable[[Pilot[str]], Awaitable[None]]

CARD = Gpu(
    index=0,
    name="NVIDIA GeForce RTX 3060",
    uuid="GPU-0",
    memory=GpuMemory(12 * GIB, 11 * GIB, GIB // 4),
    capability=(8, 6),
    processes=(GpuProcess(812, "Xorg", GIB // 2),),
    ecc=False,
    mig=False,
    unified=False,
)


def machine(*gpus: Gpu) -> Hardware:
    """A machine with these GPUs."""
    return Hardware(
        gpus=gpus,
        no_gpu=None if gpus else "No NVIDIA driver is installed: its library libnvidia-ml was not found.",
        driver="590.48" if gpus else None,
        cuda=(13, 1) if gpus else None,
        cpu=Cpu("Example 9 CPU", 8, 16, 16, ("avx2",)),
        memory=Memory(32 * GIB, 24 * GIB),
        disks=(
            Disk("runs", Path("/home/me/runs"), 200 * GIB, True),
            Disk("cache", Path("/home/me/cache"), 200 * GIB, True),
        ),
    )


FINDINGS = [
    Finding("python", "ok", "Python 3.11.7 at /usr/bin/python."),
    Finding("4-bit", "ok", "A 4-bit product and its gradient are right."),
    Finding("disk runs", "warn", "4.0 GiB free in /home/me/runs.", "Free some space, or set QLORA_TUI_RUNS."),
]


def overview(name: str, status: str = "completed", **values: object) -> RunOverview:
    """One run of the list."""
    found = RunOverview(name, Path("/runs") / name, status, 40, 40, 0.7512, 20, NOW - 7200)  # type: ignore[arg-type]
    return replace(found, **values)  # type: ignore[arg-type]


@dataclass
class Machine:
    """Stand-ins for everything the application asks; what it launched is in ``launched``."""

    hardware: Hardware = field(default_factory=lambda: machine(CARD))
    findings: list[Finding] = field(default_factory=lambda: list(FINDINGS))
    runs: list[RunOverview] = field(default_factory=list)
    launched: list[RunConfig] = field(default_factory=list)
    failure: Exception | None = None

    def services(self) -> Services:
        return Services(
            hardware=lambda: self.hardware,
            findings=lambda _hardware: self.findings,
            runs=lambda: self.runs,
            launch=self._launch,
            now=lambda: NOW,
        )

    def _launch(self, config: RunConfig) -> RunDirectory:
        if self.failure is not None:
            raise self.failure
        self.launched.append(config)
        return create_run(config)


def application(stand_in: Machine | None = None, **preferences: object) -> QloraApp:
    """The application on a stand-in machine, without animation."""
    chosen = Preferences(**{"motion": False, **preferences})  # type: ignore[arg-type]
    return QloraApp((stand_in or Machine()).services(), preferences=chosen)


def drive(app: QloraApp, steps: Steps, size: tuple[int, int] = (100, 30)) -> None:
    """Run the application and some steps in it."""

    async def session() -> None:
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await steps(pilot)

    asyncio.run(session())


async def settle(pilot: Pilot[str], seconds: float = 20.0) -> None:
    """Wait until all workers are done and all messages are handled."""
    async with asyncio.timeout(seconds):
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


async def press(pilot: Pilot[str], *keys: str) -> None:
    """Press keys one after the other and let each have its effect."""
    await pilot.press(*keys)
    await settle(pilot)


async def wait_for(pilot: Pilot[str], condition: Callable[[], bool], message: str, seconds: float = 10.0) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message
        await pilot.pause(0.01)


def screen_text(app: QloraApp) -> str:
    """What is on the screen, as plain text."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def focused(app: QloraApp) -> Widget:
    """What has the focus."""
    assert app.focused is not None, "nothing has the focus"
    return app.focused
