"""Everything a step draws, as one value: the answers and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from qlora_tui.errors import ModelError
from qlora_tui.hardware import Hardware
from qlora_tui.memory.fit import Device, Fit, fit_of
from qlora_tui.text import one_line
from qlora_tui.tui.answers import Answers
from qlora_tui.tui.base_models import BaseModel, model_of
from qlora_tui.tui.devices import device_for
from qlora_tui.tui.inspections import Seen, key_of, rows_of
from qlora_tui.tui.words import count


@dataclass(frozen=True, slots=True)
class View:
    """The answers, the machine, and what they come to."""

    answers: Answers
    hardware: Hardware | None
    device: Device | None
    model: BaseModel
    fit: Fit | None
    seen: Seen | None
    """What is known of the data that the answers name."""
    no_fit: str
    """Why there is no fit, in words."""


def view_of(
    answers: Answers,
    hardware: Hardware | None,
    seen: Seen | None = None,
    looked_up: Mapping[str, str] = MappingProxyType({}),
) -> View:
    """What the answers come to; takes about a millisecond after the first call.

    Args:
        looked_up: Models that were asked about, and why nothing was found out.
    """
    device = device_for(answers.card, answers.gpu, hardware)
    model = model_of(answers.config.model.source)
    if seen is not None and seen.key != key_of(answers.config):
        seen = None
    fit, why = None, ""
    if device is None:
        why = "Looking at this machine …"
    elif model.shape is None:
        problem = looked_up.get(model.source)
        why = f"? {one_line(problem, 300)}" if problem else "Finding out what this model is made of …"
    else:
        try:
            fit = fit_of(model.shape, answers.config, device, rows_of(seen, answers.config))
        except ModelError as error:
            why = f"✗ {error.why}"
    return View(answers, hardware, device, model, fit, seen, why)


def summaries(view: View) -> dict[int, str]:
    """A few words of what was answered, by step."""
    answers, found = view.answers, {}
    if view.device is not None:
        name = view.device.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
        found[1] = f"{name}, planned" if view.device.planned else name
    if answers.model_chosen:
        size = f" {count(view.model.parameters)}" if view.model.parameters else ""
        found[2] = view.model.name.rpartition("/")[2].removeprefix("bundled:") + size
    if answers.data_chosen:
        found[3] = answers.config.data.source.rpartition("/")[2]
    if answers.step > 4 and not answers.unusable:
        passes = answers.config.training.epochs
        found[4] = f"rank {answers.config.adapter.rank}, {passes:g} epoch{'' if passes == 1 else 's'}"
    return found
