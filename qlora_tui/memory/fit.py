"""Everything there is to say about a recipe on a device, in one call: what the wizard and ``estimate`` show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from qlora_tui.memory.device import Device
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.from_config import options_of, with_least_memory
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.kernels import liger_possible, varlen_possible
from qlora_tui.memory.plan import Largest, largest
from qlora_tui.memory.process import Band, Verdict
from qlora_tui.memory.recipe import GIB, Recipe
from qlora_tui.memory.settings import NO_ROWS, Choice, Rows, Situation, is_packed, settle
from qlora_tui.memory.speed import Throughput, throughput
from qlora_tui.models.architecture import ModelShape

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig

__all__ = ["NO_ROWS", "Choice", "Device", "Fit", "Rows", "Speed", "dimensions_for", "fit_of", "least_needed"]


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast, and how long; hours are None while the number of tokens is unknown."""

    tokens_per_second: Throughput
    hours: tuple[float, float, float] | None = None
    """Least, likely, most."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A recipe on a device.

    Attributes:
        parameters: All of the model's.
        trainable: The adapter's.
        recipe: Every setting that memory and speed depend on, with what ``auto`` became.
        choices: What ``auto`` became, and why.
        estimate: Components, bands, verdict.
        largest: The largest micro-batch at this length, and the longest rows at this micro-batch (one row, if that is
            open), with everything else that is open set to what needs least.
        speed: None where the card publishes no rates.
        notes: What the user should know, most important first.
    """

    parameters: int
    trainable: int
    device: Device
    recipe: Recipe
    choices: tuple[Choice, ...]
    estimate: Estimate
    largest: Largest
    speed: Speed | None
    notes: tuple[str, ...]

    @property
    def components(self) -> Mapping[str, int]:
        """Bytes by name; they add up to ``allocated``."""
        return self.estimate.components

    @property
    def allocated(self) -> int:
        """Peak of training as torch counts it, bytes."""
        return self.estimate.allocated

    @property
    def process(self) -> Band:
        """What the process needs: low, point, high."""
        return self.estimate.needed

    @property
    def fits(self) -> Verdict:
        """The verdict against free memory."""
        return self.estimate.fits

    @property
    def short(self) -> int:
        """Bytes missing for a certain fit; 0 if it fits or free memory is unknown."""
        return 0 if self.device.free is None else max(0, self.process.high - self.device.free)


def fit_of(shape: ModelShape, config: RunConfig, device: Device, rows: Rows = NO_ROWS) -> Fit:
    """The fit of a recipe; what is ``auto`` is chosen as the engine chooses it. Takes under a millisecond.

    Args:
        rows: What is known of the data.

    Raises:
        ModelError: if an adapter target fits nothing in this model.
    """
    dimensions = dimensions_for(shape, config)
    trainable = shape.lora_parameters(config.adapter.rank, config.adapter.target_modules)
    situation = Situation(
        device,
        dimensions,
        varlen=varlen_possible(shape),
        layer_kernels=device.layer_kernels and liger_possible(shape),
        rows=rows,
    )
    settled = settle(config, situation)
    found = settled.plan.estimate if settled.plan else estimate(dimensions, settled.recipe, device.facts)
    return Fit(
        parameters=_parameters(shape),
        trainable=trainable,
        device=device,
        recipe=settled.recipe,
        choices=settled.choices,
        estimate=found,
        largest=largest(
            dimensions,
            with_least_memory(settled.recipe, config),
            options_of(config),
            device,
            context=shape.max_position_embeddings,
        ),
        # No mixture of experts was measured, and what its adapters cost is not modelled.
        speed=None if shape.experts else _speed(dimensions, settled.recipe, config, device, rows),
        notes=tuple(_notes(shape, config, device, rows)),
    )


def least_needed(shape: ModelShape, config: RunConfig, fit: Fit) -> int:
    """Bytes of the process, at the high end, with everything that is open set to what needs least."""
    recipe = with_least_memory(fit.recipe, config)
    return estimate(dimensions_for(shape, config), recipe, fit.device.facts).needed.high


def dimensions_for(shape: ModelShape, config: RunConfig) -> Dimensions:
    """What the arithmetic needs of a model; DoRA was not measured, which widens the band."""
    return _dimensions(shape, rough=config.adapter.dora)


@lru_cache(maxsize=256)
def _dimensions(shape: ModelShape, *, rough: bool) -> Dimensions:
    dimensions = dimensions_of(shape)
    return replace(dimensions, knowledge="rough") if rough else dimensions


@lru_cache(maxsize=256)
def _parameters(shape: ModelShape) -> int:
    return shape.parameters


def _speed(dimensions: Dimensions, recipe: Recipe, config: RunConfig, device: Device, rows: Rows) -> Speed | None:
    if device.rates is None:
        return None
    filled = rows.filled(recipe.micro_batch)
    found = throughput(dimensions, recipe, device.rates, filled=filled * device.pace, row=rows.row)
    tokens = _tokens(config, rows)
    if tokens is None:
        return Speed(found)
    low, point, high = (tokens / speed / 3600 for speed in (found.high, found.point, found.low))
    return Speed(found, (low, point, high))


def _tokens(config: RunConfig, rows: Rows) -> float | None:
    """Tokens of the whole run, as far as they are known."""
    if rows.tokens is None:
        return None
    total = rows.tokens * config.training.epochs
    if config.training.max_steps is not None and rows.sequences:
        per_step = rows.tokens / rows.sequences * config.training.effective_batch
        total = min(total, config.training.max_steps * per_step)
    return total


def _notes(shape: ModelShape, config: RunConfig, device: Device, rows: Rows) -> list[str]:
    notes = [*shape.notes]
    length, context = config.data.max_length, shape.max_position_embeddings
    if length > context:
        notes.append(f"Rows of {length:,} tokens are longer than the {context:,} that the model was made for.")
    if device.kind == "cpu":
        notes.append(
            "Without a GPU the figures are those of RAM, and rough: a process keeps up to three times what it uses."
        )
    elif device.free is None:
        notes.append("Free memory is unknown, so there is no verdict.")
    elif device.planned:
        notes.append(f"{device.name} is taken as idle, with {device.free / GIB:.1f} GiB free.")
    if config.data.packing == "auto" and rows.packed is None and is_packed(config, rows):
        notes.append("Rows are taken as packed; data.packing: auto decides that when it has seen their lengths.")
    notes += device.notes
    if config.adapter.dora:
        notes.append("What adapter.dora adds is not part of the estimate.")
    return notes
