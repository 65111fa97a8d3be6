"""One run from its inputs to its adapter: load, baseline, train, evaluate, save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from qlora_tui.advice import playbook
from qlora_tui.config import RunConfig
from qlora_tui.config_file import dump_config
from qlora_tui.engine import checkpoints
from qlora_tui.engine.agreement import ATTENTION_TOLERANCE, attention_difference, tokenizer_difference
from qlora_tui.engine.attention import PACKED_VARLEN, register
from qlora_tui.engine.control import Control
from qlora_tui.engine.fused_adapter import fuse_adapters
from qlora_tui.engine.heldout import HeldOutMeasure
from qlora_tui.engine.load import LoadedModel, attach_new_adapter, compute_dtype_name, load_base, trainable_parameters
from qlora_tui.engine.lock import build_lock, read_lock, write_lock
from qlora_tui.engine.measurement import Measurement
from qlora_tui.engine.prepare import Inputs
from qlora_tui.engine.recipe_checks import check_model_supports, position_warning
from qlora_tui.engine.replan import train_within_memory
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.rows import as_dataset
from qlora_tui.engine.ship import write_card
from qlora_tui.engine.situation import situation_of
from qlora_tui.engine.trainer import RunTrainer, load_adapter_weights
from qlora_tui.engine.watch import MemoryWatch
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Comparison, FinishStatus, RunFinished, Sample
from qlora_tui.runs.files import write_atomic


class Training:
    """The phases of a run that need the model: load, baseline, train, evaluate, save.

    Args:
        run: The run directory, owned by this process.
        config: Its config; every ``auto`` that is left is decided here.
        inputs: The model's files and the rows.
        log: Its event log.
        control: Tells when to stop.
    """

    def __init__(self, run: RunDirectory, config: RunConfig, inputs: Inputs, log: EventLog, control: Control) -> None:
        self.run = run
        self.config = config
        self.files = inputs.files
        self.rows = inputs.rows
        self.hardware = inputs.hardware
        self.log = log
        self.control = control
        self.watch = MemoryWatch(log)
        self.probes = torch.cuda.is_available()
        """Whether the memory is tried out before the first step."""

    def load(self, details: dict[str, int | float | str | bool]) -> None:
        """Load the base, decide every ``auto``, attach the adapter; facts for the phase's event go into ``details``.

        Raises:
            QloraError: if the model cannot be loaded or the adapter does not fit it.
        """
        set_seed(self.config.training.seed)
        loaded = self.load_base()
        self.dataset, choices = self._resolve_config(loaded)
        details |= {choice.field: f"{choice.value} ({choice.reason})" for choice in choices}
        if self.config.training.attention == "varlen":
            register()
            loaded.model.set_attn_implementation(PACKED_VARLEN)
        model = attach_new_adapter(loaded, self.config.adapter)
        if self.config.training.layer_kernels == "liger":
            fuse_adapters(model)
        # The name that others can load the base by, instead of a folder of this machine's cache.
        model.peft_config["default"].base_model_name_or_path = self.files.source
        trained, total = trainable_parameters(model)
        details |= {"trainable_parameters": trained, "parameters": total, "device": loaded.device.type}
        self.loaded = LoadedModel(model, loaded.tokenizer, loaded.device, loaded.dtype)
        self._write_lock()
        self._check_tokenizer()
        self.control.raise_if_stopped()

    def load_base(self) -> LoadedModel:
        """The base model and its tokenizer."""
        return load_base(self.files, self.config, training=True)

    def go(self, checkpoint: Path | None) -> None:
        """Measure, train from the start or from ``checkpoint``, measure again, save.

        Raises:
            QloraError: for everything that a user can mend.
            StopRequested: if a stop was asked for before training began.
        """
        trainer, measure = self._trainer()
        before = self._measure(measure)
        self._train(trainer, checkpoint)
        stopped = self.control.stop
        comparison = {} if stopped else self._evaluate(trainer, measure, before)
        self._save(trainer, comparison)
        self._finish(trainer, comparison, stopped=stopped)

    def _resolve_config(self, loaded: LoadedModel) -> tuple[Any, list[playbook.Choice]]:
        config = self.config
        packing, choices = config.data.packing, []
        if packing == "auto":
            packing, reason = playbook.wants_packing(
                [len(row.input_ids) for row in self.rows.train], config.data.max_length
            )
            config = config.changed(data={"packing": packing})
            choices.append(playbook.Choice("data.packing", packing, reason))
        check_model_supports(config, loaded.model.config)
        if warning := position_warning(config, loaded.model.config):
            self.log.warn("positions", warning)
        dataset = as_dataset(self.rows.train, config.data, packing=packing)
        lengths = [len(row.input_ids) for row in self.rows.train]
        self.situation = situation_of(self.files.folder, loaded.model.config, self.hardware, lengths, packed=packing)
        facts = playbook.Facts(
            compute_dtype=compute_dtype_name("auto"),
            parameters=trainable_parameters(loaded.model)[1],
            rows=len(self.rows.train),
            sequences=len(dataset),
            train_tokens=sum(lengths),
            selection_tokens=sum(len(row.input_ids) for row in self.rows.selection),
            situation=self.situation,
        )
        self.config, more = playbook.resolve(config, facts)
        write_atomic(self.run.config, dump_config(self.config))
        self.total_steps = playbook.total_steps(self.config, len(dataset))
        return dataset, [*choices, *more]

    def _write_lock(self) -> None:
        self.lock = build_lock(self.config, self.files, self.rows.fingerprints, self.rows.encoder.template_fingerprint)
        expected = read_lock(self.run.path / "expected-lock.json") or read_lock(self.run.lock)
        for difference in expected.drift(self.lock) if expected else []:
            self.log.warn("drift", difference)
        write_lock(self.run.lock, self.lock)

    def _check_tokenizer(self) -> None:
        """Ship the template that trains, and say so if transformers' tokenizer disagrees with the encoder."""
        template = self.rows.encoder.template
        if template.origin == "plain":
            self.loaded.tokenizer.chat_template = template.source
        if difference := tokenizer_difference(self.rows.encoder, self.loaded.tokenizer, self.rows.train):
            self.log.warn("tokenizer", difference)

    def _trainer(self) -> tuple[RunTrainer, HeldOutMeasure]:
        trainer = RunTrainer(
            run=self.run,
            config=self.config,
            log=self.log,
            control=self.control,
            total_steps=self.total_steps,
            model=self.loaded.model,
            processing_class=self.loaded.tokenizer,
            train_dataset=self.dataset,
            measure_selection=(lambda: measure.loss_of(self.rows.selection)) if self.rows.selection else None,
            sample=lambda step: self._sample(measure, step),
            probe=(lambda trainer: self.watch.probe(trainer, measure, self.rows)) if self.probes else None,
        )
        if self.config.training.attention == "varlen" and self.loaded.device.type == "cuda":
            self._check_attention(trainer)
        measure = HeldOutMeasure(trainer.model, self.loaded.tokenizer, self.rows, self.config, self.log, self.control)
        return trainer, measure

    def _check_attention(self, trainer: RunTrainer) -> None:
        """Fall back to sdpa if variable-length attention does not give this model's loss here."""
        batch = trainer.data_collator([trainer.train_dataset[0]])
        batch = {
            name: value.to(trainer.args.device) if hasattr(value, "to") else value for name, value in batch.items()
        }
        difference = attention_difference(trainer.model, batch)
        if not difference <= ATTENTION_TOLERANCE:
            trainer.model.get_base_model().set_attn_implementation("sdpa")
            self.log.warn(
                "attention",
                f"Variable-length attention changed the loss of one batch by {difference:.1%} on this GPU, "
                "so plain sdpa is used: slower, but right.",
            )

    def _measure(self, measure: HeldOutMeasure) -> Measurement | None:
        """The measurement before training; a resumed run takes the one of its first life."""
        if not self.rows.test:
            return None
        kept = self.run.path / "before.json"
        if (known := Measurement.read(kept)) is not None and len(known.rows) == len(self.rows.test):
            return known
        with self.log.phase("baseline"):
            before = measure.full(self.rows.test, "before", 0, 0.0, "baseline")
        write_atomic(kept, before.to_json())
        self._sample(measure, 0)
        return before

    def _train(self, trainer: RunTrainer, checkpoint: Path | None) -> None:
        if checkpoint:
            trainer.go_on_from(checkpoint)
        with self.log.phase("train") as details:
            details["total_steps"] = self.total_steps
            if not self._is_over(trainer, checkpoint):
                train_within_memory(trainer, checkpoint)
        # It may have been replanned.
        self.config = trainer.run_config
        self.watch.finish(trainer, self.files.source, self.lock, self.situation)

    def _is_over(self, trainer: RunTrainer, checkpoint: Path | None) -> bool:
        """Whether the resumed checkpoint is already the end of training; its weights are then loaded."""
        if checkpoint is None:
            return False
        over = checkpoints.step_of(checkpoint) >= self.total_steps or trainer.standing.stopped_early
        if over:
            load_adapter_weights(trainer.model, checkpoint)
            trainer.state.global_step = checkpoints.step_of(checkpoint)
        return over

    def _evaluate(
        self, trainer: RunTrainer, measure: HeldOutMeasure, before: Measurement | None
    ) -> dict[str, Comparison]:
        """Measure the best adapter on the rows of the baseline, and compare row by row."""
        if before is None:
            return {}
        with self.log.phase("evaluate"):
            if trainer.standing.best_step not in (None, trainer.state.global_step):
                load_adapter_weights(trainer.model, self.run.adapter)
            step = trainer.standing.best_step or trainer.state.global_step
            after = measure.full(self.rows.test, "after", step, trainer.state.epoch or 0.0, "evaluate")
            write_atomic(self.run.path / "after.json", after.to_json())
        return before.compared_with(after, self.config.training.seed)

    def _save(self, trainer: RunTrainer, comparison: dict[str, Comparison]) -> None:
        with self.log.phase("save"):
            if trainer.standing.best_step is None:
                trainer.save_adapter()
            steps = trainer.state.global_step
            write_card(self.run, self.config, self.lock, self.files, self.rows, comparison, trainer.standing, steps)

    def _finish(self, trainer: RunTrainer, comparison: dict[str, Comparison], *, stopped: bool) -> None:
        status: FinishStatus = "completed"
        if stopped:
            status = "stopped"
        elif trainer.standing.stopped_early:
            status = "early_stopped"
        self.log.write(
            RunFinished(
                status=status,
                steps=trainer.state.global_step,
                seconds=self.log.seconds,
                best_step=trainer.standing.best_step,
                best_loss=trainer.standing.best_loss,
                adapter=str(self.run.adapter),
                comparison=comparison,
            )
        )

    def _sample(self, measure: HeldOutMeasure, step: int) -> None:
        for prompt, text in measure.answers_to_prompts():
            self.log.write(Sample(step=step, prompt=prompt, text=text))
