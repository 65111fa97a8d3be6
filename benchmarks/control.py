"""The demo's control: rows whose answers mean nothing must teach nothing.

    python -m benchmarks.control

Each shuffle keeps the answers of half of the e-mails of either class and turns the others round, so an answer says
nothing about its e-mail. It is trained twice, the second time with every answer the other way round: a direction that
so few rows suggest by accident points both ways and cancels. The last adapter counts; none is chosen by true answers.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.demo import gains_table, measured
from benchmarks.runs import ROOT, Home, demo_config
from benchmarks.tables import publish

SHUFFLES = (0, 1)
ROWS = 240
OTHER = {"spam": "ham", "ham": "spam"}
#: No evaluation falls on a step before the last, so no earlier adapter can be preferred.
NEVER = 1000


def shuffled_rows(seed: int, *, mirrored: bool) -> list[dict[str, Any]]:
    """The demo's training rows, half of each class with the other's answer; ``mirrored`` turns all of them round."""
    lines = (ROOT / "examples" / "spam.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    rows = [json.loads(line) for line in lines]
    chance = random.Random(seed)
    answers = [row["messages"][-1] for row in rows]
    kept: set[int] = set()
    for label in OTHER:
        own = [number for number, answer in enumerate(answers) if answer["content"] == label]
        kept.update(chance.sample(own, len(own) // 2))
    for number, answer in enumerate(answers):
        if (number in kept) == mirrored:
            answer["content"] = OTHER[answer["content"]]
    return rows


def main() -> None:
    """Measure and publish."""
    home = Home(Path(tempfile.mkdtemp(prefix="qlora-tui-control-")))
    results = []
    for seed in SHUFFLES:
        for mirrored in (False, True):
            name = f"shuffle-{seed}{'-mirrored' if mirrored else ''}"
            rows = home.path / f"{name}.jsonl"
            rows.write_text("".join(json.dumps(row) + "\n" for row in shuffled_rows(seed, mirrored=mirrored)))
            config = demo_config(name=name, data={"source": str(rows), "split": "train"}, evaluation={"every": NEVER})
            results.append(measured(name.replace("-", " "), Path(home.train(config)["run"])))
    show(results)


def show(results: list[dict[str, Any]]) -> None:
    """Publish the runs beside what tossing a coin would give on as many rows."""
    gains = [result["accuracy"]["difference"] for result in results]
    after = statistics.mean(result["accuracy"]["after"] for result in results)
    rows = results[0]["accuracy"]["rows"]
    margin = 1.96 * (0.25 / rows) ** 0.5
    publish(
        "control",
        gains_table(results),
        f"Mean over {len(results)} runs: accuracy {after:.3f} after training, {statistics.mean(gains):+.3f} (from "
        f"{min(gains):+.3f} to {max(gains):+.3f}). A coin tossed for {rows} rows is right {0.5 - margin:.3f} to "
        f"{0.5 + margin:.3f} of the time (95 %).",
        raw=results,
    )


if __name__ == "__main__":
    main()
