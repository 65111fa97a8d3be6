"""Defaults and their reasons: what ``auto`` becomes for this model, this data and this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qlora_tui.config import RunConfig
from qlora_tui.memory.settings import Choice, Situation, settle

__all__ = [
    "Choice",
    "Facts",
    "Situation",
    "learning_rate",
    "resolve",
    "steps_per_epoch",
    "total_steps",
    "wants_packing",
]

EVALUATIONS_PER_RUN = 8
# Evaluations together may cost this share of the training time; a forward pass costs a third of a training step.
EVALUATION_SHARE = 0.25
CHECKPOINTS_PER_RUN = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What the choices depend on.

    ``sequences`` are what the trainer sees as rows: packed sequences if packing, else rows.
    """

    compute_dtype: str
    parameters: int
    rows: int
    sequences: int
    train_tokens: int
    """Tokens of one pass over the training rows."""
    selection_tokens: int
    """Tokens of the rows that are measured at each evaluation."""
    situation: Situation
    """What memory and speed depend on."""


def wants_packing(lengths: list[int], max_length: int) -> tuple[bool, str]:
    """Whether to pack rows of these lengths (tokens), and why."""
    if not lengths:
        return False, "there are no rows to pack"
    mean = sum(lengths) / len(lengths)
    if mean > 0.6 * max_length:
        return False, f"rows fill {mean / max_length:.0%} of max_length on average, so packing would save little"
    return True, f"rows fill only {mean / max_length:.0%} of max_length on average"


def learning_rate(parameters: int, rows: int) -> tuple[float, str]:
    """Peak learning rate for a LoRA of any rank at alpha 32.

    From published sweeps over 80 settings: the best rate is near 3e-4 for most 3-14B models and higher for small ones;
    very short runs want less on large models.
    """
    billions = parameters / 1e9
    if billions <= 0.5:
        return 1e-3, "models under half a billion parameters take the highest rates"
    if billions <= 2:
        return 5e-4, "models up to 2 billion parameters learn best around 5e-4"
    if billions <= 13:
        return 2e-4, "2e-4 to 3e-4 is best for most models of 3 to 13 billion parameters"
    return 1e-4 if rows < 5000 else 2e-4, "large models want smaller steps"


def steps_per_epoch(sequences: int, effective_batch: int) -> int:
    """Optimizer steps in one pass; the last, smaller batch counts as one."""
    return max(1, math.ceil(sequences / effective_batch))


def total_steps(config: RunConfig, sequences: int) -> int:
    """Optimizer steps of the whole run."""
    steps = math.ceil(config.training.epochs * steps_per_epoch(sequences, config.training.effective_batch))
    return min(steps, config.training.max_steps or steps)


def resolve(config: RunConfig, facts: Facts) -> tuple[RunConfig, tuple[Choice, ...]]:
    """Replace every remaining ``auto`` by what is best here; ``data.packing`` must be decided already."""
    steps = total_steps(config, facts.sequences)
    candidates = (
        Choice("quantization.compute_dtype", facts.compute_dtype, _dtype_reason(facts)),
        Choice("training.learning_rate", *learning_rate(facts.parameters, facts.rows)),
        *settle(config, facts.situation).choices,
        Choice("evaluation.every", *_evaluate_every(config, facts, steps)),
        Choice("checkpoints.every", max(1, math.ceil(steps / CHECKPOINTS_PER_RUN)), "a crash costs a tenth of the run"),
    )
    sections = config.model_dump()
    choices = []
    for choice in candidates:
        section, _, field = choice.field.partition(".")
        if sections[section][field] == "auto":
            sections[section][field] = choice.value
            choices.append(choice)
    return RunConfig.model_validate(sections), tuple(choices)


def _evaluate_every(config: RunConfig, facts: Facts, steps: int) -> tuple[int, str]:
    trained = facts.train_tokens * steps / steps_per_epoch(facts.sequences, config.training.effective_batch)
    affordable = int(EVALUATION_SHARE * 3 * trained / max(1, facts.selection_tokens))
    wanted = max(2, min(EVALUATIONS_PER_RUN, affordable))
    return max(1, round(steps / wanted)), f"about {wanted} in a run, at most a quarter of the training time"


def _dtype_reason(facts: Facts) -> str:
    if facts.situation.device.kind == "cpu":
        return "a CPU is fastest and exact in 32 bits"
    return "the GPU has bf16" if facts.compute_dtype == "bfloat16" else "the GPU has no bf16 (capability below 8.0)"
