"""Everything a step draws, as one value: the answers and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from qlora_tui.errors import ModelError
from qlora_tui.hardware import Hardware
from qlora_tui.memory.fit import Device, Fit, fit_of
from qlora_tui.tui.answers import Answers
from qlora_tui.tui.base_models import BaseModel, model_of
from qlora_tui.tui.devices import device_for
from qlora_tui.tui.words import count


@dataclass(frozen=True, slots=True)
class View:
    """The answers, the machine, and what they come to."""

    answers: Answers
    hardware: Hardware | None
    device: Device | None
    model: BaseModel
    fit: Fit | None
    no_fit: str
    """Why there is no fit, in words."""


def view_of(answers: Answers, hardware: Hardware | None) -> View:
    """What the answers come to; takes about a millisecond after the first call."""
    device = device_for(answers.card, answers.gpu, hardware)
    model = model_of(answers.config.model.source)
    fit, why = None, ""
    if device is None:
        why = "Looking at this machine …"
    elif model.shape is None:
        why = "? unknown: the size of this model is known once its files are here"
    else:
        try:
            fit = fit_of(model.shape, answers.config, device)
        except ModelError as error:
            why = f"✗ {error.why}"
    return View(answers, hardware, device, model, fit, why)


def summaries(view: View) -> dict[int, str]:
    """A few words of what was answered, by step."""
    answers, found = view.answers, {}
    if view.device is not None:
        kind = "planned: " if view.device.planned else ""
        found[1] = f"{kind}{view.device.name}"
    if answers.model_chosen:
        size = f" {count(view.model.parameters)}" if view.model.parameters else ""
        found[2] = view.model.name.rpartition("/")[2].removeprefix("bundled:") + size
    if answers.data_chosen:
        found[3] = answers.config.data.source.rpartition("/")[2]
    if answers.step > 4 and not answers.unusable:
        training = answers.config.training
        found[4] = (
            f"rank {answers.config.adapter.rank}, {training.epochs:g} × , batch {training.effective_batch}".replace(
                " × ,", " epochs,"
            )
        )
    return found
