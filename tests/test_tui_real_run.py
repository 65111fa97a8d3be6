"""The screens of a run on the real engine: train, stop, resume, ask, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from real_model import config_for, converted_model, shared_cache
from textual.pilot import Pilot
from textual.widgets import Input, Static
from tui_helpers import drive, press, screen_text, wait_for

from qlora_tui.runs import launch
from qlora_tui.runs.directory import create_run
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.preferences import Preferences
from qlora_tui.tui.screens.chat import ChatScreen
from qlora_tui.tui.screens.ship import ShipScreen

pytestmark = pytest.mark.full
PATIENCE = 900.0
"""Seconds for what the engine does, on a slow machine with much else to do."""


def test_a_run_is_watched_stopped_resumed_asked_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted_model()
    monkeypatch.setenv("QLORA_TUI_CACHE", str(shared_cache()))
    run = create_run(config_for(tmp_path / "runs", "small", rows=8, held_out=2, data={"packing": False}))
    launch.start(run)
    app = QloraApp(preferences=Preferences(motion=False))

    async def shown(pilot: Pilot[str], *texts: str) -> None:
        await wait_for(pilot, lambda: all(text in screen_text(app) for text in texts), " ".join(texts), PATIENCE)

    async def train(pilot: Pilot[str]) -> None:
        app.open_station("train", run)
        await shown(pilot, "● training", "▸ train", " of 8")
        await pilot.press("s")
        await shown(pilot, "■ stopped")
        assert run.adapter.is_dir()
        await pilot.press("r")
        await shown(pilot, "● training")
        await shown(pilot, "✓ completed", "step 8 of 8", "✓ evaluate")

    async def ask(pilot: Pilot[str]) -> None:
        await pilot.press("7")
        screen: Any = app.screen
        assert isinstance(screen, ChatScreen)
        await shown(pilot, "loaded  ·")
        screen.query_one("#set-max-tokens", Input).value = "4"
        await pilot.press(*"Hello", "enter")

        def is_answered() -> bool:
            asked = screen.conversation.exchanges
            return bool(asked) and [each.stopped_by is not None for each in asked[0].replies.values()] == [True, True]

        await wait_for(pilot, is_answered, "both answers", PATIENCE)
        replies = screen.conversation.exchanges[0].replies
        assert [(side, 0 < reply.tokens <= 4) for side, reply in replies.items()] == [("adapter", True), ("base", True)]
        session = screen.session
        await press(pilot, "escape")
        await wait_for(pilot, lambda: session.pid is None, "the model's memory is given back", 60.0)

    async def merge(pilot: Pilot[str]) -> None:
        app.open_station("ship", run)
        screen = app.screen
        assert isinstance(screen, ShipScreen)
        await pilot.press("m")
        words = "exact"
        await wait_for(pilot, lambda: words in (screen._shipment.merges if screen._shipment else ()), words, PATIENCE)
        assert "same likeliest token at" in str(screen.query_one("#ship-merged", Static).content)
        assert (run.path / "merged-exact" / "model.safetensors").is_file()

    async def walk(pilot: Pilot[str]) -> None:
        await train(pilot)
        await ask(pilot)
        await merge(pilot)

    drive(app, walk, (120, 36))
