"""A run's life on a card: what the driver tells, the probe, running out of memory, resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from benchmarks.gpu import Bench, Case
from benchmarks.gpu_runs import Finished, Model, config_of
from benchmarks.tables import ROOT
from qlora_tui.engine import trainer as trainer_module
from qlora_tui.engine.checkpoints import complete_checkpoints
from qlora_tui.engine.gauge import read_gauge
from qlora_tui.errors import OutOfMemory
from qlora_tui.gpus import read_driver
from qlora_tui.memory.history import calibration, stack_versions

MODEL: Final = "llama 1B"
_QUERY: Final = "name,memory.total,memory.free,memory.used,driver_version,compute_cap"


def main(bench: Bench) -> None:
    """All cases, the cheap ones first."""
    if not bench.run("NVML against nvidia-smi", _driver):
        return
    model = Model(bench, MODEL)
    for name, work in (
        ("resume, paged 8-bit", lambda: _resume(bench, model, "paged_adamw_8bit")),
        ("resume, 32-bit", lambda: _resume(bench, model, "adamw")),
        ("resume as peft loads it", lambda: _resume(bench, model, "paged_adamw_8bit", theirs=True)),
        ("probe", lambda: _probe(bench, model)),
        ("too large at the probe", lambda: _too_large(bench, model, probes=True)),
        ("too large on the way", lambda: _too_large(bench, model, probes=False)),
        ("one row too large", lambda: _hopeless(bench, model)),
        ("evaluation larger than training", lambda: _evaluation(bench, model)),
        ("history", _history),
        ("demo, from its rows to its accuracy", lambda: _demo(bench)),
    ):
        if not bench.run(name, work):
            return


def _driver() -> Case:
    memory = psutil.virtual_memory()
    torch.zeros(1, device="cuda" if torch.cuda.is_available() else "cpu")
    snapshot = read_driver((memory.total, memory.available))
    try:
        command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except OSError as error:
        said = f"no nvidia-smi: {error}"
    gauge = read_gauge()
    return {
        "nvidia_smi": said,
        "nvml": [
            {
                "name": gpu.name,
                "total_mib": gpu.memory.total >> 20 if gpu.memory else None,
                "free_mib": gpu.memory.free >> 20 if gpu.memory else None,
                "used_mib": gpu.memory.used >> 20 if gpu.memory else None,
                "capability": gpu.capability,
                "processes": [[each.pid, each.memory] for each in gpu.processes or ()],
                "unread": gpu.unread,
            }
            for gpu in snapshot.gpus
        ],
        "driver": snapshot.version,
        "process": gauge.process if gauge else None,
        "context": gauge.context if gauge else None,
    }


def _resume(bench: Bench, model: Model, optimizer: str, *, theirs: bool = False) -> Case:
    """Eight steps in one go, twice; and four steps, a checkpoint, four more.

    Args:
        theirs: Load the checkpoint as the trainer itself would, to see what that costs.
    """
    settings: dict[str, Any] = {"rows": 2, "length": 512, "steps": 8, "evaluation": 0, "optimizer": optimizer}
    # Above the usual rate, so that a small difference in the weights shows in the losses; far above it the last bits
    # of sums that a GPU takes in any order would grow until two equal runs had nothing in common.
    settings |= {"checkpoints": {"every": 4, "keep": 3}, "learning_rate": 1e-3}
    config = config_of(bench, model, **settings)
    whole, adapter = _losses(model, config)
    again, adapter_again = _losses(model, config)
    first = Finished(model, config)
    # The directory is made anew for each run, so the checkpoint waits beside it.
    kept = bench.home / f"kept-{optimizer}-{theirs}" / "checkpoint-4"
    kept.parent.mkdir(exist_ok=True)
    complete_checkpoints(first.training.run.checkpoints)[0].rename(kept)
    first.close()
    own = trainer_module.RunTrainer._load_from_checkpoint
    if theirs:
        del trainer_module.RunTrainer._load_from_checkpoint
    try:
        resumed, adapter_resumed = _losses(model, config, checkpoint=kept)
    finally:
        trainer_module.RunTrainer._load_from_checkpoint = own  # type: ignore[method-assign]
    return {
        "whole": whole,
        "again": again,
        "resumed": resumed,
        "difference_again": _difference(whole, again),
        "difference_resumed": _difference(whole[4:], resumed),
        "weights_again": _distance(adapter, adapter_again),
        "weights_resumed": _distance(adapter, adapter_resumed),
        "adapter": sorted({str(each.dtype) for each in adapter}),
        "adapter_resumed": sorted({str(each.dtype) for each in adapter_resumed}),
    }


def _distance(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    """The largest difference of any weight."""
    return max(float((a.float() - b.float()).abs().max()) for a, b in zip(left, right, strict=True))


def _losses(model: Model, config: Any, checkpoint: Path | None = None) -> tuple[list[float | None], list[torch.Tensor]]:
    """Loss of each step, and the adapter at the end."""
    finished = Finished(model, config, checkpoint=checkpoint)
    assert finished.trainer is not None
    adapter = [each.detach().cpu() for each in finished.trainer.model.parameters() if each.requires_grad]
    try:
        return finished.losses, adapter
    finally:
        finished.close()


def _difference(left: list[float | None], right: list[float | None]) -> float | None:
    pairs = [(a, b) for a, b in zip(left, right, strict=False) if a is not None and b is not None]
    return max((abs(a - b) for a, b in pairs), default=None)


def _probe(bench: Bench, model: Model) -> Case:
    """What the probe costs, and whether it shows in the losses beyond what a repetition shows."""
    config = config_of(bench, model, rows=2, length=1024, steps=4, dropout=0.1, evaluation=4)
    found: dict[str, Any] = {}
    for name, probes in (("without", False), ("without_again", False), ("with", True)):
        finished = Finished(model, config, probes=probes)
        found[name] = {**finished.facts(), "losses": finished.losses}
        finished.close()
    found["difference_again"] = _difference(found["without"]["losses"], found["without_again"]["losses"])
    found["difference_probed"] = _difference(found["without"]["losses"], found["with"]["losses"])
    return found


@contextmanager
def _capped(size: int) -> Iterator[None]:
    """At most so many bytes for torch."""
    if not torch.cuda.is_available():
        yield
        return
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, size / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _need(bench: Bench, model: Model, rows: int, length: int) -> int:
    """Allocated bytes of a run of this size, measured."""
    finished = Finished(model, config_of(bench, model, rows=rows, length=length, steps=2, evaluation=0))
    allocated = finished.facts()["allocated"]
    finished.close()
    return int(allocated or 0)


def _too_large(bench: Bench, model: Model, *, probes: bool) -> Case:
    """Room for three rows of four: without a probe the run meets a long row only in its fifth step or so."""
    small, large = (_need(bench, model, rows, 2048) for rows in (2, 4))
    config = config_of(bench, model, rows=4, length=2048, steps=8, mixed=True, evaluation=0, count=64)
    planned = config_of(bench, model, rows=2, accumulation=2, length=2048, steps=8, mixed=True, evaluation=0, count=64)
    with _capped((small + large) // 2):
        finished = Finished(model, config, probes=probes)
        facts = finished.facts()
        kept = finished.training.run.read_config().training
        facts["config"] = [kept.micro_batch, kept.effective_batch]
        finished.close()
    reference = Finished(model, planned, probes=False)
    facts["planned_losses"] = reference.losses
    reference.close()
    facts["difference"] = _difference(facts["planned_losses"], facts["losses"])
    facts["cap"] = (small + large) // 2
    return facts


def _hopeless(bench: Bench, model: Model) -> Case:
    """No room for a single row: the advice."""
    cap = round(1.3 * _need(bench, model, 1, 256))
    config = config_of(bench, model, rows=4, length=8192, steps=2, evaluation=0, gradient_checkpointing="none")
    with _capped(cap):
        try:
            Finished(model, config).close()
        except OutOfMemory as error:
            return _told(cap, error)
    return {"cap": cap, "fits": True}


def _told(cap: int, error: OutOfMemory) -> Case:
    return {"cap": cap, "exit_code": int(error.exit_code), "what": error.what, "why": error.why, "hint": error.hint}


def _evaluation(bench: Bench, model: Model) -> Case:
    """Short training rows and long held-out ones, with room for the training only."""
    need = _need(bench, model, 1, 512)
    config = config_of(bench, model, rows=1, length=512, steps=2, evaluation=0)
    large = config_of(bench, model, rows=1, length=2048, steps=2, evaluation=16)
    config = config.changed(data={"evaluation": {"source": large.data.evaluation.source}, "max_length": 2048})
    cap = round(1.06 * need)
    with _capped(cap):
        try:
            finished = Finished(model, config)
        except OutOfMemory as error:
            return _told(cap, error)
        facts = finished.facts() | {"cap": cap}
        finished.close()
    return facts


def _demo(bench: Bench) -> Case:
    """The demo as the command line trains it, in NF4 on this card.

    Where the bundled model is not installed, ``DEMO_MODEL`` names its file.
    """
    text = (ROOT / "examples" / "demo.yaml").read_text(encoding="utf-8")
    if bench.rehearse:
        return {"skipped": "the demo has a benchmark of its own on a CPU"}
    config = bench.home / "demo.yaml"
    config.write_text(text.replace("bundled:smollm2-135m", os.environ.get("DEMO_MODEL", "bundled:smollm2-135m")))
    command = [sys.executable, "-c", "import sys; from qlora_tui.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "--config", str(config), "--json"], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    accuracy = summary["comparison"]["accuracy"]
    return {
        "seconds": summary["seconds"],
        "accuracy": [accuracy["before"], accuracy["after"]],
        "interval": [accuracy["low"], accuracy["high"]],
    }


def _history() -> Case:
    """What these runs left to the next estimate."""
    if not torch.cuda.is_available():
        return {"skipped": "no GPU"}
    found = calibration(torch.cuda.get_device_name(), stack=stack_versions())
    if found is None:
        return {"error": "nothing was remembered"}
    return {"context": found.context, "speed": found.speed, "runs": found.runs, "notes": found.notes}
