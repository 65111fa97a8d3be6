"""TRL's SFTTrainer under the pinned regime, with our rows, our evaluation, our checkpoints and our events."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from qlora_tui.config import RunConfig
from qlora_tui.engine import checkpoints
from qlora_tui.engine.control import Control
from qlora_tui.engine.device import DeviceWatch
from qlora_tui.engine.gauge import Peaks, release_memory
from qlora_tui.engine.measurement import Measurement
from qlora_tui.engine.report import EventLog
from qlora_tui.errors import TrainingError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Checkpoint, Eval, Step
from qlora_tui.runs.files import replace_folder

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
STANDING = "standing.json"


@dataclass(slots=True)
class Standing:
    """How the evaluations stand; saved with each checkpoint so that a resumed run stops where it would have."""

    best_loss: float | None = None
    best_step: int | None = None
    worse_in_a_row: int = 0
    stopped_early: bool = False

    def take(self, loss: float, step: int) -> bool:
        """Note an evaluation; whether it is the best so far."""
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_step, self.worse_in_a_row = loss, step, 0
            return True
        self.worse_in_a_row += 1
        return False


def trainer_arguments(config: RunConfig, output: Path, total_steps: int, *, cuda: bool) -> SFTConfig:
    """The config in TRL's terms. Saving and evaluating are driven by :class:`RunTrainer`, so both are off here."""
    training = config.training
    checkpointing = training.gradient_checkpointing
    return SFTConfig(
        output_dir=str(output),
        max_steps=total_steps,
        per_device_train_batch_size=training.micro_batch,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup,
        optim=OPTIMIZERS[training.optimizer],
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        neftune_noise_alpha=training.neftune_alpha,
        gradient_checkpointing=checkpointing != "none",
        gradient_checkpointing_kwargs={"every_n_layers": 2} if checkpointing == "every-2" else None,
        use_liger_kernel=training.layer_kernels == "liger",
        packing=bool(config.data.packing),
        packing_strategy="bfd",
        max_length=config.data.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=config.quantization.compute_dtype == "bfloat16" and cuda,
        fp16=config.quantization.compute_dtype == "float16" and cuda,
        use_cpu=not cuda,
        seed=training.seed,
        data_seed=training.seed,
        report_to=config.tracking.report_to,
        run_name=config.name,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
    )


class RunTrainer(SFTTrainer):
    """Trains the adapter and reports every step.

    Args:
        measure_selection: Measures the held-out rows that choose the best adapter; None without held-out rows.
        sample: Writes what the model answers to the fixed prompts now; called with the step, after each evaluation.
        probe: Called when all is prepared and no row has been taken; may raise what running out of memory raises.
    """

    def __init__(
        self,
        *,
        run: RunDirectory,
        config: RunConfig,
        log: EventLog,
        control: Control,
        measure_selection: Callable[[], Measurement] | None,
        sample: Callable[[int], None],
        total_steps: int,
        probe: Callable[[RunTrainer], None] | None = None,
        **keywords: Any,
    ) -> None:
        cuda = torch.cuda.is_available()
        super().__init__(args=trainer_arguments(config, run.checkpoints, total_steps, cuda=cuda), **keywords)
        self.run = run
        self.run_config = config
        self.log_events = log
        self.requests = control
        self.device_watch = DeviceWatch()
        self.standing = Standing()
        self.step_loss = torch.zeros((), device=self.args.device)
        self.step_tokens = 0
        self.speeds: list[float] = []
        self.peaks = Peaks()
        self.updating = False
        """Whether the optimizer is at work: if it is broken off there, the weights are those of no step."""
        self.probe = probe
        self._measure_selection = measure_selection
        self.sample = sample
        if config.quantization.compute_dtype != "bfloat16":
            _adapter_to_fp32(self.model)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Flow(self))

    def _get_output_dir(self, trial: Any) -> str:
        return str(checkpoints.staging_folder(self.run.checkpoints))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # Past SFTTrainer's own method, which writes a model card of its own into every checkpoint.
        start = time.monotonic()
        try:
            super(SFTTrainer, self)._save_checkpoint(model, trial)
            staged = self.run.checkpoints / ".partial" / f"{checkpoints.PREFIX}{self.state.global_step}"
            (staged / STANDING).write_text(json.dumps(asdict(self.standing)), encoding="utf-8")
            path = checkpoints.publish(staged, self.run.checkpoints)
        except BaseException:
            shutil.rmtree(self.run.checkpoints / ".partial", ignore_errors=True)
            raise
        checkpoints.rotate(self.run.checkpoints, self.run_config.checkpoints.keep)
        self._report_saved("checkpoint", path, start)

    def go_on_from(self, checkpoint: Path) -> None:
        """Take over what a checkpoint says of the evaluations before it."""
        self.standing = Standing(**json.loads((checkpoint / STANDING).read_text(encoding="utf-8")))

    @property
    def prepared_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer itself, inside what accelerate wraps round it; only while training."""
        wrapped: Any = self.optimizer
        optimizer: torch.optim.Optimizer = wrapped.optimizer
        return optimizer

    def take_recipe(self, config: RunConfig) -> None:
        """Train on with another micro-batch of the same effective batch; the next ``train`` prepares all anew."""
        self.run_config = config
        self.args.per_device_train_batch_size = self._train_batch_size = int(config.training.micro_batch)
        self.args.gradient_accumulation_steps = config.gradient_accumulation
        self.optimizer = self.lr_scheduler = None
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        self.updating = False
        release_memory()

    def forget_progress(self) -> None:
        """Back to a run that has not taken a step."""
        self.standing = Standing()
        self.state.global_step = 0

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # Not the trainer's own way, peft's load_adapter: it casts a bf16 adapter to fp32, and the run goes on otherwise
        # than it would have.
        load_adapter_weights(model or self.model, Path(resume_from_checkpoint))

    def save_adapter(self) -> None:
        """Write the adapter as it is now to ``adapter/``: weights, tokenizer and chat template, whole or not at all.

        Raises:
            OSError: if the disk is full; what was there before stays.
        """
        start = time.monotonic()
        staging = self.run.path / ".adapter.partial"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            self.model.save_pretrained(staging, safe_serialization=True)
            self.processing_class.save_pretrained(staging)
            (staging / "README.md").unlink(missing_ok=True)
            replace_folder(staging, self.run.adapter)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._report_saved("adapter", self.run.adapter, start)

    def _report_saved(self, what: Any, path: Path, start: float) -> None:
        seconds = round(time.monotonic() - start, 3)
        self.log_events.write(Checkpoint(step=self.state.global_step, path=str(path), what=what, seconds=seconds))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **keywords: Any) -> torch.Tensor:
        mask = inputs.get("attention_mask")
        self.step_tokens += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
        loss: torch.Tensor = super().training_step(model, inputs, *args, **keywords)
        self.step_loss += loss.detach()
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        finite = torch.isfinite(self.step_loss)
        # A scaler expects infinite fp16 gradients now and then, and skips those steps by itself.
        if not self.args.fp16 and norm is not None:
            finite = finite & torch.isfinite(torch.as_tensor(norm, device=finite.device))
        if not bool(finite):
            raise TrainingError(
                f"Training stopped at step {self.state.global_step + 1}.",
                "The loss or its gradient is not a number any more; this step was not applied.",
                "Lower training.learning_rate (a third is a good try), or look at the rows of this step in the data; "
                "the last good adapter is kept.",
            )
        return norm

    def evaluate(self, *_args: Any, **_keywords: Any) -> dict[str, float]:
        """Measure the selection rows; keep the adapter if it is the best so far, count towards patience if not."""
        # The flag outlives this call otherwise, and the end of the epoch would evaluate the same weights again.
        self.control.should_evaluate = False
        if self._measure_selection is None:
            return {}
        self.peaks.settle("training")
        measurement = self._measure_selection()
        step = self.state.global_step
        best = self.standing.take(measurement.loss, step)
        self.log_events.write(
            Eval(
                stage="during",
                step=step,
                epoch=self.state.epoch or 0.0,
                loss=measurement.loss,
                perplexity=measurement.perplexity,
                rows=len(measurement.rows),
                tokens=measurement.tokens,
                seconds=round(measurement.seconds, 3),
                metrics=measurement.metrics,
                best=best,
            )
        )
        if best:
            self.save_adapter()
        patience = self.run_config.evaluation.patience
        if patience is not None and self.standing.worse_in_a_row >= patience:
            self.standing.stopped_early = True
            self.control.should_training_stop = True
            self.control.should_save = True
        self.sample(step)
        self.peaks.settle("evaluation")
        return {"eval_loss": measurement.loss}


class _Flow(TrainerCallback):
    """Decides after each step what comes next, and writes the step's event."""

    def __init__(self, trainer: RunTrainer) -> None:
        self._trainer = trainer
        self._started = 0.0
        self._seconds = 0.0

    def on_train_begin(self, *_args: Any, **_keywords: Any) -> None:
        if self._trainer.probe is not None:
            self._trainer.probe(self._trainer)

    def on_pre_optimizer_step(self, *_args: Any, **_keywords: Any) -> None:
        self._trainer.updating = True

    def on_step_begin(self, *_args: Any, **_keywords: Any) -> None:
        self._started = time.monotonic()
        self._trainer.step_tokens = 0
        self._trainer.step_loss.zero_()

    def on_step_end(self, args: Any, state: Any, control: Any, **_keywords: Any) -> None:
        trainer, config = self._trainer, self._trainer.run_config
        trainer.updating = False
        self._seconds = time.monotonic() - self._started
        stop = trainer.requests.stop
        last = state.global_step >= args.max_steps
        control.should_evaluate = not stop and (last or self._evaluation_is_due(state.global_step, args.max_steps))
        control.should_save = stop or last or state.global_step % int(config.checkpoints.every) == 0
        if trainer.requests.take("checkpoint"):
            control.should_save = True
        if trainer.requests.take("sample"):
            trainer.sample(state.global_step)
        control.should_training_stop = control.should_training_stop or stop

    def _evaluation_is_due(self, step: int, total: int) -> bool:
        every = int(self._trainer.run_config.evaluation.every)
        # The end is always measured; a measurement shortly before it would tell the same at the same cost.
        return step % every == 0 and 2 * (total - step) >= every

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_k: Any) -> None:
        if not logs or "loss" not in logs:
            return
        trainer = self._trainer
        trainer.speeds.append(trainer.step_tokens / max(self._seconds, 1e-9))
        trainer.log_events.write(
            Step(
                step=state.global_step,
                total_steps=args.max_steps,
                epoch=state.epoch or 0.0,
                loss=float(logs["loss"]),
                learning_rate=float(logs.get("learning_rate", 0.0)),
                grad_norm=float(logs["grad_norm"]) if "grad_norm" in logs else None,
                tokens=trainer.step_tokens,
                tokens_per_second=round(trainer.step_tokens / max(self._seconds, 1e-9), 2),
                step_seconds=round(self._seconds, 4),
                memory_allocated=trainer.peaks.allocated,
                memory_reserved=trainer.peaks.reserved,
            )
        )
        if (sample := trainer.device_watch.if_due(trainer.peaks)) is not None:
            trainer.log_events.write(sample)


def _adapter_to_fp32(model: Any) -> None:
    """Undo TRL's cast of the adapter to bf16 where the arithmetic is not bf16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def load_adapter_weights(model: Any, folder: Path) -> None:
    """Put saved adapter weights into the model that trained them, in the dtype that it trains them in.

    Raises:
        TrainingError: if the folder holds other weights than this adapter's.
    """
    weights = load_file(folder / "adapter_model.safetensors")
    loaded = set_peft_model_state_dict(model, weights)
    if loaded.unexpected_keys:
        raise TrainingError(
            f"Cannot go on from {folder}.",
            f"It holds weights that this adapter does not have, such as {loaded.unexpected_keys[0]}.",
            "Start a new run; the config was changed since this checkpoint was written.",
        )
