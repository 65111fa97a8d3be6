"""The settings that decide memory and speed but not what is learnt: what the config says, and what ``auto`` becomes.

The engine resolves with the same functions as the estimate shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qlora_tui.memory.device import Device
from qlora_tui.memory.from_config import compute_dtype, options_of, recipe_from
from qlora_tui.memory.plan import Plan, best_plan, gain_over
from qlora_tui.memory.recipe import MIB, Attention, Checkpointing, LayerKernels, Optimizer, Recipe
from qlora_tui.memory.speed import filled_share
from qlora_tui.memory.static import static_memory

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig
    from qlora_tui.gpus import Capability
    from qlora_tui.memory.dimensions import Dimensions

GPU_TOKENS_PER_MICRO_BATCH: Final = 8192
CPU_TOKENS_PER_MICRO_BATCH: Final = 1024
"""What a micro-batch may hold where nothing better is known: below some thousand tokens a GPU waits for its host, and a
CPU has nothing to gain above a thousand."""
_FLASH_CAPABILITY: Final = (8, 0)
_SAMPLED: Final = 100


@dataclass(frozen=True, slots=True)
class Choice:
    """One ``auto`` resolved: the field's dotted path, its value, and why."""

    field: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the rows; what is not is taken at its worst, every row as long as ``max_length``.

    Attributes:
        packed: What ``data.packing`` became; None takes packing for granted where it is ``auto``.
        lengths: Tokens of rows that are not packed, a sample: they tell how much padding a batch carries.
        row: Tokens of a packed row as its tokens see it: the mean of the squares of the lengths over their mean.
        longest: Tokens of the longest row, where it is shorter than ``max_length``.
        sequences: What the trainer sees as rows in one pass: packed sequences if packing.
        tokens: Tokens of one pass over the training rows.
    """

    packed: bool | None = None
    lengths: tuple[int, ...] = ()
    row: int | None = None
    longest: int | None = None
    sequences: int | None = None
    tokens: int | None = None

    def filled(self, micro_batch: int) -> float:
        """Share of a micro-batch's tokens that are not padding."""
        return filled_share(self.lengths, micro_batch)


NO_ROWS: Final = Rows()


def sample_of_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """At most 100 lengths that lie as all of them do."""
    ordered = sorted(lengths)
    return tuple(ordered[:: -(-len(ordered) // _SAMPLED) or 1])


@dataclass(frozen=True, slots=True)
class Situation:
    """What the settings depend on besides the config.

    Attributes:
        dimensions: None where the architecture could not be sized; micro-batches are then counted in tokens.
        varlen: Whether the model's attention can run without a mask on packed rows.
        layer_kernels: Whether fused kernels exist for the model and are installed.
    """

    device: Device
    dimensions: Dimensions | None
    varlen: bool = False
    layer_kernels: bool = False
    rows: Rows = NO_ROWS


@dataclass(frozen=True, slots=True)
class Settled:
    """Every setting decided.

    Attributes:
        recipe: The settings as the estimate takes them.
        choices: What ``auto`` became, in the config's order.
        plan: How the micro-batch and the checkpointing were found; None where memory was not asked.
    """

    recipe: Recipe
    choices: tuple[Choice, ...]
    plan: Plan | None


def is_packed(config: RunConfig, rows: Rows) -> bool:
    """Whether rows are packed, as far as it is known."""
    if config.data.packing != "auto":
        return config.data.packing
    return True if rows.packed is None else rows.packed


def settle(config: RunConfig, situation: Situation) -> Settled:
    """Decide what memory and speed depend on."""
    training = config.training
    attention, attention_reason = _attention(config, situation)
    kernels, kernels_reason = _layer_kernels(situation)
    optimizer, optimizer_reason = _optimizer(situation.device)
    recipe = recipe_from(
        config,
        sequence=min(config.data.max_length, situation.rows.longest or config.data.max_length),
        packed=is_packed(config, situation.rows),
        dtype=compute_dtype(config, situation.device),
        attention=attention if training.attention == "auto" else training.attention,
        repeats_heads=situation.device.kind == "cuda" and _capability(situation.device) < _FLASH_CAPABILITY,
        layer_kernels=kernels if training.layer_kernels == "auto" else training.layer_kernels,
        optimizer=optimizer if training.optimizer == "auto" else training.optimizer,
    )
    plan = None
    if situation.device.kind == "cuda" and situation.dimensions is not None:
        plan = best_plan(situation.dimensions, recipe, options_of(config), situation.device, row=situation.rows.row)
        recipe, micro_reason, checkpointing_reason = plan.recipe, plan.micro_batch_reason, plan.checkpointing_reason
        attention_reason += _gain(training.attention, situation, plan, replace(recipe, attention="sdpa"))
        kernels_reason += _gain(training.layer_kernels, situation, plan, replace(recipe, layer_kernels="none"))
        optimizer_reason += _smaller_states(training.optimizer, situation.dimensions, plan)
    else:
        recipe, micro_reason, checkpointing_reason = _by_tokens(config, recipe, situation.device)
    candidates = (
        ("micro_batch", recipe.micro_batch, micro_reason),
        ("gradient_checkpointing", recipe.checkpointing, checkpointing_reason),
        ("attention", recipe.attention, attention_reason),
        ("layer_kernels", recipe.layer_kernels, kernels_reason),
        ("optimizer", recipe.optimizer, optimizer_reason),
    )
    choices = tuple(
        Choice(f"training.{field}", value, reason)
        for field, value, reason in candidates
        if getattr(training, field) == "auto"
    )
    return Settled(recipe, choices, plan)


def _capability(device: Device) -> Capability:
    """The card's; one that does not tell is taken as able."""
    return device.capability or _FLASH_CAPABILITY


def _by_tokens(config: RunConfig, recipe: Recipe, device: Device) -> tuple[Recipe, str, str]:
    cuda = device.kind == "cuda"
    tokens = GPU_TOKENS_PER_MICRO_BATCH if cuda else CPU_TOKENS_PER_MICRO_BATCH
    options = options_of(config)
    smallest, *larger = options.micro_batches
    micro = max([smallest, *(size for size in larger if size * recipe.sequence <= tokens)])
    checkpointing: Checkpointing = options.checkpointing[0]
    if len(options.checkpointing) > 1:
        checkpointing = "full" if cuda else "none"
    reason = "it saves several gigabytes for a fifth more time"
    if not cuda:
        reason = "memory is not short on this machine, and recomputing costs time"
    return (
        options.applied(recipe, micro, checkpointing),
        f"the largest part of the effective batch with at most {tokens} tokens",
        reason,
    )


def _attention(config: RunConfig, situation: Situation) -> tuple[Attention, str]:
    device = situation.device
    flash = device.kind == "cpu" or (
        compute_dtype(config, device) != "float32" and _capability(device) >= _FLASH_CAPABILITY
    )
    if situation.varlen and flash and is_packed(config, situation.rows):
        return "varlen", "packed rows need no mask and no work across their borders"
    return "sdpa", "right on every machine and model"


def _layer_kernels(situation: Situation) -> tuple[LayerKernels, str]:
    if situation.device.kind == "cuda" and situation.layer_kernels:
        return "liger", "there are fused kernels for this family"
    return "none", "no fused kernels for this machine or model"


def _optimizer(device: Device) -> tuple[Optimizer, str]:
    if device.kind == "cuda":
        return "paged_adamw_8bit", "small states that move aside when memory is short"
    return "adamw", "exact, and its states are small here"


def _gain(setting: str, situation: Situation, plan: Plan, other: Recipe) -> str:
    """What a setting that was left open has over the usual one, as the end of its reason."""
    if setting != "auto" or other == plan.recipe or situation.dimensions is None:
        return ""
    gain = gain_over(situation.dimensions, plan, other, situation.device, row=situation.rows.row)
    return f": {gain}" if gain else ""


def _smaller_states(setting: str, dimensions: Dimensions, plan: Plan) -> str:
    """What the optimizer's states take beside plain AdamW's, as the end of its reason."""
    if setting != "auto":
        return ""
    own = static_memory(dimensions, plan.recipe)
    plain = static_memory(dimensions, replace(plan.recipe, optimizer="adamw")).optimizer
    return f": {(own.optimizer + own.managed) / MIB:.0f} MiB, where plain AdamW takes {plain / MIB:.0f}"
