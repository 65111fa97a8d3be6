"""The whole journey in a terminal, by keys alone: from a fresh home to a merged model."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from real_model import converted_model, shared_cache
from tmux import Tmux, plain_environment

from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import RunFinished, RunStarted, Step
from qlora_tui.runs.feed import read_events
from qlora_tui.runs.launch import kill

pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]
PATIENCE = 600.0
"""Seconds for what the engine does, on a slow machine with much else to do."""


def answer(terminal: Tmux) -> None:
    """The five questions: this machine, the bundled model, some of the demo's rows, a light recipe."""
    terminal.press("Enter")
    terminal.wait("Plan for another card")
    terminal.press("C-n")
    terminal.wait("bundled:smollm2")
    terminal.press("Enter")
    terminal.wait("● bundled:smollm2")
    terminal.press("C-n")
    terminal.wait("Near at hand")
    terminal.type("bundled:spam")
    terminal.press("Enter")
    terminal.wait("train on", seconds=PATIENCE)
    terminal.press("Up")
    fill(terminal, "split", "train[:24]")
    terminal.press("Enter")
    terminal.wait("24 read", seconds=PATIENCE)
    terminal.press("C-n")
    terminal.wait("start from")
    terminal.press("Up", "Up", "Up", "Up", "Enter")
    terminal.wait("rank              8")
    terminal.press(*["Down"] * 9)
    fill(terminal, "effective batch", "1")
    terminal.press("Down")
    fill(terminal, "epochs", "2")
    terminal.wait("effective batch   1", "epochs            2")


def fill(terminal: Tmux, field: str, text: str) -> None:
    """Type over what stands in the field, once the hint says that it has the focus: Textual selects its text then."""

    def has_focus(screen: str) -> bool:
        return any(line.strip().startswith(f"{field}  ") for line in screen.splitlines()[-6:])

    terminal.until(has_focus, f"has the focus in {field}")
    terminal.type(text)


def train(terminal: Tmux) -> None:
    """Start, watch, leave it alone, come back, stop it, go on to the end."""
    terminal.press("C-n")
    terminal.wait("Start training")
    terminal.press("s")
    terminal.wait("● training")
    terminal.wait("▸ train", seconds=PATIENCE)
    for words in ("No samples yet", "show no trouble", "train: started", "smoothed"):
        terminal.press("v")
        terminal.wait(words)
    terminal.press("q")
    terminal.wait("Detach")
    terminal.press("Enter")
    terminal.wait("spam goes on training")
    terminal.type("clear; qlora-tui attach")
    terminal.press("Enter")
    terminal.wait("● training", "▸ train")
    terminal.press("s")
    terminal.wait("■ stopped", seconds=PATIENCE)
    terminal.press("r")
    terminal.wait("● training", seconds=PATIENCE)
    terminal.wait("✓ completed", seconds=PATIENCE)


def ask_and_merge(terminal: Tmux) -> None:
    """Both sides answer the same; then the adapter becomes part of the model."""
    terminal.press("7")
    terminal.wait("loaded  ·", seconds=PATIENCE)
    terminal.type("Answer with yes.")
    terminal.press("Enter")
    terminal.wait("adapter  ", "base  ", "tokens, ", seconds=PATIENCE)
    terminal.press("C-n")
    terminal.wait("Merge into 16-bit weights")
    terminal.press("m")
    terminal.wait("same likeliest token at", seconds=PATIENCE)
    terminal.press("q")
    terminal.until(lambda screen: screen.strip().endswith("$"), "is the shell again")


@pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_from_a_fresh_home_to_a_merged_model_by_keys_alone(tmp_path: Path, size: tuple[int, int]) -> None:
    converted_model()
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = plain_environment(HOME=str(tmp_path), QLORA_TUI_CACHE=str(shared_cache()), PATH=search, PS1="$ ")
    run = RunDirectory(tmp_path / ".local" / "share" / "qlora-tui" / "runs" / "spam")
    terminal = Tmux(tmp_path, size, environment)
    try:
        with terminal:
            terminal.type("qlora-tui")
            terminal.press("Enter")
            terminal.wait("Train a new adapter")
            answer(terminal)
            train(terminal)
            ask_and_merge(terminal)
    finally:
        if run.path.is_dir() and run.owner() is not None:
            kill(run)
        (tmp_path / "walk.txt").write_text("\n".join(terminal.record))
    events = [record.event for record in read_events(run.events)]
    assert [event.resumed_from_step is None for event in events if isinstance(event, RunStarted)] == [True, False]
    assert [event.status for event in events if isinstance(event, RunFinished)] == ["stopped", "completed"]
    steps = [event.step for event in events if isinstance(event, Step)]
    assert steps == list(range(1, len(steps) + 1))
    assert (run.path / "merged-exact" / "model.safetensors").is_file()
