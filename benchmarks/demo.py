"""The demo with three seeds.

    python -m benchmarks.demo [SEED | SEED=RUN_DIRECTORY ...]

A seed whose run was made already, by `make demo` say, is read from its directory instead of trained again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.runs import Home, demo_config, events, phase_seconds
from benchmarks.tables import publish, table
from qlora_tui.runs.events import RunFinished

SEEDS = (42, 43, 44)


def main() -> None:
    """Measure and publish."""
    seeds = sys.argv[1:] or [str(seed) for seed in SEEDS]
    home = Home(Path(tempfile.mkdtemp(prefix="qlora-tui-demo-")))
    results: list[dict[str, Any]] = []
    for argument in seeds:
        seed, _, run = argument.partition("=")
        config = demo_config(name=f"seed-{seed}", training={"seed": int(seed)})
        results.append(measured(f"seed {seed}", Path(run or home.train(config)["run"])))
    gains = [result["accuracy"]["difference"] for result in results]
    publish(
        "demo",
        gains_table(results),
        f"Mean gain of the {len(gains)} seeds: {sum(gains) / len(gains):+.3f} in accuracy on 200 held-out rows.",
        table(
            ["phase", *[f"{result['run']}, s" for result in results]],
            [
                [phase, *[f"{result['phases'].get(phase, 0.0):.1f}" for result in results]]
                for phase in results[0]["phases"]
            ],
        ),
        raw=results,
    )


def measured(name: str, run: Path) -> dict[str, Any]:
    """What the finished run in ``run`` measured before and after, and how long each of its phases took, in seconds."""
    last = events(run)[-1].event
    assert isinstance(last, RunFinished)
    return {
        "run": name,
        "accuracy": last.comparison["accuracy"].model_dump(),
        "loss": last.comparison["loss"].model_dump(),
        "seconds": last.seconds,
        "phases": phase_seconds(run),
    }


def gains_table(results: list[dict[str, Any]]) -> str:
    """A row a run: accuracy and loss on the same held-out rows before and after."""
    return table(
        ["run", "accuracy before", "after", "difference (95 % interval)", "loss before", "after", "minutes"],
        [_row(result) for result in results],
    )


def _row(result: dict[str, Any]) -> list[str]:
    accuracy, loss = result["accuracy"], result["loss"]
    return [
        result["run"],
        f"{accuracy['before']:.3f}",
        f"{accuracy['after']:.3f}",
        f"{accuracy['difference']:+.3f} ({accuracy['low']:+.3f} to {accuracy['high']:+.3f})",
        f"{loss['before']:.3f}",
        f"{loss['after']:.3f}",
        f"{result['seconds'] / 60:.1f}",
    ]


if __name__ == "__main__":
    main()
