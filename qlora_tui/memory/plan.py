"""The fastest settings that fit, and the largest micro-batch and longest rows that do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.recipe import GIB, Checkpointing, Recipe
from qlora_tui.memory.speed import CardRates, step_time

if TYPE_CHECKING:
    from qlora_tui.memory.device import Device
    from qlora_tui.memory.dimensions import Dimensions

STEP: Final = 64
"""Lengths of rows are searched in steps of so many tokens."""
MOST_ROWS: Final = 65_536
"""The largest effective batch that the config takes."""
_USUAL_RATES: Final = CardRates(matrix_rate=60, bandwidth=600)
"""Stands in for a card that publishes no rates: settings can still be put in order."""
_NOT_WORTH_IT: Final = 0.98
"""Settings this close to the fastest win if they need less memory."""

_WORTH_NAMING: Final = 0.02
"""A gain in speed below this is not told."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen. ``micro_batches`` go up, ``checkpointing`` goes from the fastest to the smallest."""

    effective_batch: int
    micro_batches: tuple[int, ...]
    checkpointing: tuple[Checkpointing, ...]

    def applied(self, recipe: Recipe, micro_batch: int, checkpointing: Checkpointing) -> Recipe:
        """The recipe with one of the choices; rows of different lengths that are not packed are padded."""
        return replace(
            recipe,
            micro_batch=micro_batch,
            accumulation=max(1, self.effective_batch // micro_batch),
            checkpointing=checkpointing,
            padded=not recipe.packed and micro_batch > 1,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings chosen and why."""

    recipe: Recipe
    estimate: Estimate
    micro_batch_reason: str
    checkpointing_reason: str


@dataclass(frozen=True, slots=True)
class Largest:
    """How far a recipe could go before memory ends; 0 where nothing fits, None where free memory is unknown.

    Attributes:
        micro_batch: Rows at once of the recipe's length.
        max_length: Tokens of the longest rows, at most what the model was made for.
    """

    micro_batch: int | None
    max_length: int | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    recipe: Recipe
    speed: float


def best_plan(
    dimensions: Dimensions, recipe: Recipe, options: Options, device: Device, *, row: int | None = None
) -> Plan:
    """The fastest of the options that fits for certain; where none does, the one that needs least.

    Where free memory is unknown, the usual choice: everything checkpointed, about eight thousand tokens at once.

    Args:
        recipe: What is not to be chosen.
        row: See :func:`~qlora_tui.memory.speed.step_time`.
    """
    found: dict[tuple[int, Checkpointing], Estimate] = {}

    def estimated(candidate: Recipe) -> Estimate:
        key = candidate.micro_batch, candidate.checkpointing
        if key not in found:
            found[key] = estimate(dimensions, candidate, device.facts)
        return found[key]

    rates = device.rates or _USUAL_RATES
    fitting: list[_Candidate] = []
    for checkpointing in options.checkpointing:
        variants = [options.applied(recipe, size, checkpointing) for size in options.micro_batches]
        some = variants[: _how_many(variants, lambda each: estimated(each).fits == "yes")]
        # The whole effective batch at once keeps no gradients between micro-batches, and may need less than a part.
        if len(some) < len(variants) and estimated(variants[-1]).fits == "yes":
            some.append(variants[-1])
        fitting += [_Candidate(each, _speed(dimensions, each, rates, row)) for each in some]
    if not fitting:
        smallest = _smallest(recipe, options, known=device.free is not None)
        return Plan(smallest, estimated(smallest), *_reasons_of_the_smallest(estimated(smallest), options, device))
    fastest = max(each.speed for each in fitting)
    good = [each for each in fitting if each.speed >= _NOT_WORTH_IT * fastest]
    best = min(good, key=lambda each: (estimated(each.recipe).needed.point, -each.speed))
    plan = Plan(best.recipe, estimated(best.recipe), "", "")
    return replace(
        plan,
        micro_batch_reason=_micro_batch_reason(plan, options, fitting, estimated, device),
        checkpointing_reason=_checkpointing_reason(plan, options, fitting, estimated, device),
    )


def gain_over(dimensions: Dimensions, plan: Plan, other: Recipe, device: Device, *, row: int | None = None) -> str:
    """What the plan's recipe has over another, as words: ``12% faster and 0.9 GiB less``; empty if it has nothing."""
    rates = device.rates or _USUAL_RATES
    faster = _speed(dimensions, plan.recipe, rates, row) / _speed(dimensions, other, rates, row) - 1
    saved = estimate(dimensions, other, device.facts).needed.point - plan.estimate.needed.point
    parts = [f"{faster:.0%} faster"] if faster >= _WORTH_NAMING else []
    parts += [f"{_gib(saved)} less"] if saved >= GIB // 10 else []
    return " and ".join(parts)


def _how_many(variants: list[Recipe], fits: Callable[[Recipe], bool]) -> int:
    """How many of the variants fit, which need more and more."""
    low, high = 0, len(variants)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(variants[middle - 1]):
            low = middle
        else:
            high = middle - 1
    return low


def _speed(dimensions: Dimensions, recipe: Recipe, rates: CardRates, row: int | None) -> float:
    return recipe.tokens / step_time(dimensions, recipe, rates, row=row).total


def _smallest(recipe: Recipe, options: Options, *, known: bool) -> Recipe:
    sizes = options.micro_batches
    usual = [size for size in sizes if size * recipe.sequence <= 8192]
    return options.applied(recipe, sizes[0] if known or not usual else usual[-1], options.checkpointing[-1])


def _reasons_of_the_smallest(found: Estimate, options: Options, device: Device) -> tuple[str, str]:
    if device.free is None:
        return "about 8192 tokens at once, as free memory is unknown", "it saves most, as free memory is unknown"
    needs = f"even this needs {_gib(found.needed.high)}, and {_gib(device.free)} are free"
    return f"the fewest rows; {needs}", f"it saves most; {needs}"


def _micro_batch_reason(
    plan: Plan, options: Options, fitting: list[_Candidate], estimated: Callable[[Recipe], Estimate], device: Device
) -> str:
    chosen = plan.recipe
    tokens = f"{chosen.tokens:,} tokens at once"
    larger = [size for size in options.micro_batches if size > chosen.micro_batch]
    if not larger:
        return f"the whole effective batch, {tokens}, fits into {_gib(plan.estimate.needed.high)}"
    beyond = options.applied(chosen, larger[0], chosen.checkpointing)
    if any(each.recipe == beyond for each in fitting):
        return f"{tokens}; {larger[0]} rows would fit too and be hardly faster"
    need = estimated(beyond).needed.high
    return f"{tokens}; {larger[0]} rows would need {_gib(need)}, and {_gib(device.free or 0)} are free"


def _checkpointing_reason(
    plan: Plan, options: Options, fitting: list[_Candidate], estimated: Callable[[Recipe], Estimate], device: Device
) -> str:
    chosen = plan.recipe
    speeds = {(each.recipe.micro_batch, each.recipe.checkpointing): each.speed for each in fitting}
    own = speeds[chosen.micro_batch, chosen.checkpointing]
    quicker = options.checkpointing[: options.checkpointing.index(chosen.checkpointing)]
    if not quicker:
        full = [speed for (_, kind), speed in speeds.items() if kind == "full"]
        gain = f", {own / max(full) - 1:.0%} faster than recomputing" if full and own > max(full) else ""
        return f"all activations fit ({_gib(plan.estimate.needed.high)}){gain}"
    without = options.applied(chosen, chosen.micro_batch, quicker[0])
    need = estimated(without).needed.high
    if device.free is not None and need > device.free:
        return f"keeping all activations would need {_gib(need)}, and {_gib(device.free)} are free"
    rival = max((speed for (_, kind), speed in speeds.items() if kind == quicker[0]), default=own)
    if rival >= _NOT_WORTH_IT * own:
        return f"hardly slower than keeping all activations, which would need {_gib(need)}"
    return f"it lets more rows fit at once, which is {own / rival - 1:.0%} faster than keeping all activations"


def largest(dimensions: Dimensions, recipe: Recipe, options: Options, device: Device, *, context: int) -> Largest:
    """The largest micro-batch and the longest rows that fit for certain.

    Args:
        recipe: With everything that is open set to what needs least.
        context: Tokens that the model was made for, which bounds the length.
    """
    free = device.free
    if free is None:
        return Largest(None, None)
    facts = device.facts

    def need(rows: int, length: int) -> int:
        # A micro-batch of any size: the search is for memory, not for what divides the effective batch.
        sized = replace(
            recipe,
            micro_batch=rows,
            sequence=length,
            accumulation=max(1, options.effective_batch // rows),
            padded=not recipe.packed and rows > 1,
        )
        return estimate(dimensions, sized, facts).needed.high

    steps = max(1, context // STEP)
    return Largest(
        micro_batch=_most(lambda rows: need(rows, recipe.sequence), MOST_ROWS, free),
        max_length=_most(lambda count: need(recipe.micro_batch, min(context, count * STEP)), steps, free) * STEP,
    )


def _most(need: Callable[[int], int], limit: int, free: int) -> int:
    """The largest number from 0 to ``limit`` whose need, which rises with it, is at most ``free``.

    Needs are straight lines or bend upwards. So the line through the two last numbers that fit leads too far, and the
    one between a number that fits and one that does not leads not far enough: taken in turns, they close in fast.
    """
    low, low_need = 1, need(1)
    if low_need > free:
        return 0
    slope = need(2) - low_need if limit > 1 else 1
    high, high_need, turn = limit + 1, 0, 0
    while high - low > 1:
        turn += 1
        if high_need and turn % 3 == 0:
            guess = (low + high) // 2
        elif high_need and turn % 3 == 1:
            guess = low + (free - low_need) * (high - low) // (high_need - low_need)
        else:
            guess = low + (free - low_need) // max(1, slope)
        guess = max(low + 1, min(high - 1, guess))
        if (size := need(guess)) <= free:
            slope = (size - low_need) // (guess - low)
            low, low_need = guess, size
        else:
            high, high_need = guess, size
    return low


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
