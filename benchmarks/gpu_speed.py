"""Tokens per second of the usual recipe as a plain TRL script, and of the engine with what the plan chooses."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any, Final

import torch
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from benchmarks.gpu import Bench, Case
from benchmarks.gpu_runs import Finished, Model, config_of
from benchmarks.random_model import bare_again
from qlora_tui.cards import card_named
from qlora_tui.config import RunConfig
from qlora_tui.engine.attention import supports_varlen
from qlora_tui.engine.forecast import dimensions_of_model
from qlora_tui.engine.gauge import read_gauge
from qlora_tui.engine.rows import as_dataset, load_rows
from qlora_tui.memory.device import Device, device_like
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.settings import Rows, Situation, settle
from qlora_tui.memory.static import adapter_elements

MODEL: Final = "llama 8B"
LENGTH: Final = 2048
EFFECTIVE: Final = 8
STEPS: Final = 5
ROUNDS: Final = 2
BUDGETS: Final[dict[str, float | None]] = {"whole card": None, "24 GiB": 24.0, "12 GiB": 12.0}
_GIB: Final = 2**30


def main(bench: Bench) -> None:
    """The seed recipe and the engine's in turn, then what a plain attention gives on the same rows."""
    model = Model(bench, MODEL)
    for number in range(1, (1 if bench.rehearse else ROUNDS) + 1):
        if not bench.run(f"seed, round {number}", lambda: _seed(bench, model)):
            return
        for budget, gib in BUDGETS.items():
            if not bench.run(f"engine, {budget}, round {number}", lambda gib=gib: _engine(bench, model, gib)):  # type: ignore[misc]
                return
    for case, choices in _REFERENCES.items():
        if not bench.run(case, lambda choices=choices: _reference(bench, model, choices)):  # type: ignore[misc]
            return


_REFERENCES: Final[dict[str, dict[str, Any]]] = {
    "same rows, sdpa": {"attention": "sdpa", "rows": 2},
    "same rows, varlen": {"attention": "varlen", "rows": 2},
    "same rows, varlen and liger": {"attention": "varlen", "layer_kernels": "liger", "rows": 2},
    "same rows, sdpa again": {"attention": "sdpa", "rows": 2},
}


def _steps(bench: Bench) -> int:
    return 2 if bench.rehearse else STEPS


def _config(bench: Bench, model: Model, **choices: Any) -> RunConfig:
    """Rank and rows of the seed recipe; one pass over them is more than the steps take."""
    wanted: dict[str, Any] = {
        "rows": EFFECTIVE,
        "length": LENGTH,
        "steps": STEPS,
        "mixed": True,
        "packing": True,
        "rank": 64,
    }
    wanted |= {"alpha": 16, "evaluation": 0, "count": 30 if bench.rehearse else 420, **choices}
    if "accumulation" not in wanted:
        wanted["accumulation"] = EFFECTIVE // wanted["rows"]
    return config_of(bench, model, **wanted)


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_arguments: Any, **_keywords: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def _seed(bench: Bench, model: Model) -> Case:
    """The usual call, as training-facts gives its working form, on rows that are tokenised already."""
    config = _config(bench, model)
    rows = load_rows(config, model.files.folder, lambda _done: None)
    cuda = torch.cuda.is_available()
    set_seed(42)
    arguments = SFTConfig(
        output_dir=str(bench.home / "seed"),
        packing=True,
        packing_strategy="bfd",
        max_length=config.data.max_length,
        max_steps=_steps(bench),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=EFFECTIVE,
        learning_rate=2e-4,
        warmup_steps=0.03,
        lr_scheduler_type="cosine",
        optim="paged_adamw_8bit",
        gradient_checkpointing=True,
        bf16=cuda,
        use_cpu=not cuda,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer = SFTTrainer(
        model=model.base.model,
        args=arguments,
        train_dataset=as_dataset(rows.train, config.data, packing=False),
        processing_class=model.base.tokenizer,
        peft_config=LoraConfig(
            r=64, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.remove_callback(PrinterCallback)
    clock = _Clock()
    trainer.add_callback(clock)
    try:
        trainer.train()
        counts = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        speeds = [
            (after - before) / seconds
            for before, after, seconds in zip(
                counts, counts[1:], [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)], strict=False
            )
        ]
        return {
            "tokens_per_second": round(statistics.median(speeds), 1),
            "speeds": [round(each, 1) for each in speeds],
            "tokens": counts,
            "allocated": torch.cuda.max_memory_allocated() if cuda else None,
            "reserved": torch.cuda.max_memory_reserved() if cuda else None,
            "losses": losses,
        }
    finally:
        bare_again(model.base, trainer)


def _engine(bench: Bench, model: Model, gib: float | None) -> Case:
    """The engine with the plan's choice for so much memory, the allocator capped there."""
    config = _config(bench, model)
    gauge = read_gauge()
    capped = gib is not None and gauge is not None
    device = _device(gib)
    dimensions = dimensions_of_model(model.base.model.config.to_dict())
    assert dimensions is not None
    rows = load_rows(config, model.files.folder, lambda _done: None)
    lengths = [len(row.input_ids) for row in rows.train]
    row = round(sum(length * length for length in lengths) / sum(lengths))
    varlen = supports_varlen(model.base.model.config)
    situation = Situation(device, dimensions, varlen=varlen, layer_kernels=True, rows=Rows(packed=True, row=row))
    automatic = config.changed(
        training=dict.fromkeys(("micro_batch", "gradient_checkpointing", "attention", "layer_kernels"), "auto")
    )
    settled = settle(automatic, situation)
    chosen = {choice.field.partition(".")[2]: choice.value for choice in settled.choices}
    config = config.changed(training=chosen)
    if capped and gauge is not None:
        context = gauge.context or 0
        torch.cuda.set_per_process_memory_fraction(min(1.0, ((gib or 0) * _GIB - context) / gauge.total))
    try:
        finished = Finished(model, config)
    finally:
        if capped:
            torch.cuda.set_per_process_memory_fraction(1.0)
    try:
        facts = finished.facts()
        assert finished.trainer is not None
        speeds = [round(each, 1) for each in finished.trainer.speeds]
        card = device_like(card_named("H100 SXM5") or _no_card()).rates
        rate = card.matrix_rate * 1e12 if card else 989e12
        flops = model_operations(dimensions, settled.recipe.rank, row)
        speed = statistics.median(speeds[1:])
        return facts | {
            "chosen": chosen,
            "reasons": {choice.field: choice.reason for choice in settled.choices},
            "speeds": speeds,
            "tokens_per_second": speed,
            "operations_per_token": flops,
            "mfu": round(speed * flops / rate, 4),
        }
    finally:
        finished.close()


def _device(gib: float | None) -> Device:
    """The card with so much memory in all, or as it is."""
    card = card_named("H100 SXM5") or _no_card()
    device = device_like(card)
    gauge = read_gauge()
    if gauge is None:
        return device if gib is None else replace(device, free=round(gib * _GIB))
    free = gauge.capacity + (gauge.context or 0)
    return replace(
        device,
        free=round(gib * _GIB) if gib is not None else free,
        context=gauge.context,
        capability=torch.cuda.get_device_capability(),
    )


def _no_card() -> Any:
    raise RuntimeError("the table of cards has no H100")


def model_operations(dimensions: Dimensions, rank: int, row: int) -> float:
    """Operations that a token's forward and backward pass need, recomputation not counted.

    A frozen weight takes 2 forward and 2 backward, an adapter's 2 and 4; the head projects forward and back; attention
    is causal.
    """
    from qlora_tui.memory.recipe import Recipe

    frozen = sum(matrix.count * matrix.elements for matrix in dimensions.matrices)
    adapter = adapter_elements(dimensions, Recipe(micro_batch=1, sequence=1, rank=rank))
    head = 4 * dimensions.vocab * dimensions.hidden
    attention = 2 * row * dimensions.query_width * dimensions.layers * 3
    return 4 * frozen + 6 * adapter + head + attention


def _reference(bench: Bench, model: Model, choices: dict[str, Any]) -> Case:
    """The same rows in the same order; the final loss has to be the same whatever computes it."""
    finished = Finished(model, _config(bench, model, **choices))
    try:
        return finished.facts()
    finally:
        finished.close()
