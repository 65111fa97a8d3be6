"""A run's memory on a GPU, from the steps that try it to what is left to later estimates."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import psutil
import torch

from qlora_tui.engine.forecast import dimensions_of_model, recipe_facts, recipe_of, this_card
from qlora_tui.engine.gauge import read_gauge
from qlora_tui.engine.probe import probe_training, random_numbers_kept, sequence_lengths
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.history import MeasuredRun, formula_fault, remember, stack_versions
from qlora_tui.memory.recipe import GIB, Recipe
from qlora_tui.memory.settings import Situation
from qlora_tui.memory.speed import throughput
from qlora_tui.runs.events import Memory, MemoryMoment

if TYPE_CHECKING:
    from qlora_tui.engine.heldout import HeldOutMeasure
    from qlora_tui.engine.lock import Lock
    from qlora_tui.engine.report import EventLog
    from qlora_tui.engine.rows import RunRows
    from qlora_tui.engine.trainer import RunTrainer

SLACK = 1.03
"""What a run needs over its allocated peak: measured with the allocator capped (docs/benchmarks.md)."""
_WARMING_UP = 3
"""Steps that are slower than the rest."""


class MemoryWatch:
    """Reports a run's memory and holds the estimate against it."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._faulted = False

    def probe(self, trainer: RunTrainer, measure: HeldOutMeasure, rows: RunRows) -> None:
        """Try the run's worst shapes, report what they take, and ask for less if it is more than can be had.

        Raises:
            torch.OutOfMemoryError: if a smaller micro-batch is needed.
            OutOfMemory: if a held-out row does not fit.
        """
        trainer.peaks.forget()
        probe_training(trainer)
        trainer.peaks.settle("training")
        with random_numbers_kept():
            for held_out in (rows.selection, rows.test):
                if held_out:
                    measure.probe(held_out)
        trainer.peaks.settle("evaluation")
        self._report(trainer, "probe")
        allocated, gauge = trainer.peaks.of("training"), read_gauge()
        if gauge is None or allocated is None or SLACK * allocated <= gauge.capacity:
            return
        needs = f"{SLACK * allocated / GIB:.1f} GiB are needed and {gauge.capacity / GIB:.1f} GiB can be had"
        if trainer.args.per_device_train_batch_size > 1:
            raise torch.OutOfMemoryError(f"the steps that try the memory fit, but barely: {needs}")
        self._log.warn("memory", f"Memory is very short: {needs}. The run may stop on the way.")

    def finish(self, trainer: RunTrainer, model: str, lock: Lock, situation: Situation) -> None:
        """Report the whole of training, and leave it to the next estimate on this machine."""
        trainer.peaks.settle("training")
        found = self._report(trainer, "end")
        gauge, allocated = read_gauge(), trainer.peaks.of("training")
        if gauge is None or not allocated or not trainer.speeds:
            return
        recipe = recipe_of(trainer.run_config, sequence_lengths(trainer.train_dataset))
        measured = MeasuredRun(
            time=time.time(),
            run=trainer.run.name,
            card=lock.hardware.gpu or "",
            device_total=gauge.total,
            driver=lock.hardware.driver,
            stack=stack_versions(),
            model=model[:300],
            fingerprint=lock.model.fingerprint,
            recipe=recipe_facts(recipe),
            allocated=allocated,
            reserved=max(allocated, trainer.peaks.reserved or 0),
            process=gauge.process,
            context=gauge.context,
            tokens_per_second=statistics.median(trainer.speeds[min(_WARMING_UP, len(trainer.speeds) // 2) :]),
            estimated_allocated=found.allocated if found else None,
            estimated_process=found.process.point if found else None,
            estimated_tokens_per_second=_predicted_speed(recipe, situation),
        )
        try:
            remember(measured)
        except OSError as error:
            self._log.warn("history", f"What was measured cannot be kept for later estimates: {error}")

    def _report(self, trainer: RunTrainer, moment: MemoryMoment) -> Estimate | None:
        """Write the event; a fault of the formula is told once. The estimate, if there is one."""
        found, gauge, peaks = _forecast(trainer), read_gauge(), trainer.peaks
        allocated = peaks.of("training")
        self._log.write(
            Memory(
                allocated=allocated,
                reserved=peaks.reserved,
                process=psutil.Process().memory_info().rss,
                device_free=gauge.free if gauge else None,
                device_total=gauge.total if gauge else None,
                device_process=gauge.process if gauge else None,
                evaluation=peaks.of("evaluation"),
                estimated_allocated=found.allocated if found else None,
                moment=moment,
            )
        )
        fault = formula_fault(allocated, found.allocated) if found and allocated else None
        if fault and not self._faulted:
            self._faulted = True
            self._log.warn("estimate", fault[0].upper() + fault[1:])
        return found


def _predicted_speed(recipe: Recipe, situation: Situation) -> float | None:
    """Tokens per second as the card's published rates have them, earlier runs left aside."""
    rates, dimensions, rows = situation.device.rates, situation.dimensions, situation.rows
    if rates is None or dimensions is None:
        return None
    return throughput(dimensions, recipe, rates, filled=rows.filled(recipe.micro_batch), row=rows.row).point


def _forecast(trainer: RunTrainer) -> Estimate | None:
    """What the estimate says of this run; None for a model that it does not know, and without a GPU."""
    dimensions = dimensions_of_model(trainer.model.config.to_dict())
    gauge = read_gauge()
    if dimensions is None or gauge is None:
        return None
    recipe = recipe_of(trainer.run_config, sequence_lengths(trainer.train_dataset))
    return estimate(dimensions, recipe, this_card(None, gauge.context).facts)
