"""An estimate with all there is to say about it: the fit, what would be faster, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qlora_tui.errors import ConfigError
from qlora_tui.memory.device import Device
from qlora_tui.memory.fit import Fit, Rows, fit_of
from qlora_tui.memory.remedies import bad_news, fastest_fit
from qlora_tui.memory.words import largest_in_words, speed_in_words
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qlora_tui.config import RunConfig
    from qlora_tui.models.architecture import ModelShape
    from qlora_tui.models.known import KnownModel

_WORTH_TELLING: Final = 1.05
"""Settings that are this much faster than those of the config are told."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An estimate with all there is to say about it.

    Attributes:
        fastest: The fit with everything open, where that is clearly faster or is all that fits.
        notes: Sentences, the ones that help first.
    """

    model: KnownModel
    config: RunConfig
    fit: Fit
    fastest: Fit | None
    notes: tuple[str, ...]

    def as_values(self) -> dict[str, Any]:
        """The answer for JSON, sizes in bytes."""
        fit = self.fit
        return {
            "model": {
                "id": self.model.id,
                "architecture": self.model.shape.model_type,
                "parameters": fit.parameters,
                "trainable": fit.trainable,
            },
            "components": dict(fit.components),
            "allocated": fit.allocated,
            "process": {"low": fit.process.low, "point": fit.process.point, "high": fit.process.high},
            "device": {"name": fit.device.name, "total": fit.device.total, "free": fit.device.free},
            "fits": fit.fits,
            "largest": {"micro_batch": fit.largest.micro_batch, "max_length": fit.largest.max_length},
            "notes": list(self.notes),
        }


def answer_of(
    model: KnownModel,
    config: RunConfig,
    device: Device,
    rows: Rows,
    *,
    told: Sequence[str] = (),
    exactly: Callable[[KnownModel, Fit], Fit] | None = None,
) -> Answer:
    """The estimate of a recipe.

    Args:
        rows: What is roughly known of the data.
        told: What is to be known of the device.
        exactly: Puts a dry run in the place of the closed form.

    Raises:
        ConfigError: if the adapter's rank is above the size of every layer.
        ModelError: if an adapter target fits nothing in the model.
    """
    check_rank(model.shape, config)
    fit = fit_of(model.shape, config, device, rows)
    fit = fit if exactly is None else exactly(model, fit)
    fastest = _faster(fastest_fit(model.shape, config, device, rows), fit)
    notes = (*bad_news(model.shape, config, fit, rows), *_good_news(fit, fastest), *model.notes, *told, *fit.notes)
    if fit.speed is not None and fit.speed.hours is not None:
        notes += ("The time is rough: rows are taken to have a token for every four bytes.",)
    return Answer(model, config, fit, fastest, tuple(dict.fromkeys(notes)))


def check_rank(shape: ModelShape, config: RunConfig) -> None:
    """Refuse a rank that no layer has the size for.

    Raises:
        ConfigError: if the rank is above the smaller side of every adapted layer.
        ModelError: if an adapter target fits nothing.
    """
    sites = shape.adapter_sites(config.adapter.target_modules)
    widest = max((site for site in sites), key=lambda site: min(site.in_features, site.out_features))
    most = min(widest.in_features, widest.out_features)
    if config.adapter.rank > most:
        raise ConfigError(
            f"An adapter of rank {config.adapter.rank} makes no sense on this model.",
            f"Its largest layer, {widest.name}, has {most} rows or columns, and a product can have no higher rank.",
            f"Set adapter.rank to at most {most}; 16 is a good start.",
        )


def _faster(fastest: Fit, fit: Fit) -> Fit | None:
    """The fastest fit, if it is worth telling."""
    if fastest.recipe == fit.recipe:
        return None
    if fit.fits != "yes" or fit.speed is None or fastest.speed is None:
        return fastest if fastest.fits == "yes" and fit.fits != "yes" else None
    gain = fastest.speed.tokens_per_second.point / fit.speed.tokens_per_second.point
    return fastest if fastest.fits == "yes" and gain >= _WORTH_TELLING else None


def _good_news(fit: Fit, fastest: Fit | None) -> list[str]:
    notes = [] if fit.speed is None else [speed_in_words(fit.speed)]
    if fit.device.kind == "cuda" and fit.device.rates is None:
        notes.append(f"No speed can be told: no rates are published for {one_line(fit.device.name, 60)}.")
    elif fit.device.kind == "cuda" and fit.speed is None:
        notes.append("No speed can be told: no mixture of experts was measured.")
    if (limits := largest_in_words(fit)) is not None:
        notes.append(limits)
    if fastest is not None:
        recipe, speed = fastest.recipe, fastest.speed
        settings = (
            f"training.micro_batch {recipe.micro_batch}, gradient_checkpointing {recipe.checkpointing}, "
            f"attention {recipe.attention}, layer_kernels {recipe.layer_kernels}, optimizer {recipe.optimizer}"
        )
        notes.append(f"The fastest settings that fit: {settings}.{f' {speed_in_words(speed)}' if speed else ''}")
    return notes
