"""Runs that others measured, as inputs of the estimate: what each row says, and what had to be assumed.

Rows of quality A, and those of the same archive in ``measured_t4.csv``, say everything. The others leave something
unsaid; where the stack has a default for it that is taken, and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from benchmarks.base_models import dimensions_of_model
from benchmarks.measured_runs import read
from qlora_tui.memory.estimate import DeviceFacts, Estimate, estimate
from qlora_tui.memory.recipe import GIB, LORA_ON_SIXTEEN_BIT, MIB, PREPARED, SCALED_FP16, SIXTEEN_BIT, Recipe

Figure = Literal["allocated", "reserved", "process", "card", "none"]
"""What a row measured; ``card``: the size of a card that it fills; ``none``: only whether it ran."""

T4_CONTEXT: Final = round(140.9 * MIB)
_T4: Final = DeviceFacts(context=T4_CONTEXT, expandable_segments=False)
T4_MEMORY: Final = 14_912 * MIB
"""What torch may have of a Tesla T4 with ECC."""
_ATTENTION: Final = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_DECIDING: Final = {
    "batch": "micro-batch",
    "seq": "sequence",
    "double_quant": "double quantisation",
    "rank": "rank",
    "targets": "targets",
    "lora_dropout": "dropout",
    "grad_ckpt": "checkpointing",
    "optimizer": "optimizer",
    "attn": "attention",
    "loss_path": "loss",
    "norm_embed_regime": "dtypes",
    "versions": "versions",
}
"""Columns without which an estimate has to guess."""
_UNSAID: Final = ("", "see qlora.yaml", "see file", "config default", "not stated")


@dataclass(frozen=True, slots=True)
class T4Run:
    """One complete row, on a Tesla T4, without expandable segments. Sizes in bytes; ``process`` is the driver's."""

    id: str
    model: str
    recipe: Recipe
    allocated: int
    process: int

    @property
    def estimate(self) -> Estimate:
        """The estimate of this run on that card."""
        return estimate(dimensions_of_model(self.model), self.recipe, _T4)


@cache
def quality_a() -> tuple[T4Run, ...]:
    """The rows of quality A in ``measured_memory.csv``."""
    return tuple(
        T4Run(
            row["id"],
            row["model"],
            _harness(
                int(row["batch"]), int(row["seq"]), int(row["rank"]), eager=row["attn"] == "eager", quantised=True
            ),
            round(float(row["peak_alloc_gib"]) * GIB),
            round(float(row["device_used_gib"]) * GIB),
        )
        for row in read("measured_memory.csv")
        if row["quality"] == "A"
    )


@cache
def archive() -> tuple[T4Run, ...]:
    """The other rows of the archive that the rows of quality A come from, on which the kept segments were fitted."""
    return tuple(
        T4Run(
            row["id"],
            row["model"],
            _harness(
                int(row["batch"]),
                int(row["sequence"]),
                int(row["rank"]),
                eager=row["attention"] == "eager",
                quantised=row["base"] == "nf4",
            ),
            int(row["max_allocated"]),
            int(row["max_reserved"]) + T4_CONTEXT,
        )
        for row in read("measured_t4.csv")
    )


def _harness(batch: int, sequence: int, rank: int, *, eager: bool, quantised: bool) -> Recipe:
    """fitcheck's measuring script: peft's preparation in fp32, fp16 arithmetic, full logits kept until backward."""
    return Recipe(
        micro_batch=batch,
        sequence=sequence,
        rank=rank,
        targets=_ATTENTION,
        quantization="nf4" if quantised else "none",
        double_quant=False,
        attention="eager" if eager else "sdpa",
        repeats_heads=not eager,
        optimizer="adamw",
        loss="full_kept",
        regime=PREPARED if quantised else SCALED_FP16,
    )


@dataclass(frozen=True, slots=True)
class _Stack:
    """What a stack does where its rows do not say, and how its runs differ from any this program makes."""

    recipe: Mapping[str, Any]
    assumed: str
    differs: str = ""


_LITGPT: Final = {"checkpointing": "none", "optimizer": "adamw", "double_quant": False, "attention": "varlen"}
_ALL_RANK_8: Final = {"rank": 8, "optimizer": "adamw", "attention": "varlen"}
_FULL_LOGITS: Final = {"loss": "full_shifted"}
_STACKS: Final[Mapping[str, _Stack]] = {
    "LitGPT finetune lora (config_hub": _Stack(
        {**_LITGPT, "rank": 32, "dropout": 0.05}, "rank 32, dropout 0.05, all matrices", "own model code, head in 4 bit"
    ),
    "LitGPT": _Stack(
        {**_LITGPT, "targets": frozenset({"q_proj", "v_proj"})}, "q and v", "own model code, head in 4 bit"
    ),
    "torchtune": _Stack(_ALL_RANK_8, "rank 8, all matrices, checkpointing, 512 tokens", "own model code, torchao"),
    "Answer.AI": _Stack(
        {**_ALL_RANK_8, **_FULL_LOGITS, "rank": 64}, "rank 64, all matrices", "sharded over two cards; one is estimated"
    ),
    "LLaMA-Factory Unsloth": _Stack(_ALL_RANK_8, "AdamW, fused loss", "Unsloth's kernels, checkpoints in RAM"),
    "LLaMA-Factory": _Stack({**_ALL_RANK_8, **_FULL_LOGITS}, "AdamW, transformers 4's loss"),
    "Unsloth+CCE": _Stack({"rank": 32, "attention": "varlen"}, "fused loss", "Unsloth's kernels, checkpoints in RAM"),
    "HF+FA2": _Stack({"rank": 32, "attention": "varlen", **_FULL_LOGITS}, "transformers 4's loss"),
    "HF SFTTrainer": _Stack(
        {"optimizer": "adamw", "targets": frozenset({"q_proj", "v_proj"}), **_FULL_LOGITS, "regime": PREPARED},
        "rank 16 on q and v, fp32 norms and head",
    ),
    "Qwen finetune.py": _Stack(
        {"rank": 64, "dropout": 0.05, "optimizer": "adamw", "attention": "varlen", **_FULL_LOGITS},
        "rank 64, dropout 0.05, checkpointing",
        "DeepSpeed",
    ),
    "PEFT MetaMathQA": _Stack({"checkpointing": "none", "optimizer": "adamw", "loss": "full_kept"}, "768 tokens"),
    "HF (bnb issue)": _Stack(
        {"checkpointing": "none", "optimizer": "adamw", **_FULL_LOGITS}, "rank 16, all matrices, no checkpointing"
    ),
}
"""By the beginning of the stack's name, the longer first."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A row that leaves something unsaid, with the estimate for what was assumed; bytes, None where there is none.

    Attributes:
        figure: What was measured.
        measured: Of that figure.
        estimated: The estimate of that figure.
        ran: Whether it ran, where that is all the row says.
        fits: The estimate's verdict on that.
    """

    row: Mapping[str, str]
    figure: Figure
    measured: int | None
    estimated: int | None
    assumed: str
    differs: str
    ran: bool | None = None
    fits: str | None = None

    @property
    def unsaid(self) -> list[str]:
        """What decides memory and is not in the row."""
        return [label for column, label in _DECIDING.items() if self.row[column] in _UNSAID]


@cache
def stated() -> tuple[Stated, ...]:
    """All rows of ``measured_memory.csv`` that are not of quality A."""
    return tuple(_stated(row) for row in read("measured_memory.csv") if row["quality"] != "A")


def _stated(row: Mapping[str, str]) -> Stated:
    figure, measured = _measured(row)
    if not row["batch"]:
        return Stated(row, figure, measured, None, "", "neither batch nor length is stated; experts in RAM")
    stack = next(stack for name, stack in _STACKS.items() if row["stack"].startswith(name))
    differs = [part for part in (stack.differs, *_other_methods(row)) if part]
    free = T4_MEMORY if figure == "none" else None
    found = estimate(
        dimensions_of_model(row["model"]), _recipe(row, stack), DeviceFacts(free=free, expandable_segments=False)
    )
    estimated = {
        "allocated": found.allocated,
        "reserved": found.shown.point - DeviceFacts().context,
        "process": found.shown.point,
        "card": found.process.point,
        "none": None,
    }[figure]
    outcome: dict[str, Any] = {"ran": "fits" in row["metric_note"], "fits": found.fits} if figure == "none" else {}
    return Stated(row, figure, measured, estimated, stack.assumed, "; ".join(differs), **outcome)


def _measured(row: Mapping[str, str]) -> tuple[Figure, int | None]:
    boundary = row["quality"] == "boundary"
    columns: tuple[tuple[str, Figure], ...] = (
        ("peak_alloc_gib", "allocated"),
        ("peak_reserved_gib", "reserved"),
        ("device_used_gib", "card" if boundary else "process"),
    )
    for column, figure in columns:
        if row[column]:
            return figure, round(float(row[column]) * GIB)
    return "none", None


def _other_methods(row: Mapping[str, str]) -> list[str]:
    """What a row did that is not among this program's methods."""
    notes = f"{row['quant']} {row['targets']} {row['seq_note']} {row['stack']}"
    names = {
        "GPTQ": "GPTQ, not bitsandbytes",
        "DoRA": "DoRA",
        "act offload": "checkpoints in RAM",
        "cpu_offload": "weights in RAM",
    }
    return [text for word, text in names.items() if word in notes]


def _recipe(row: Mapping[str, str], stack: _Stack) -> Recipe:
    quantised = row["method"].startswith("QLoRA")
    sequence = row["seq"].removeprefix("<=")
    said: dict[str, Any] = {
        "micro_batch": int(row["batch"]),
        "sequence": int(sequence) if sequence.isdigit() else 512,
        "quantization": "nf4" if quantised else "none",
        "regime": SIXTEEN_BIT if quantised else LORA_ON_SIXTEEN_BIT,
    }
    fields = {**said, **stack.recipe}
    if row["rank"].isdigit():
        fields["rank"] = int(row["rank"])
    if row["double_quant"] in ("yes", "no"):
        fields["double_quant"] = row["double_quant"] == "yes"
    if row["grad_ckpt"] == "yes":
        fields["checkpointing"] = "full"
    elif row["grad_ckpt"].startswith("no") and row["grad_ckpt"] != "not stated":
        fields["checkpointing"] = "none"
    if "prepare_model" in row["norm_embed_regime"]:
        fields["regime"] = PREPARED
    targets = _targets(row["targets"])
    if targets is not None:
        fields["targets"] = targets
    return Recipe(**fields)


def _targets(text: str) -> frozenset[str] | None:
    words = text.partition("(")[0].replace(",", " ").split()
    names = {f"{word}_proj" for word in words}
    known = _ATTENTION | {"gate_proj", "up_proj", "down_proj"}
    return frozenset(names) if names and names <= known else None
