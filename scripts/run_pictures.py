"""Pictures of a real run: training under way, chat with adapter and base side by side, ship.

Training under way is the run's own log up to two thirds of its steps. The chat loads the model and asks the first
held-out row; the ship screen shows what the run's folder holds, so merge before if the check is to be seen.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pictures import ROOT, SIZES, THEMES, writer
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input, TextArea

from qlora_tui.paths import cache_directory
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Step
from qlora_tui.runs.feed import read_events
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.preferences import Preferences
from qlora_tui.tui.screens.chat import ChatScreen
from qlora_tui.tui.screens.ship import ShipScreen
from qlora_tui.tui.screens.train import TrainScreen
from qlora_tui.tui.services import Services

sys.path.insert(0, str(ROOT / "tests"))

from tui_helpers import CARD, FINDINGS, machine, press, settle, wait_for

SHOWN = 0.66
"""Share of the run's steps in the picture of training under way."""
_LOADING_SECONDS = 600.0
_ANSWER_TOKENS = 24
"""An untrained model may go on for long, and the picture is to show both answers."""
Prepare = Callable[[Pilot[str]], Awaitable[None]]


async def pictures_of(run: RunDirectory, folder: Path) -> None:
    """Write the pictures of a run that has ended."""
    with _copy(run) as copied:
        now = _cut(copied)
        await _pictures("train", TrainScreen(copied), _train_is_drawn, now, folder)
    with _copy(run) as copied:
        last = max(record.time for record in read_events(copied.events))
        await _pictures("ship", ShipScreen(copied), settle, last, folder)
        await _pictures("chat", ChatScreen(copied), _ask, last, folder)


async def _pictures(name: str, screen: Screen[None], prepare: Prepare, now: float, folder: Path) -> None:
    """One screen at all sizes and in all themes, prepared once."""
    services = Services(
        hardware=lambda: machine(CARD),
        findings=lambda _hardware: FINDINGS,
        runs=list,
        cached=frozenset,
        now=lambda: now,
    )
    app = QloraApp(services, preferences=Preferences(theme=THEMES[0], motion=False))
    async with app.run_test(size=SIZES[-1]) as pilot:
        app._show_alone(screen)
        await settle(pilot)
        for editor in (*screen.query(Input), *screen.query(TextArea)):
            editor.cursor_blink = False
        await prepare(pilot)
        for size in SIZES:
            await pilot.resize_terminal(*size)
            if name == "chat":
                screen.query_one("#settings").set_class(size == SIZES[0], "-away")
            for theme in THEMES:
                app.theme = theme
                await pilot.pause(1.0)  # charts are drawn at most twice a second
                writer(folder, size, theme)(name, app.export_screenshot())


async def _train_is_drawn(pilot: Pilot[str]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, TrainScreen)
    await wait_for(pilot, lambda: screen._drawn == screen.panels.charted > 0, "the run is not drawn", 60.0)


async def _ask(pilot: Pilot[str]) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, ChatScreen)
    await wait_for(
        pilot, lambda: screen.session.alive and screen._loaded_life > 0, "it is not loaded", _LOADING_SECONDS
    )
    screen.query_one("#set-max-tokens", Input).value = str(_ANSWER_TOKENS)
    await press(pilot, "f4")
    await wait_for(pilot, lambda: bool(pilot.app.screen._rows), "no held-out rows", 60.0)  # type: ignore[attr-defined]
    await pilot.press("down", "down", "enter")
    await pilot.pause(1.0)
    await wait_for(pilot, lambda: not screen._busy, "no answers", _LOADING_SECONDS)


@contextmanager
def _copy(run: RunDirectory) -> Iterator[RunDirectory]:
    """The run and the cache, where its base lies, at places whose names are fit to be shown."""
    home, cache = Path(tempfile.gettempdir()) / "me", cache_directory()
    copied = RunDirectory(home / "runs" / run.name)
    try:
        shutil.copytree(run.path, copied.path)
        (home / "cache").symlink_to(cache.absolute())
        os.environ["QLORA_TUI_CACHE"] = str(home / "cache")
        for path in (copied.events, copied.config, *copied.path.glob("merged*/merge.json")):
            path.write_text(path.read_text(encoding="utf-8").replace(str(run.path.parent), str(home / "runs")))
        copied.process.unlink(missing_ok=True)
        yield copied
    finally:
        os.environ["QLORA_TUI_CACHE"] = str(cache)
        shutil.rmtree(home, ignore_errors=True)


def _cut(run: RunDirectory) -> float:
    """Take the run back to the middle of its training, with this process as its owner; the time of day there."""
    lines = run.events.read_text(encoding="utf-8").splitlines(keepends=True)
    records = list(read_events(run.events))
    last = max(record.event.step for record in records if isinstance(record.event, Step))
    end = next(
        place
        for place, record in enumerate(records)
        if isinstance(record.event, Step) and record.event.step >= SHOWN * last
    )
    run.events.write_text("".join(lines[: end + 1]), encoding="utf-8")
    me = psutil.Process(os.getpid())
    run.process.write_text(json.dumps({"pid": me.pid, "created": me.create_time()}))
    return records[end].time + 1.0
