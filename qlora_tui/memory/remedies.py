"""What would help where a recipe does not fit: changes with what each would need, those that are enough first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qlora_tui.cards import CARDS
from qlora_tui.memory.device import Device, device_like
from qlora_tui.memory.fit import NO_ROWS, Fit, Rows, fit_of
from qlora_tui.memory.words import SETTINGS_OPEN, size
from qlora_tui.models.architecture import ModelShape

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig

_RANKS: Final = (64, 32, 16, 8, 4)
_WORTH_NAMING: Final = 0.05
"""A change that saves less than this share of what is needed helps nobody."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change to a recipe that does not fit.

    Attributes:
        change: What to do.
        needs: Bytes of the process afterwards, at the high end of the band.
        enough: Whether it fits then.
    """

    change: str
    needs: int
    enough: bool

    def __str__(self) -> str:
        return f"{self.change}; it needs {size(self.needs)} then{'' if self.enough else ', which is still too much'}"


def opened(config: RunConfig) -> RunConfig:
    """The config with everything left to be chosen that changes nothing of what is learnt."""
    return config.changed(training=dict.fromkeys(SETTINGS_OPEN, "auto"))


def fastest_fit(shape: ModelShape, config: RunConfig, device: Device, rows: Rows = NO_ROWS) -> Fit:
    """The fit with the settings that are fastest on this device, whatever the config says of them."""
    return fit_of(shape, opened(config), device, rows)


def remedies(shape: ModelShape, config: RunConfig, fit: Fit, rows: Rows = NO_ROWS) -> list[Remedy]:
    """What would help, changes that are enough before those that are not; empty if it fits or nothing is known."""
    if not fit.short:
        return []
    found = [
        each for each in _remedies(shape, config, fit, rows) if each.needs < fit.process.high * (1 - _WORTH_NAMING)
    ]
    return sorted(found, key=lambda each: not each.enough)


def _remedies(shape: ModelShape, config: RunConfig, fit: Fit, rows: Rows) -> Iterator[Remedy]:
    def changed(change: str, base: RunConfig = config, **sections: dict[str, Any]) -> Remedy:
        other = fit_of(shape, base.changed(**sections), fit.device, rows)
        return Remedy(change, other.process.high, other.fits == "yes")

    free = opened(config)
    if free != config:
        names = [name for name in SETTINGS_OPEN[:2] if getattr(config.training, name) != "auto"] or ["attention"]
        yield changed(f"Set {' and '.join(f'training.{name}' for name in names)} to auto", free)
    if fit.device.kind == "cpu":
        # Left to be chosen, these go by speed alone where there is no GPU.
        least = {"micro_batch": 1, "gradient_checkpointing": "full"}
        yield changed("Set training.micro_batch: 1 and training.gradient_checkpointing: full", training=least)
    if config.quantization.type == "none":
        yield changed("Set quantization.type: nf4", quantization={"type": "nf4"})
    elif not config.quantization.double_quant:
        yield changed("Set quantization.double_quant: true", quantization={"double_quant": True})
    longest = fit_of(shape, free, fit.device, rows).largest.max_length or 0
    if 8 <= longest < config.data.max_length:
        yield changed(f"Set data.max_length: {longest}", free, data={"max_length": longest})
    else:
        yield changed("Set data.max_length: 512", free, data={"max_length": min(512, config.data.max_length)})
    smaller = [rank for rank in _RANKS if rank < config.adapter.rank]
    ranks = [changed(f"Set adapter.rank: {rank}", adapter={"rank": rank}) for rank in smaller]
    yield from [next((each for each in ranks if each.enough), ranks[-1])] if ranks else []


def bad_news(shape: ModelShape, config: RunConfig, fit: Fit, rows: Rows) -> list[str]:
    """What is short, and what would help, as sentences; empty if it fits or free memory is unknown."""
    if not fit.short:
        return []
    found = remedies(shape, config, fit, rows)
    notes = [note for note in (others_hold(fit),) if note is not None]
    enough = [remedy for remedy in found if remedy.enough]
    notes += [f"{remedy}." for remedy in enough or found]
    if not enough:
        if (weights := weights_of(fit)) > (fit.device.free or 0):
            notes.insert(0, f"The model's weights alone take {size(weights)}.")
        others = (smaller_model(shape, config, fit.device, rows), larger_card(fit))
        notes += [note for note in others if note is not None]
    return notes


def weights_of(fit: Fit) -> int:
    """Bytes of the model itself, which no setting makes smaller."""
    return sum(fit.components.get(name, 0) for name in ("weights_4bit", "weights", "embeddings_and_head", "norms"))


def others_hold(fit: Fit) -> str | None:
    """A sentence if the run would fit on this card once other programs have left it."""
    device = fit.device
    if device.planned or device.kind == "cpu" or device.total is None or device.free is None:
        return None
    idle = device.total - max(device.total // 50, 1)
    if not fit.short or fit.process.high > idle:
        return None
    return f"Other programs hold {size(device.total - device.free)} of this card; without them it would fit."


def larger_card(fit: Fit) -> str | None:
    """The smallest size of card that would do, as a sentence; None if no card known here is large enough."""
    sizes = [card.size for card in CARDS if (device_like(card).free or 0) >= fit.process.high and not card.unified]
    return f"A card with {min(sizes)} GB or more would do." if sizes else None


def smaller_model(shape: ModelShape, config: RunConfig, device: Device, rows: Rows = NO_ROWS) -> str | None:
    """The largest model of the catalog that would fit with this recipe, as a sentence; None if there is none."""
    from qlora_tui.models.catalog import catalog, catalog_entry

    own = catalog_entry(config.model.source)
    recipe = opened(config).changed(adapter={"target_modules": "all-linear"})
    for entry in reversed(catalog()):
        if entry.parameters >= shape.parameters or (own is not None and entry.kind != own.kind):
            continue
        other = entry.shape()
        if other.experts is None and fit_of(other, recipe, device, rows).fits == "yes":
            billions = f"{entry.parameters / 1e9:.1f} B parameters"
            return f"With this recipe the largest model of the catalog that fits is {entry.id} ({billions})."
    return None
