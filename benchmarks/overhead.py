"""Tokens per second of the engine's trainer over a plain TRL trainer with the same settings, alternating.

    python -m benchmarks.overhead

Both train the same packed batches in the same order from the same weights; the engine's trainer also reports every step
durably, watches for requests, and checks every loss. Neither saves nor evaluates between the steps that are timed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTTrainer

from benchmarks.loaded import Loaded
from benchmarks.runs import demo_config
from benchmarks.tables import publish, table
from qlora_tui.config import RunConfig
from qlora_tui.engine.control import Control
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.trainer import RunTrainer, trainer_arguments
from qlora_tui.runs.directory import RunDirectory

ROUNDS = 5
STEPS = 3


class Clock(TrainerCallback):
    """When each step began; from one beginning to the next a step is counted with all that its trainer does besides."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    def on_step_begin(self, *_arguments: Any, **_keywords: Any) -> None:
        self.begun.append(time.perf_counter())


def settings() -> RunConfig:
    """The demo's recipe as the engine resolves it on a CPU."""
    return demo_config(
        name="overhead",
        data={"split": "train[:40]", "packing": True},
        quantization={"compute_dtype": "float32"},
        training={
            "micro_batch": 2,
            "gradient_checkpointing": "none",
            "attention": "sdpa",
            "layer_kernels": "none",
            "optimizer": "adamw",
        },
        evaluation={"every": 1000},
        checkpoints={"every": 1000},
    )


def main() -> None:
    """Measure and publish."""
    folder = Path(tempfile.mkdtemp(prefix="qlora-tui-overhead-"))
    run = RunDirectory(folder / "run")
    for place in (run.control, run.checkpoints):
        place.mkdir(parents=True)
    config = settings()
    loaded = Loaded(config, folder / "out")
    seconds: dict[str, list[float]] = {"plain": [], "engine": []}
    for number in range(ROUNDS + 1):
        # The order changes every round, so that a machine that slows down or speeds up favours neither.
        for name in ("plain", "engine") if number % 2 else ("engine", "plain"):
            elapsed = _timed(name, loaded, config, run, folder)
            if number:
                seconds[name].append(elapsed)
    ratios = [plain / engine for plain, engine in zip(seconds["plain"], seconds["engine"], strict=True)]
    tokens = STEPS * 2 * sum(map(len, loaded.packed["input_ids"])) / len(loaded.packed)
    publish(
        "overhead",
        table(
            ["trainer", "tokens/s, median", "slowest and fastest round"],
            [
                [label, f"{tokens / statistics.median(seconds[name]):.1f}",
                 f"{tokens / max(seconds[name]):.1f} to {tokens / min(seconds[name]):.1f}"]
                for name, label in (("plain", "plain TRL"), ("engine", "this engine"))
            ],
        ),
        f"Ratio engine / plain, median of {ROUNDS} pairs of {STEPS} steps: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}).",
        raw={"seconds": seconds, "ratios": ratios, "tokens": tokens},
    )  # fmt: skip


def _timed(name: str, loaded: Loaded, config: RunConfig, run: RunDirectory, folder: Path) -> float:
    set_seed(config.training.seed)
    trainer = _trainer(name, loaded, config, run, folder)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.begun[-1] - clock.begun[0]


def _trainer(name: str, loaded: Loaded, config: RunConfig, run: RunDirectory, folder: Path) -> Any:
    parts = {
        "model": loaded.model,
        "processing_class": loaded.base.tokenizer,
        "train_dataset": loaded.packed,
    }
    if name == "engine":
        return RunTrainer(
            run=run,
            config=config,
            log=EventLog(run.events),
            control=Control(run.control),
            measure_selection=None,
            sample=lambda _step: None,
            total_steps=STEPS + 1,
            **parts,
        )
    arguments = trainer_arguments(config, folder / "plain", STEPS + 1, cuda=False)
    trainer = SFTTrainer(args=arguments, **parts)
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


if __name__ == "__main__":
    main()
