"""The demo with three seeds, and a control that learns from shuffled labels.

    python -m benchmarks.demo [SEED | SEED=RUN_DIRECTORY ...]

A seed whose run was made already, by `make demo` say, is read from its directory instead of trained again.

The control shows that the measurement itself adds nothing: labels without meaning must leave the accuracy at chance.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.runs import ROOT, Home, demo_config, events, phase_seconds
from benchmarks.tables import publish, table
from qlora_tui.runs.events import RunFinished

SEEDS = (42, 43, 44)


def shuffled_rows(target: Path) -> Path:
    """The demo's training rows with their answers dealt out again at random."""
    lines = (ROOT / "examples" / "spam.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    answers = [row["messages"][-1]["content"] for row in rows]
    random.Random(0).shuffle(answers)
    for row, answer in zip(rows, answers, strict=True):
        row["messages"][-1]["content"] = answer
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return target


def main() -> None:
    """Measure and publish."""
    seeds = sys.argv[1:] or [str(seed) for seed in SEEDS]
    home = Home(Path(tempfile.mkdtemp(prefix="qlora-tui-demo-")))
    results: list[dict[str, Any]] = []
    for argument in seeds:
        seed, _, run = argument.partition("=")
        config = demo_config(name=f"seed-{seed}", training={"seed": int(seed)})
        results.append(_read(f"seed {seed}", Path(run)) if run else _measured(home, f"seed {seed}", config))
    control = demo_config(name="shuffled", data={"source": str(shuffled_rows(home.path / "shuffled.jsonl"))})
    results.append(_measured(home, "shuffled labels", control))
    gains = [result["accuracy"]["difference"] for result in results[:-1]]
    publish(
        "demo",
        table(
            ["run", "accuracy before", "after", "difference (95 % interval)", "loss before", "after", "minutes"],
            [_row(result) for result in results],
        ),
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


def _measured(home: Home, name: str, config: Any) -> dict[str, Any]:
    return _read(name, Path(home.train(config)["run"]))


def _read(name: str, run: Path) -> dict[str, Any]:
    last = events(run)[-1].event
    assert isinstance(last, RunFinished)
    return {
        "run": name,
        "accuracy": last.comparison["accuracy"].model_dump(),
        "loss": last.comparison["loss"].model_dump(),
        "seconds": last.seconds,
        "phases": phase_seconds(run),
    }


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
