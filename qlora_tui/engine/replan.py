"""Going on after memory ran out: a smaller micro-batch, more of them to an update, the same effective batch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qlora_tui.config_file import dump_config
from qlora_tui.engine import checkpoints
from qlora_tui.engine.forecast import this_card
from qlora_tui.engine.gauge import is_out_of_memory, read_gauge, release_memory
from qlora_tui.engine.probe import random_state, sequence_lengths, set_random_state
from qlora_tui.errors import ModelError, OutOfMemory
from qlora_tui.memory.fit import Rows, fit_of
from qlora_tui.memory.from_config import parts_of
from qlora_tui.memory.remedies import bad_news
from qlora_tui.memory.words import size
from qlora_tui.models.shape import shape_from_config
from qlora_tui.runs.events import Replanned
from qlora_tui.runs.files import write_atomic

if TYPE_CHECKING:
    from qlora_tui.engine.trainer import RunTrainer


def smaller_micro_batch(micro_batch: int, effective_batch: int) -> int | None:
    """The largest part of the effective batch that is at most half the micro-batch; None below one."""
    return max((size for size in parts_of(effective_batch) if size <= micro_batch // 2), default=None)


class Start:
    """What a run begins with, kept until its first checkpoint: adapter weights and random numbers."""

    def __init__(self, model: Any) -> None:
        self._weights = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self._generators = random_state()

    @torch.no_grad()
    def restore(self, model: Any) -> None:
        """Put it back."""
        for name, parameter in model.named_parameters():
            if name in self._weights:
                parameter.copy_(self._weights[name])
        set_random_state(self._generators)


def train_within_memory(trainer: RunTrainer, checkpoint: Path | None) -> None:
    """Train to the end, with smaller micro-batches each time memory runs out.

    Raises:
        OutOfMemory: if a micro-batch of one row does not fit.
    """
    start = Start(trainer.model) if checkpoint is None else None
    while (failure := _attempt(trainer, checkpoint)) is not None:
        checkpoint = _replan(trainer, failure, checkpoint, start)


def _attempt(trainer: RunTrainer, checkpoint: Path | None) -> str | None:
    """Train; what the allocator said if memory ran out. The exception, whose frames hold tensors, is gone by then."""
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return str(error).splitlines()[0] if str(error) else "the device has no memory left"
    return None


def _replan(trainer: RunTrainer, failure: str, checkpoint: Path | None, start: Start | None) -> Path | None:
    """Change the recipe and free the memory; where to go on from, None for the beginning."""
    config = trainer.run_config
    before, effective = trainer.args.per_device_train_batch_size, config.training.effective_batch
    trainer.model.zero_grad()
    release_memory()
    micro_batch = smaller_micro_batch(before, effective)
    if micro_batch is None:
        raise give_up(trainer, failure)
    goes_on = _last_finished_step(trainer, checkpoint, start)
    step = checkpoints.step_of(goes_on) if goes_on else 0
    trainer.take_recipe(config.changed(training={"micro_batch": micro_batch}))
    write_atomic(trainer.run.config, dump_config(trainer.run_config))
    accumulation = trainer.run_config.gradient_accumulation
    reason = f"memory ran out with {before} rows at once: {failure}"
    trainer.log_events.write(
        Replanned(step=step, micro_batch=micro_batch, gradient_accumulation=accumulation, reason=reason)
    )
    trainer.log_events.warn(
        "memory",
        f"A micro-batch of {before} does not fit on this device. Training goes on from step {step} with {micro_batch}, "
        f"{accumulation} of them to an update: the same result, somewhat slower.",
    )
    return goes_on


def _last_finished_step(trainer: RunTrainer, checkpoint: Path | None, start: Start | None) -> Path | None:
    """A checkpoint of the last step that was finished, from memory where that is whole; None for the beginning."""
    step = max(trainer.state.global_step, checkpoints.step_of(checkpoint) if checkpoint else 0)
    saved = checkpoints.complete_checkpoints(trainer.run.checkpoints)
    known = [path for path in saved if checkpoints.step_of(path) <= step]
    newest = known[-1] if known and (checkpoint or step) else None
    if newest is not None and checkpoints.step_of(newest) == step:
        found: Path | None = newest
    elif step > 0 and not trainer.updating:
        trainer._save_checkpoint(trainer.model, None)
        found = checkpoints.complete_checkpoints(trainer.run.checkpoints)[-1]
    else:
        found = newest
    if found is None and start is not None:
        start.restore(trainer.model)
        trainer.forget_progress()
        shutil.rmtree(trainer.run.checkpoints / ".partial", ignore_errors=True)
    elif found is not None:
        trainer.go_on_from(found)
    return found


def give_up(trainer: RunTrainer, failure: str) -> OutOfMemory:
    """The error for a run whose single row does not fit, with what would."""
    return OutOfMemory(
        "The run stopped because one row at a time does not fit into memory.",
        f"The allocator says: {failure}.",
        f"{_way_out(trainer)} After that, start a new run; steps of this one stay in its checkpoints.",
    )


def _way_out(trainer: RunTrainer) -> str:
    """What to change, by the estimate where it knows the model and sees the shortage as well."""
    config, gauge = trainer.run_config, read_gauge()
    lengths = sequence_lengths(trainer.train_dataset)
    rows = Rows(packed=bool(config.data.packing), longest=max(lengths, default=None))
    context = gauge.context or 0 if gauge else 0
    device = this_card(gauge.capacity + context if gauge else None, context)
    usual = "Lower data.max_length, or use a smaller model."
    try:
        shape = shape_from_config(trainer.model.config.to_dict())
        fit = fit_of(shape, config, device, rows)
        ways = bad_news(shape, config, fit, rows)
    except ModelError:
        return usual
    needs = f"One row of {fit.recipe.sequence:,} tokens needs about {size(fit.process.point)}."
    return " ".join([needs, *(ways or [usual])])
