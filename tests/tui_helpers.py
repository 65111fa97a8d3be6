"""The application under test: a machine of our own, no child processes, and waiting without sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from player import HOSTILE
from textual.pilot import Pilot
from textual.widget import Widget
from textual.worker import WorkerCancelled

from qlora_tui.checks import Finding as Check
from qlora_tui.config import RunConfig
from qlora_tui.data.inspection import Evidence, Finding, Glance, Histogram, Inspection, Licences
from qlora_tui.data.preview import Preview, Which
from qlora_tui.data.report import TokenCounts
from qlora_tui.errors import ModelError, QloraError
from qlora_tui.hardware import Cpu, Disk, Gpu, GpuMemory, GpuProcess, Hardware, Memory
from qlora_tui.runs.directory import RunDirectory, create_run
from qlora_tui.runs.overview import RunOverview
from qlora_tui.tui.answers import Answers, with_values
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.base_models import BaseModel
from qlora_tui.tui.inspecting import Stage
from qlora_tui.tui.preferences import Preferences
from qlora_tui.tui.services import Services

GIB = 1 << 30
NOW = 1_790_000_000.0

Steps = Callable[[Pilot[str]], Awaitable[None]]


def card(
    index: int = 0,
    name: str = "NVIDIA GeForce RTX 3060",
    *,
    capability: tuple[int, int] = (8, 6),
    total: int = 12,
    free: int = 11,
    memory: GpuMemory | str | None = "as given",
) -> Gpu:
    """A card; sizes in GiB."""
    own = GpuMemory(total * GIB, free * GIB, GIB // 4) if isinstance(memory, str) else memory
    holder = GpuProcess(812, "Xorg", GIB // 2)
    return Gpu(index, name, f"GPU-{index}", own, capability, (holder,), ecc=False, mig=False, unified=False)


CARD = card()
SMALL, MIDDLE, LARGE = (80, 24), (120, 36), (200, 50)
"""Terminals, in columns and rows."""

_RECIPE = with_values(Answers().config, {"data.source": "/data/spam.jsonl", "name": "spam"})
CHOSEN = Answers(_RECIPE, model_chosen=True, step=5)
"""Answers with a model and data."""


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
    Check("python", "ok", "Python 3.11.7 at /usr/bin/python."),
    Check("4-bit", "ok", "A 4-bit product and its gradient are right."),
    Check(
        "hub",
        "warn",
        "HF_HUB_OFFLINE is set, so the hub is not asked.",
        "Unset HF_HUB_OFFLINE to download models and data.",
    ),
]


def overview(name: str, status: str = "completed", **values: object) -> RunOverview:
    """One run of the list."""
    found = RunOverview(name, Path("/runs") / name, status, 40, 40, 0.7512, 20, NOW - 7200)  # type: ignore[arg-type]
    return replace(found, **values)  # type: ignore[arg-type]


PREVIEW = Preview(
    row=1,
    which="first",
    raw='{\n  "prompt": "Win a prize now!",\n  "completion": "spam"\n}',
    rendered="<|im_start|>user\nWin a prize now!<|im_end|>\n<|im_start|>assistant\nspam<|im_end|>\n",
    tokens=(
        ("<|im_start|>", False), ("user", False), ("\n", False), ("Win", False), (" a", False), (" prize", False),
        (" now", False), ("!", False), ("<|im_end|>", False), ("\n", False), ("<|im_start|>", False),
        ("assistant", False), ("\n", False), ("spam", True), ("<|im_end|>", True), ("\n", False),
    ),
    pieces=((0, 16),),
)  # fmt: skip
INSPECTION = Inspection(
    source="/data/spam.jsonl",
    format="prompt-completion",
    columns={"prompt": "prompt", "completion": "completion"},
    reason='Rows are read as prompt-completion from columns "prompt", "completion".',
    rows=400,
    kept=398,
    dropped={"empty answer": 2},
    first_dropped={"empty answer": 17},
    truncated=3,
    tokens_lost=120,
    tokens=TokenCounts(total=43_100, trained=1_200, p50=101, p95=180, max=612),
    quantiles={0: 40, 5: 60, 25: 80, 50: 101, 75: 130, 95: 180, 99: 300, 100: 612},
    histogram=Histogram((0, 50, 100, 150, 200, 250, 300, 550), (12, 180, 160, 30, 10, 3, 2, 1), 512),
    untrained_rows=0,
    end_of_turn_trained=True,
    duplicates=4,
    near_duplicates=1,
    evaluation_rows=None,
    eval_overlap=0,
    findings=(
        Finding(
            "email", 6, "warning", "6 rows hold e-mail addresses (7 in all).", "Remove them from the rows.",
            (Evidence(31, "please write to [e-mail] before noon"),),
        ),
        Finding("duplicates", 4, "notice", "4 rows repeat an earlier row.", "Remove them.", (Evidence(12, "Win!"),)),
    ),
    licences=Licences("cc-by-4.0", "Apache-2.0"),
    special_rows={"longest": 77, "shortest": 3},
    samples=(PREVIEW,),
)  # fmt: skip


HOSTILE_INSPECTION = replace(
    INSPECTION,
    reason=HOSTILE,
    findings=(Finding("email", 1, "serious", HOSTILE, HOSTILE, (Evidence(1, HOSTILE),)),),
    samples=(Preview(1, HOSTILE, HOSTILE * 20, HOSTILE * 20, ((HOSTILE, False), (HOSTILE, True)), ((0, 2),), HOSTILE),),
)


@dataclass
class StandInInspection:
    """An inspection that is done at once, fails, or never says anything."""

    said: list[Stage | Glance | Inspection]
    failure: QloraError | None = None
    cancelled: bool = False

    def events(self) -> Iterator[Stage | Glance | Inspection]:
        yield from self.said
        if self.failure is not None:
            raise self.failure

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Machine:
    """Stand-ins for everything the application asks; what it launched is in ``launched``."""

    hardware: Hardware = field(default_factory=lambda: machine(CARD))
    findings: list[Check] = field(default_factory=lambda: list(FINDINGS))
    runs: list[RunOverview] = field(default_factory=list)
    launched: list[RunConfig] = field(default_factory=list)
    gpus: list[str | None] = field(default_factory=list)
    failure: Exception | None = None
    said: list[Stage | Glance | Inspection] = field(default_factory=lambda: [INSPECTION])
    refusal: QloraError | None = None
    inspected: list[tuple[RunConfig, Which]] = field(default_factory=list)
    search: Callable[[str], tuple[BaseModel, ...]] = lambda _words: ()

    def services(self) -> Services:
        return Services(
            hardware=lambda: self.hardware,
            findings=lambda _hardware: self.findings,
            runs=lambda: self.runs,
            launch=self._launch,
            inspection=self._inspection,
            look_up=self._look_up,
            cached=frozenset,
            search=self.search,
            now=lambda: NOW,
            pause=0.0,
        )

    def _look_up(self, source: str) -> object:
        raise ModelError(f"The model {source} cannot be used.", "The hub is not asked in tests.", "Choose another.")

    def _inspection(self, config: RunConfig, which: Which) -> StandInInspection:
        self.inspected.append((config, which))
        return StandInInspection(self.said, self.refusal)

    def _launch(self, config: RunConfig, gpu: str | None) -> RunDirectory:
        if self.failure is not None:
            raise self.failure
        self.launched.append(config)
        self.gpus.append(gpu)
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
        # A question waits for a person.
        if waited := [worker for worker in pilot.app.workers if worker.group != "question"]:
            with suppress(WorkerCancelled):
                await pilot.app.workers.wait_for_complete(waited)
            await pilot.pause()


async def press(pilot: Pilot[str], *keys: str) -> None:
    """Press keys one after the other and let each have its effect."""
    await pilot.press(*keys)
    await settle(pilot)


async def wait_for(pilot: Pilot[str], condition: Callable[[], bool], message: str, seconds: float = 10.0) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{message}\n{screen_text(pilot.app)}"  # type: ignore[arg-type]
        await pilot.pause(0.01)


def screen_text(app: QloraApp) -> str:
    """What is on the screen, as plain text."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


def shows(pilot: Pilot[str], *texts: str) -> Callable[[], bool]:
    """Whether all of these are on the screen, to be asked again and again."""
    return lambda: all(text in screen_text(pilot.app) for text in texts)  # type: ignore[arg-type]


def focused(app: QloraApp) -> Widget:
    """What has the focus."""
    assert app.focused is not None, "nothing has the focus"
    return app.focused


class Counted:
    """Counts the calls of a method."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.calls = 0
        original = getattr(owner, name)

        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            return original(*arguments, **keywords)

        monkeypatch.setattr(owner, name, counted)
