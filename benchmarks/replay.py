"""One run and its replay from its own config: every step's loss, side by side.

python -m benchmarks.replay
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.runs import Home, losses, short_config
from benchmarks.tables import publish, table


def main() -> None:
    """Measure and publish."""
    home = Home(Path(tempfile.mkdtemp(prefix="qlora-tui-replay-")))
    first = Path(home.train(short_config("original"))["run"])
    replayed = home.cli("--config", str(first / "config.yaml"), "--json")
    summary = json.loads(replayed.stdout)
    original, replay = losses(first), losses(Path(summary["run"]))
    worst = max(abs(original[step] - replay[step]) for step in original)
    publish(
        "replay",
        table(
            ["step", "loss", "loss of the replay", "difference"],
            [
                [step, f"{loss:.9f}", f"{replay[step]:.9f}", f"{abs(loss - replay[step]):.1e}"]
                for step, loss in original.items()
            ],
        ),
        f"{len(original)} steps, {len(replay)} in the replay; largest difference {worst:.1e}; "
        f"drift reported: {', '.join(summary['drift']) or 'none'}.",
        raw={"original": original, "replay": replay, "drift": summary["drift"]},
    )


if __name__ == "__main__":
    main()
