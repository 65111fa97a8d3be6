"""Runs of the engine on random weights, for the measurements on a GPU."""

from __future__ import annotations

import statistics
import time
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.optim import GlobalOptimManager

from benchmarks.gpu import Bench, Case
from benchmarks.random_model import (
    RandomTraining,
    bare_again,
    kernels_undone,
    mixed_lengths,
    model_files,
    random_base,
    write_rows,
)
from qlora_tui.config import RunConfig
from qlora_tui.engine.evaluate import heaviest
from qlora_tui.engine.forecast import dimensions_of_model, recipe_facts, recipe_of, this_card
from qlora_tui.engine.gauge import read_gauge, release_memory
from qlora_tui.engine.load import LoadedModel
from qlora_tui.engine.probe import sequence_lengths
from qlora_tui.engine.trainer import RunTrainer
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.recipe import DeviceFacts, Recipe
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.events import Memory, Replanned, Step
from qlora_tui.runs.feed import read_events


class Model:
    """A base in memory and its folder; :meth:`close` gives the memory back."""

    def __init__(self, bench: Bench, name: str) -> None:
        start = time.monotonic()
        self.name = name
        self.files: ModelFiles = model_files(name, bench.home / name.replace(" ", "-"), tiny=bench.rehearse)
        self.base: LoadedModel = random_base(self.files)
        self.seconds = round(time.monotonic() - start, 1)

    def close(self) -> None:
        """Forget the model."""
        del self.base
        # transformers tells bitsandbytes' one manager of every embedding, which would keep the model's alive.
        GlobalOptimManager.get_instance().initialize()
        release_memory()


def config_of(
    bench: Bench,
    model: Model,
    *,
    rows: int = 1,
    length: int = 512,
    accumulation: int = 1,
    steps: int = 3,
    mixed: bool = False,
    packing: bool = False,
    evaluation: int = 8,
    count: int | None = None,
    **choices: Any,
) -> RunConfig:
    """A run of a few steps.

    Args:
        rows: Micro-batch. length: Tokens of each row, or at most if ``mixed``.
        evaluation: Held-out rows of the same length, 0 for none.
        count: Training rows, by default what the steps take.
        choices: Fields of ``training`` and ``adapter``.
    """
    length = min(length, 48) if bench.rehearse else length
    effective = rows * accumulation
    count = count or (effective * steps * (12 if packing else 1) if mixed else effective * steps)
    lengths = mixed_lengths(count, length) if mixed else [length] * count
    held_out = None
    if evaluation:
        held_out = str(write_rows(bench.home / f"heldout-{evaluation}-{length}.jsonl", [length] * evaluation))
    adapter = {name: choices.pop(name) for name in ("rank", "dropout", "alpha") if name in choices}
    checkpoints = choices.pop("checkpoints", {"every": 100_000})
    return RunConfig.model_validate(
        {
            "name": "measured",
            "model": {"source": str(model.files.folder)},
            "adapter": adapter,
            "data": {
                "source": str(write_rows(bench.home / f"rows-{count}-{length}-{mixed}.jsonl", lengths)),
                "format": "text",
                "train_on": "all",
                "max_length": length,
                "packing": packing,
                "evaluation": {"source": held_out, "fraction": 0},
            },
            "training": {
                "effective_batch": effective,
                "micro_batch": rows,
                "max_steps": steps,
                "epochs": 100,
                "learning_rate": 1e-4,
                "gradient_checkpointing": "full",
                "attention": "sdpa",
                "layer_kernels": "none",
                "optimizer": "paged_adamw_8bit",
                "schedule": "constant",
                "warmup": 0,
                **choices,
            },
            "evaluation": {"every": 100_000, "patience": None, "rows": max(1, evaluation)},
            "checkpoints": checkpoints,
            "output": {"directory": str(bench.home / "runs"), "overwrite": True},
        }
    )


class Finished:
    """A run that was trained, with what it left; :meth:`close` takes its adapter off the base."""

    def __init__(self, model: Model, config: RunConfig, *, probes: bool = True, checkpoint: Path | None = None) -> None:
        if not torch.cuda.is_available():
            # Liger's kernels and the variable-length kernel are for GPUs; the rest of the path is rehearsed.
            config = config.changed(training={"layer_kernels": "none"})
        self.model = model
        self.kernels = kernels_undone(model.base.model)
        self.kernels.__enter__()
        self.training = RandomTraining(config, model.files, model.base)
        self.training.probes = probes
        self.trainer: RunTrainer | None = None
        try:
            self.training.load({})
            self.trainer, self.measure = self.training._trainer()
            self.trainer.peaks.forget()
            start = time.monotonic()
            self.training._train(self.trainer, checkpoint)
            self.seconds = time.monotonic() - start
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the base as it was."""
        bare_again(self.model.base, self.trainer)
        self.trainer = None
        self.kernels.__exit__(None, None, None)

    @property
    def events(self) -> list[Any]:
        """All events of the run."""
        return [record.event for record in read_events(self.training.run.events)]

    @property
    def losses(self) -> list[float | None]:
        """Loss of each step, the last word on a step that was repeated."""
        found = {event.step: event.loss for event in self.events if isinstance(event, Step)}
        return [found[step] for step in sorted(found)]

    @property
    def replanned(self) -> list[list[Any]]:
        """Step, micro-batch, accumulation and reason of each change."""
        return [
            [event.step, event.micro_batch, event.gradient_accumulation, event.reason[:160]]
            for event in self.events
            if isinstance(event, Replanned)
        ]

    def facts(self) -> Case:
        """What was measured and what the estimate says of it."""
        assert self.trainer is not None
        trainer, gauge = self.trainer, read_gauge()
        recipe = recipe_of(trainer.run_config, sequence_lengths(trainer.train_dataset))
        dimensions = dimensions_of_model(trainer.model.config.to_dict())
        assert dimensions is not None
        found = estimate(dimensions, recipe, this_card(None, gauge.context if gauge else None).facts)
        probe = [event for event in self.events if isinstance(event, Memory) and event.moment == "probe"]
        speeds = trainer.speeds[1:] or trainer.speeds
        return {
            "recipe": recipe_facts(recipe),
            "evaluation_batch": self._evaluation_batch(),
            "allocated": trainer.peaks.of("training"),
            "probe_allocated": probe[-1].allocated if probe else None,
            "evaluation": trainer.peaks.of("evaluation"),
            "reserved": trainer.peaks.reserved,
            "process": gauge.process if gauge else None,
            "context": gauge.context if gauge else None,
            "estimated": _estimated(found, self._evaluation(dimensions, recipe)),
            "tokens_per_second": round(statistics.median(speeds), 1) if speeds else None,
            "losses": self.losses,
            "replanned": self.replanned,
            "train_seconds": round(self.seconds, 2),
        }

    def _evaluation_batch(self) -> list[int] | None:
        """Rows and tokens of the largest evaluation batch."""
        rows = heaviest(self.training.rows.selection, self.measure.tokens_per_batch)
        return [len(rows), max(len(row.input_ids) for row in rows)] if rows else None

    def _evaluation(self, dimensions: Dimensions, recipe: Recipe) -> int | None:
        """What the estimate says of the largest evaluation batch."""
        batch = self._evaluation_batch()
        return evaluation_estimate(dimensions, recipe, batch, this_card(None, None).facts) if batch else None


def evaluation_estimate(dimensions: Dimensions, recipe: Recipe, batch: list[int], device: DeviceFacts) -> int:
    """Allocated bytes at the peak of an evaluation of so many rows of one length, under plain sdpa."""
    rows, length = batch
    changed = replace(recipe, micro_batch=rows, sequence=length, packed=False, padded=False, attention="sdpa")
    return estimate(dimensions, changed, device).evaluation


def _estimated(found: Estimate, evaluation: int | None) -> Case:
    return {
        "allocated": found.allocated,
        "evaluation": evaluation,
        "point": found.process.point,
        "shown": list(astuple(found.shown)),
        "managed": found.managed,
        "components": dict(found.components),
    }


def measured_run(model: Model, config: RunConfig, *, probes: bool = True) -> Case:
    """Train and say what it took."""
    finished = Finished(model, config, probes=probes)
    try:
        return finished.facts()
    finally:
        finished.close()
