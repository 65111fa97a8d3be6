"""How long an answer takes: one estimate, one plan, and the whole command beside fitcheck's, in turns.

python -m benchmarks.speed
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.base_models import config_of, dimensions_of_model, hub_id, shape_of
from benchmarks.rival_tools import Fitcheck, Question, hub_cache, installed, offline
from benchmarks.tables import publish, table
from qlora_tui.cards import CARDS
from qlora_tui.config import RunConfig
from qlora_tui.memory.device import device_like
from qlora_tui.memory.estimate import Recipe, estimate
from qlora_tui.memory.fit import fit_of
from qlora_tui.memory.recipe import GIB

_MODEL: Final = "Llama-3.1-8B"
_PAIRS: Final = 31
_RECIPE: Final = Recipe(micro_batch=4, sequence=2048)
_TORCH: Final = "import sys; from qlora_tui.cli import main\ntry: main()\nfinally: sys.exit('torch' in sys.modules)"


def estimate_seconds() -> list[float]:
    """Seconds of one estimate each, no two alike."""
    dimensions, seconds = dimensions_of_model(_MODEL), []
    for number in range(2000):
        recipe = replace(_RECIPE, sequence=64 * (1 + number))
        begun = time.perf_counter()
        estimate(dimensions, recipe)
        seconds.append(time.perf_counter() - begun)
    return seconds


def plan_seconds() -> list[float]:
    """Seconds of a fit with everything open each: the fastest settings that fit, the largest batch and length."""
    seconds = []
    for card in CARDS:
        for length in (512, 2048, 8192):
            values = {"name": "x", "data": {"source": "rows.jsonl", "max_length": length}}
            config = RunConfig.model_validate(values)
            begun = time.perf_counter()
            fit_of(shape_of(_MODEL), config, device_like(card))
            seconds.append(time.perf_counter() - begun)
    return seconds


def _timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Seconds that pass and seconds of processor time of a whole process; both programs say no by exit code 1."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(environment))
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    passed = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    json.loads(output)
    return passed, usage.ru_utime + usage.ru_stime


def process_seconds(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Both commands, in turns; each answers for the same model, recipe and card."""
    rival = Fitcheck()
    config = {**config_of(_MODEL), "tie_word_embeddings": shape_of(_MODEL).tie_word_embeddings}
    environment = offline(hub_cache(folder / "hub-home", {hub_id(_MODEL): config}))
    # Whatever this shell says, both programs find their bytecode from the second start on, as they do for a user.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    program, *arguments = rival.arguments(Question(hub_id(_MODEL), _RECIPE, "4090", 24 * GIB))
    theirs = [str(installed(rival) / program), *arguments]
    ours = [str(Path(sys.executable).with_name("qlora-tui")), *_our_arguments(folder)]
    found: dict[str, list[tuple[float, float]]] = {"qlora-tui": [], rival.package: []}
    for number in range(_PAIRS + 1):
        turns = [("qlora-tui", ours), (rival.package, theirs)]
        for name, command in turns if number % 2 else reversed(turns):
            taken = _timed(command, environment)
            # The first of each writes the bytecode.
            if number:
                found[name].append(taken)
    return found


def _our_arguments(folder: Path) -> list[str]:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(config_of(_MODEL)), encoding="utf-8")
    recipe = {
        "version": 1,
        "name": "x",
        "model": {"source": str(model)},
        "data": {"source": "rows.jsonl", "max_length": _RECIPE.sequence},
        "training": {"micro_batch": _RECIPE.micro_batch, "gradient_checkpointing": "full"},
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return ["estimate", "--config", str(path), "--gpu", "RTX 4090", "--json"]


def torch_loaded(folder: Path) -> bool:
    """Whether the command imports torch."""
    command = [sys.executable, "-c", _TORCH, *_our_arguments(folder)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0


def main() -> None:
    """Measure and publish."""
    estimates, plans = estimate_seconds(), plan_seconds()
    with tempfile.TemporaryDirectory() as name:
        taken, torch = process_seconds(Path(name)), torch_loaded(Path(name))
    rows = []
    for program, pairs in taken.items():
        walls, processors = zip(*pairs, strict=True)
        rows.append(
            (
                program,
                f"{1e3 * statistics.median(walls):.0f} ms",
                f"{1e3 * min(walls):.0f} to {1e3 * max(walls):.0f} ms",
                f"{1e3 * statistics.median(processors):.0f} ms",
            )
        )
    ours, theirs = taken.values()
    ratios = [
        statistics.median(mine[index] for mine in ours) / statistics.median(other[index] for other in theirs)
        for index in (0, 1)
    ]
    lines = (
        f"- **One estimate**: {1e6 * statistics.median(estimates):.0f} µs (median of {len(estimates):,}).",
        f"- **A whole plan**, everything open: {1e3 * statistics.median(plans):.1f} ms (median of {len(plans)}: every "
        f"card at three lengths), the slowest {1e3 * max(plans):.1f} ms.",
        f"- **The whole command** over fitcheck's, medians of {len(ours)} pairs in turns: {ratios[0]:.2f} of the time, "
        f"{ratios[1]:.2f} of the processor time. torch is {'imported' if torch else 'not imported'}.",
    )
    header = ("program", "time, median", "range", "processor time, median")
    raw = {"estimate_seconds": estimates, "plan_seconds": plans, "process_seconds": taken}
    publish("speed", "\n".join(lines), table(header, rows), raw=raw)


if __name__ == "__main__":
    main()
