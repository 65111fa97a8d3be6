"""The bundled model, converted once for all tests, and small runs of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qlora_tui.config import ModelSection, RunConfig
from qlora_tui.models.sources import ModelFiles, resolve_model
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Event, Record, Step
from qlora_tui.runs.feed import read_events

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "examples" / "spam.jsonl"
HELD_OUT = ROOT / "examples" / "spam-heldout.jsonl"


def config_for(directory: Path, name: str, *, rows: int = 12, held_out: int = 6, **sections: Any) -> RunConfig:
    """A short real run: NF4 SmolLM2 on a few rows of the demo data, at most two of them in a step."""
    values: dict[str, Any] = {
        "name": name,
        "data": {
            "source": str(ROWS),
            "split": f"train[:{rows}]",
            "max_length": 256,
            "evaluation": {"source": str(HELD_OUT)},
        },
        "training": {"effective_batch": 1, "learning_rate": 1e-3},
        "evaluation": {"rows": held_out, "every": 2},
        "checkpoints": {"every": 2},
        "output": {"directory": str(directory)},
    }
    for section, fields in sections.items():
        values[section] = {**values.get(section, {}), **fields}
    return RunConfig.model_validate(values)


def shared_cache() -> Path:
    """The cache that holds the converted model for all tests of this checkout."""
    return ROOT / ".pytest_cache" / "qlora-tui"


def converted_model() -> ModelFiles:
    """The bundled model as a folder, converted on first use (about 20 s)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QLORA_TUI_CACHE", str(shared_cache()))
        files = resolve_model(ModelSection())
        if not files.converted:
            from qlora_tui.engine.convert import convert_gguf

            convert_gguf(files, lambda *_progress: None)
    return files


def environment() -> dict[str, str]:
    """The environment of child processes: the shared converted model, no network."""
    return {**os.environ, "QLORA_TUI_CACHE": str(shared_cache()), "HF_HUB_OFFLINE": "1"}


def run_cli(*arguments: str, timeout: float = 600, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """The console script in a process of its own."""
    command = [str(Path(sys.executable).with_name("qlora-tui")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(), check=False, **keywords
    )


def events_of(run: Path, kind: type[Event] | None = None) -> list[Record]:
    """All events of a run, or those of one kind."""
    return [
        record for record in read_events(RunDirectory(run).events) if kind is None or isinstance(record.event, kind)
    ]


def losses_of(run: Path) -> dict[int, float | None]:
    """Loss by step; where a step was repeated after a crash, the last word counts."""
    steps = [record.event for record in events_of(run, Step)]
    return {step.step: step.loss for step in steps if isinstance(step, Step)}


def summary_of(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that ``--json`` prints."""
    values: dict[str, Any] = json.loads(finished.stdout)
    return values
