"""Two steps at the run's worst shape before its first real one: memory runs out now or, by this measure, not at all.

Nothing of it remains: weights, optimizer states, random numbers, counters and the order of the rows are as if it had
not been, so a run with a probe gives the same losses as one without.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import bitsandbytes.functional
import numpy as np
import torch

if TYPE_CHECKING:
    from qlora_tui.engine.trainer import RunTrainer

PROBE_STEPS = 2


def probe_training(trainer: RunTrainer) -> None:
    """Run the steps; called when the trainer has prepared model and optimizer, before it takes the first row.

    The second step is the one with the optimizer's states. A resumed run has them already and must keep them, so it
    only goes through the passes.

    Raises:
        torch.OutOfMemoryError: if it does not fit; the trainer is untouched all the same.
    """
    optimizer: torch.optim.Optimizer = trainer.prepared_optimizer
    fresh = not optimizer.state
    accumulated = min(2, trainer.args.gradient_accumulation_steps)
    with _untouched(trainer, optimizer, fresh=fresh):
        trainer.current_gradient_accumulation_steps = accumulated
        for _ in range(PROBE_STEPS):
            batches = [worst_batch(trainer) for _ in range(accumulated)]
            trained = sum(int((batch["labels"] != -100).sum()) for batch in batches)
            for batch in batches:
                trainer.training_step(trainer.model_wrapped, batch, torch.tensor(trained, device=trainer.args.device))
            # Not accelerate's way, which would leave a mark on the scaler of fp16 gradients.
            trained_parameters = [each for each in trainer.model.parameters() if each.grad is not None]
            torch.nn.utils.clip_grad_norm_(trained_parameters, trainer.args.max_grad_norm)
            if fresh:
                optimizer.step()
            trainer.model.zero_grad()


def worst_batch(trainer: RunTrainer) -> dict[str, Any]:
    """The longest rows that the run has, as many as a micro-batch holds, with as many trained tokens as any row has."""
    rows = trainer.train_dataset
    lengths = sequence_lengths(rows)
    longest = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    chosen = [rows[index] for index in longest[: trainer.args.per_device_train_batch_size]]
    trained = max(sum(label != -100 for label in row["labels"]) for row in chosen)
    batch: dict[str, Any] = trainer.data_collator([_with_trained(row, trained) for row in chosen])
    return batch


def sequence_lengths(rows: Any) -> list[int]:
    """Tokens of every sequence of the trainer's data set."""
    return [len(ids) for ids in rows["input_ids"]]


def _with_trained(row: dict[str, Any], trained: int) -> dict[str, Any]:
    """The row with at least so many of its last tokens trained: the loss's memory grows with them."""
    ids: Sequence[int] = row["input_ids"]
    kept = max(0, len(ids) - trained)
    labels = [label if index < kept else ids[index] for index, label in enumerate(row["labels"])]
    return {**row, "labels": labels}


@contextmanager
def _untouched(trainer: RunTrainer, optimizer: torch.optim.Optimizer, *, fresh: bool) -> Iterator[None]:
    """Put everything back that the steps change.

    Args:
        fresh: The optimizer has no states yet: those that it makes are set to zero, which is how they begin. Taking
            them away would make a paged optimizer ask for its managed memory twice.
    """
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    weights = [parameter.detach().to("cpu", copy=True) for parameter in trained] if fresh else []
    generators = random_state()
    metrics, tokens = copy.deepcopy(trainer._metrics), trainer._total_train_tokens
    synchronises = trainer.accelerator.gradient_state.sync_gradients
    try:
        yield
    finally:
        trainer.model.zero_grad()
        with torch.no_grad():
            for parameter, weight in zip(trained, weights, strict=False):
                parameter.copy_(weight)
            if fresh:
                _zero_states(optimizer)
        trainer._metrics, trainer._total_train_tokens = metrics, tokens
        trainer.accelerator.gradient_state._set_sync_gradients(synchronises)
        trainer.step_tokens = 0
        trainer.step_loss.zero_()
        set_random_state(generators)


def _zero_states(optimizer: torch.optim.Optimizer) -> None:
    for state in optimizer.state.values():
        for name, value in state.items():
            if name.startswith("qmap"):
                continue
            if not isinstance(value, torch.Tensor):
                state[name] = 0
            elif getattr(value, "is_paged", False):
                bitsandbytes.functional.fill(value, 0)
            else:
                value.zero_()


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Whatever is drawn inside is drawn again after it."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def random_state() -> tuple[Any, ...]:
    """The state of every generator that training draws from."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), devices


def set_random_state(state: tuple[Any, ...]) -> None:
    """Go back to what :func:`random_state` gave."""
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])
