"""One run from its config to its adapter: prepare, encode, load, baseline, train, evaluate, save."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import set_seed

from qlora_tui.advice import playbook
from qlora_tui.config_file import dump_config
from qlora_tui.engine import checkpoints
from qlora_tui.engine.agreement import ATTENTION_TOLERANCE, attention_difference, tokenizer_difference
from qlora_tui.engine.attention import PACKED_VARLEN, register, supports_varlen
from qlora_tui.engine.control import Control
from qlora_tui.engine.convert import convert_gguf
from qlora_tui.engine.heldout import HeldOutMeasure
from qlora_tui.engine.kernels import layer_kernels_available
from qlora_tui.engine.load import LoadedModel, attach_new_adapter, compute_dtype_name, load_base, trainable_parameters
from qlora_tui.engine.lock import build_lock, read_lock, write_lock
from qlora_tui.engine.measurement import Measurement
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.rows import RunRows, as_dataset, load_rows
from qlora_tui.engine.ship import write_card
from qlora_tui.engine.trainer import RunTrainer, memory_event
from qlora_tui.models.sources import ModelFiles, resolve_model
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import PHASES, Comparison, FinishStatus, RunFinished, RunStarted, Sample
from qlora_tui.runs.files import write_atomic


class Training:
    """One life of a run. The phases are its methods, in order.

    Args:
        run: The run directory, owned by this process.
        log: Its event log.
        control: Tells when to stop.
    """

    def __init__(self, run: RunDirectory, log: EventLog, control: Control) -> None:
        self.run = run
        self.log = log
        self.control = control
        self.config = run.read_config()
        self.started = time.monotonic()

    def go(self, *, resume: bool) -> None:
        """Run all phases.

        Raises:
            QloraError: for everything that a user can mend.
            StopRequested: if a stop was asked for before training began.
        """
        checkpoint = self._checkpoint_to_resume() if resume else None
        step = checkpoints.step_of(checkpoint) if checkpoint else None
        self.log.write(RunStarted(name=self.run.name, pid=os.getpid(), phases=PHASES, resumed_from_step=step))
        files = self._prepare()
        rows = self._encode(files)
        loaded, dataset = self._load(files, rows)
        trainer, measure = self._trainer(loaded, dataset, rows)
        before = self._measure(measure, "before", rows)
        self._train(trainer, checkpoint)
        stopped = self.control.stop
        comparison = {} if stopped else self._evaluate(trainer, measure, rows, before)
        self._save(trainer, files, rows, comparison)
        self._finish(trainer, comparison, stopped=stopped)

    def _checkpoint_to_resume(self) -> Path | None:
        """The newest checkpoint; None (start over) if the run was broken off before its first."""
        if self.run.lock.exists():
            found = checkpoints.complete_checkpoints(self.run.checkpoints)
            return found[-1] if found else None
        return None

    def _prepare(self) -> ModelFiles:
        with self.log.phase("prepare") as details:
            files = resolve_model(self.config.model, self._on_bytes)
            for note in files.notes:
                self.log.warn("model", note)
            if files.remote_code:
                self.log.warn(
                    "remote_code",
                    f"Python code that comes with {files.source} runs in this process with your rights, "
                    "because model.trust_remote_code is true.",
                )
            if files.gguf and not files.converted:
                convert_gguf(files, lambda done, total, what: self._progress("prepare", done, total, "stages", what))
            details["model"] = files.source
            details["revision"] = files.revision or "local"
        # Everything is on this machine now; libraries that look for kernels or updates on the hub need not try.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        return files

    def _encode(self, files: ModelFiles) -> RunRows:
        with self.log.phase("encode") as details:
            rows = load_rows(self.config, files.folder, lambda done: self._progress("encode", done, None, "rows"))
            report = rows.report
            details |= {"rows": report.rows, "kept": report.kept, "truncated": report.truncated}
            details |= {"train_rows": len(rows.train), "test_rows": len(rows.test)}
            details |= {"tokens": report.tokens.total, "trained_tokens": report.tokens.trained}
        for warning in report.warnings:
            self.log.warn("data", warning)
        if rows.selection_is_test:
            self.log.warn(
                "evaluation",
                "The rows that choose the best adapter also measure it, because there are too few held-out rows for "
                "both; the result may be slightly flattering.",
            )
        return rows

    def _load(self, files: ModelFiles, rows: RunRows) -> tuple[LoadedModel, Any]:
        """Load the base, decide every ``auto``, attach the adapter; the model and the training data set."""
        with self.log.phase("load") as details:
            set_seed(self.config.training.seed)
            loaded = load_base(files, self.config, training=True)
            dataset, choices = self._resolve_config(loaded, rows)
            details |= {choice.field: f"{choice.value} ({choice.reason})" for choice in choices}
            if self.config.training.attention == "varlen":
                register()
                loaded.model.set_attn_implementation(PACKED_VARLEN)
            model = attach_new_adapter(loaded, self.config.adapter)
            # The name that others can load the base by, instead of a folder of this machine's cache.
            model.peft_config["default"].base_model_name_or_path = files.source
            trained, total = trainable_parameters(model)
            details |= {"trainable_parameters": trained, "parameters": total, "device": loaded.device.type}
            self._write_lock(files, rows)
            self._check_tokenizer(loaded.tokenizer, rows)
        self.control.raise_if_stopped()
        return LoadedModel(model, loaded.tokenizer, loaded.device, loaded.dtype), dataset

    def _resolve_config(self, loaded: LoadedModel, rows: RunRows) -> tuple[Any, list[playbook.Choice]]:
        config = self.config
        packing, choices = config.data.packing, []
        if packing == "auto":
            packing, reason = playbook.wants_packing([len(row.input_ids) for row in rows.train], config.data.max_length)
            config = config.changed(data={"packing": packing})
            choices.append(playbook.Choice("data.packing", packing, reason))
        dataset = as_dataset(rows.train, config.data, packing=packing)
        cuda = torch.cuda.is_available()
        facts = playbook.Facts(
            cuda=cuda,
            compute_dtype=compute_dtype_name("auto"),
            parameters=trainable_parameters(loaded.model)[1],
            rows=len(rows.train),
            sequences=len(dataset),
            train_tokens=sum(len(row.input_ids) for row in rows.train),
            selection_tokens=sum(len(row.input_ids) for row in rows.selection),
            varlen=supports_varlen(loaded.model.config),
            layer_kernels=cuda and layer_kernels_available(loaded.model.config.model_type),
        )
        self.config, more = playbook.resolve(config, facts)
        write_atomic(self.run.config, dump_config(self.config))
        self.total_steps = playbook.total_steps(self.config, len(dataset))
        return dataset, [*choices, *more]

    def _write_lock(self, files: ModelFiles, rows: RunRows) -> None:
        self.lock = build_lock(self.config, files, rows.fingerprints, rows.encoder.template_fingerprint)
        expected = read_lock(self.run.path / "expected-lock.json") or read_lock(self.run.lock)
        for difference in expected.drift(self.lock) if expected else []:
            self.log.warn("drift", difference)
        write_lock(self.run.lock, self.lock)

    def _check_tokenizer(self, tokenizer: Any, rows: RunRows) -> None:
        """Ship the template that trains, and say so if transformers' tokenizer disagrees with the encoder."""
        template = rows.encoder.template
        if template.origin == "plain":
            tokenizer.chat_template = template.source
        if difference := tokenizer_difference(rows.encoder, tokenizer, rows.train):
            self.log.warn("tokenizer", difference)

    def _trainer(self, loaded: LoadedModel, dataset: Any, rows: RunRows) -> tuple[RunTrainer, HeldOutMeasure]:
        trainer = RunTrainer(
            run=self.run,
            config=self.config,
            log=self.log,
            control=self.control,
            total_steps=self.total_steps,
            model=loaded.model,
            processing_class=loaded.tokenizer,
            train_dataset=dataset,
            measure_selection=(lambda: measure.loss_of(rows.selection)) if rows.selection else None,
            on_evaluated=lambda step: self._sample(measure, step),
        )
        if self.config.training.attention == "varlen":
            self._check_attention(trainer)
        measure = HeldOutMeasure(trainer.model, loaded.tokenizer, rows, self.config, self.log, self.control)
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

    def _measure(self, measure: HeldOutMeasure, stage: str, rows: RunRows) -> Measurement | None:
        """The measurement before training; a resumed run takes the one of its first life."""
        if not rows.test:
            return None
        kept = self.run.path / "before.json"
        if (known := Measurement.read(kept)) is not None and len(known.rows) == len(rows.test):
            return known
        with self.log.phase("baseline"):
            before = measure.full(rows.test, "before", 0, 0.0, "baseline")
        write_atomic(kept, before.to_json())
        self._sample(measure, 0)
        return before

    def _train(self, trainer: RunTrainer, checkpoint: Path | None) -> None:
        if checkpoint:
            trainer.go_on_from(checkpoint)
        with self.log.phase("train") as details:
            details["total_steps"] = self.total_steps
            if not self._is_over(trainer, checkpoint):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.log.write(memory_event())

    def _is_over(self, trainer: RunTrainer, checkpoint: Path | None) -> bool:
        """Whether the resumed checkpoint is already the end of training; its weights are then loaded."""
        if checkpoint is None:
            return False
        over = checkpoints.step_of(checkpoint) >= self.total_steps or trainer.standing.stopped_early
        if over:
            _load_adapter(trainer.model, checkpoint)
            trainer.state.global_step = checkpoints.step_of(checkpoint)
        return over

    def _evaluate(
        self, trainer: RunTrainer, measure: HeldOutMeasure, rows: RunRows, before: Measurement | None
    ) -> dict[str, Comparison]:
        """Measure the best adapter on the rows of the baseline, and compare row by row."""
        if before is None:
            return {}
        with self.log.phase("evaluate"):
            if trainer.standing.best_step not in (None, trainer.state.global_step):
                _load_adapter(trainer.model, self.run.adapter)
            step = trainer.standing.best_step or trainer.state.global_step
            after = measure.full(rows.test, "after", step, trainer.state.epoch or 0.0, "evaluate")
            write_atomic(self.run.path / "after.json", after.to_json())
        return before.compared_with(after, self.config.training.seed)

    def _save(self, trainer: RunTrainer, files: ModelFiles, rows: RunRows, comparison: dict[str, Comparison]) -> None:
        with self.log.phase("save"):
            if trainer.standing.best_step is None:
                trainer.save_adapter()
            steps = trainer.state.global_step
            write_card(self.run, self.config, self.lock, files, rows, comparison, trainer.standing, steps)

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
                seconds=round(time.monotonic() - self.started, 3),
                best_step=trainer.standing.best_step,
                best_loss=trainer.standing.best_loss,
                adapter=str(self.run.adapter),
                comparison=comparison,
            )
        )

    def _sample(self, measure: HeldOutMeasure, step: int) -> None:
        for prompt, text in measure.answers_to_prompts():
            self.log.write(Sample(step=step, prompt=prompt, text=text))

    def _on_bytes(self, done: int, total: int | None) -> None:
        self._progress("prepare", done, total, "bytes")

    def _progress(self, phase: Any, done: int, total: int | None, unit: str, message: str = "") -> None:
        self.control.raise_if_stopped()
        self.log.progress(phase, done, total, unit, message)


def _load_adapter(model: Any, folder: Path) -> None:
    """Put saved adapter weights into the model that trained them."""
    weights = load_file(folder / "adapter_model.safetensors")
    set_peft_model_state_dict(model, weights)
