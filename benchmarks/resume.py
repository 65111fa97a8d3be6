"""Runs killed with SIGKILL in the middle of a step, a checkpoint and an evaluation, then resumed.

python -m benchmarks.resume
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.runs import Home, events, losses, short_config
from benchmarks.tables import publish, table
from qlora_tui.config_file import dump_config
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import RunFinished, RunStarted, Step

Moment = Callable[[RunDirectory], bool]


def steps_done(run: RunDirectory) -> int:
    """Step events in the log."""
    return sum(isinstance(record.event, Step) for record in events(run.path))


MOMENTS: dict[str, tuple[Moment, float]] = {
    "in a step": (lambda run: steps_done(run) >= 5, 0.5),
    "writing a checkpoint": (lambda run: (run.checkpoints / ".partial" / "checkpoint-6").exists(), 0.0),
    "in an evaluation": (lambda run: steps_done(run) >= 8, 0.3),
}


def main() -> None:
    """Measure and publish."""
    home = Home(Path(tempfile.mkdtemp(prefix="qlora-tui-resume-")))
    undisturbed = Path(home.train(short_config("undisturbed"))["run"])
    results = [_killed_and_resumed(home, undisturbed, name, *moment) for name, moment in MOMENTS.items()]
    publish(
        "resume",
        table(
            ["killed", "after step", "resumed from", "largest loss difference", "final held-out loss difference",
             "event numbers without a gap"],
            [
                [
                    result["killed"],
                    result["killed_after"],
                    result["resumed_from"],
                    f"{result['worst']:.1e}",
                    f"{result['final']:.1e}",
                    "yes" if result["gapless"] else "NO",
                ]
                for result in results
            ],
        ),
        raw=results,
    )  # fmt: skip


def _killed_and_resumed(home: Home, reference: Path, name: str, moment: Moment, pause: float) -> dict[str, Any]:
    slug = name.replace(" ", "-")
    config = home.path / f"{slug}.yaml"
    config.write_text(dump_config(short_config(slug)), encoding="utf-8")
    started = home.cli("--config", str(config), "--detach")
    run = RunDirectory(Path(started.stdout.strip().splitlines()[-1]))
    while not moment(run):
        if run.owner() is None:
            raise RuntimeError(f"{slug} ended before it was killed")
        time.sleep(0.005)
    time.sleep(pause)
    owner = run.owner()
    assert owner is not None
    os.kill(owner, signal.SIGKILL)
    killed_after = steps_done(run)
    while run.owner() is not None:
        time.sleep(0.05)
    resumed = json.loads(home.cli("resume", str(run.path), "--json").stdout)
    assert resumed["status"] == "completed", resumed
    expected, got = losses(reference), losses(run.path)
    numbers = [record.seq for record in events(run.path)]
    starts = [record.event for record in events(run.path) if isinstance(record.event, RunStarted)]
    return {
        "killed": name,
        "killed_after": killed_after,
        "resumed_from": starts[-1].resumed_from_step,
        "worst": max(abs(expected[step] - got[step]) for step in expected),
        "final": abs(_final_loss(reference) - _final_loss(run.path)),
        "gapless": numbers == list(range(1, len(numbers) + 1)),
    }


def _final_loss(run: Path) -> float:
    last = events(run)[-1].event
    assert isinstance(last, RunFinished)
    return last.comparison["loss"].after


if __name__ == "__main__":
    main()
