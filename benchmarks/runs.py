"""Running the real command line from a benchmark, in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlora_tui.config import RunConfig
from qlora_tui.config_file import dump_config, load_config
from qlora_tui.runs.events import Phase, Record, Step
from qlora_tui.runs.feed import read_events

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Home:
    """A folder with runs and cache of its own."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "QLORA_TUI_HOME": str(self.path), "HF_HUB_OFFLINE": "1"}

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The console script; its narration stays visible."""
        command = [str(Path(sys.executable).with_name("qlora-tui")), *arguments]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=None, text=True, env=self.environment, cwd=ROOT, check=False
        )

    def train(self, config: RunConfig) -> dict[str, Any]:
        """Train ``config`` and return the JSON summary.

        Raises:
            RuntimeError: if the run did not end well.
        """
        path = self.path / f"{config.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_config(config), encoding="utf-8")
        finished = self.cli("--config", str(path), "--json", "--overwrite")
        if finished.returncode:
            raise RuntimeError(f"{config.name} ended with {finished.returncode}: {finished.stdout}")
        summary: dict[str, Any] = json.loads(finished.stdout)
        return summary


def demo_config(**sections: Any) -> RunConfig:
    """The demo's config with some fields replaced; its files by absolute path."""
    config = load_config(ROOT / "examples" / "demo.yaml")
    evaluation = {"source": str(ROOT / "examples" / "spam-heldout.jsonl")}
    return config.changed(data={"source": str(ROOT / "examples" / "spam.jsonl"), "evaluation": evaluation}).changed(
        **sections
    )


def short_config(name: str, **sections: Any) -> RunConfig:
    """A run of about a dozen short steps with evaluations and checkpoints on the way."""
    short: dict[str, dict[str, Any]] = {
        "data": {"split": "train[:24]", "max_length": 256},
        "training": {"effective_batch": 1},
        "evaluation": {"rows": 16, "every": 4, "metrics": ["accuracy"]},
        "checkpoints": {"every": 3},
    }
    config = demo_config(name=name)
    for section, fields in {**short, **sections}.items():
        config = config.changed(**{section: {**short.get(section, {}), **fields}})
    return config


def events(run: Path) -> list[Record]:
    """All events of a run."""
    return read_events(run / "events.jsonl")


def losses(run: Path) -> dict[int, float]:
    """Loss by step; the last word on a repeated step counts."""
    steps = [record.event for record in events(run) if isinstance(record.event, Step)]
    return {step.step: step.loss for step in steps if isinstance(step, Step) and step.loss is not None}


def phase_seconds(run: Path) -> dict[str, float]:
    """Seconds of each finished phase."""
    finished = [record.event for record in events(run) if isinstance(record.event, Phase)]
    return {phase.phase: phase.seconds for phase in finished if isinstance(phase, Phase) and phase.seconds is not None}
