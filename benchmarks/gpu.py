"""The product on one real GPU: memory, speed, life of a run, chat.

    python -m benchmarks.gpu memory|speed|life|chat [--minutes 8.5] [--only WORD] [--rehearse]
    python -m benchmarks.gpu publish

Each part goes through its cases until its time is over and appends a JSON line per case to
``benchmarks/results/gpu-PART.jsonl`` and, if OUT names a folder, to a file of that name there; a case whose line is
there already is passed over, so a part that was cut goes on with its next call. ``publish`` makes the tables of
``docs/benchmarks.md``. A rehearsal goes through the same code on any machine, with the same architectures in miniature.
Models have random weights in real shapes (:mod:`benchmarks.random_model`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
    os.environ.setdefault(_name, "expandable_segments:True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("QLORA_TUI_HOME", tempfile.mkdtemp(prefix="qlora-tui-gpu-"))

RESULTS = Path(__file__).resolve().parent / "results"
Case = dict[str, Any]


@dataclass
class Bench:
    """One call of the script.

    Attributes:
        until: When no further case is begun, on the monotonic clock.
        home: Folder for models, rows and runs.
    """

    part: str
    rehearse: bool
    until: float
    only: str
    home: Path

    @property
    def _files(self) -> list[Path]:
        name = f"gpu-{self.part}{'-rehearsal' if self.rehearse else ''}.jsonl"
        out = os.environ.get("OUT")
        return [RESULTS / name, *([Path(out) / name] if out else [])]

    def done(self) -> set[str]:
        """Names of the cases that have a line without an error."""
        if self.rehearse or not self._files[0].exists():
            return set()
        return {line["case"] for line in _lines(self._files[0]) if "error" not in line}

    def write(self, case: str, values: Case) -> None:
        """Add a line."""
        line = json.dumps({"case": case, **values}) + "\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        for path in self._files:
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def run(self, case: str, work: Callable[[], Case]) -> bool:
        """Do a case unless it is done or the time is over; whether there is time for another one."""
        if time.monotonic() > self.until:
            sys.stdout.write(f"time is over before {case}\n")
            return False
        if case in self.done() or self.only not in case:
            return True
        start = time.monotonic()
        try:
            values = work()
        except Exception as error:
            traceback.print_exc(limit=-6)
            values = {"error": f"{type(error).__name__}: {error}"[:400]}
        self.write(case, {**values, "wall": round(time.monotonic() - start, 1)})
        return True


def main() -> int:
    """Run a part, or publish all of them; 1 if a case of a rehearsal failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["memory", "speed", "life", "chat", "publish"])
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--only", default="")
    parser.add_argument("--rehearse", action="store_true")
    asked = parser.parse_args()
    if asked.part == "publish":
        from benchmarks.gpu_tables import publish_all

        publish_all()
        return 0
    home = Path(tempfile.mkdtemp(prefix="qlora-tui-gpu-"))
    bench = Bench(asked.part, asked.rehearse, time.monotonic() + 60 * asked.minutes, asked.only, home)
    rehearsal = bench._files[0]
    if asked.rehearse:
        rehearsal.unlink(missing_ok=True)
    bench.write("machine", _machine())
    _parts()[asked.part](bench)
    return int(asked.rehearse and '"error"' in rehearsal.read_text(encoding="utf-8"))


def _machine() -> Case:
    import torch

    from qlora_tui.engine.lock import current_hardware, library_versions

    return {
        "hardware": current_hardware().model_dump(),
        "versions": library_versions(),
        "capability": torch.cuda.get_device_capability() if torch.cuda.is_available() else None,
        "time": time.time(),
    }


def _parts() -> dict[str, Callable[[Bench], None]]:
    from benchmarks import gpu_chat, gpu_life, gpu_memory, gpu_speed

    return {"memory": gpu_memory.main, "speed": gpu_speed.main, "life": gpu_life.main, "chat": gpu_chat.main}


def results(part: str) -> Iterator[Case]:
    """The lines of a part; of several lines of one case the last without an error."""
    found: dict[str, Case] = {}
    for values in _lines(RESULTS / f"gpu-{part}.jsonl"):
        if "error" not in values or "error" in found.get(values["case"], values):
            found[values["case"]] = values
    yield from found.values()


def _lines(path: Path) -> Iterator[Case]:
    """The whole lines of a file; a call that was cut may have left half of one."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(ValueError):
            yield json.loads(line)


if __name__ == "__main__":
    sys.exit(main())
