"""A model's licence, to be accepted before it is chosen."""

from __future__ import annotations

from qlora_tui.models.catalog import Licence
from qlora_tui.tui.base_models import BaseModel
from qlora_tui.tui.screens.question import Answer, QuestionScreen

OPEN_LIMITS = "any use"


def is_open(licence: Licence | None) -> bool:
    """Whether a licence allows any use, so that showing it is enough."""
    return licence is not None and licence.limits.startswith(OPEN_LIMITS)


def licence_question(model: BaseModel) -> QuestionScreen:
    """Shows what a licence asks, and asks whether that is accepted; ``accept`` is yes."""
    licence = model.licence
    text = "What it says in a phrase, which does not replace reading it:\n" + (
        f"{licence.limits}." if licence else "This program does not know the licence; read the model's page."
    )
    if model.gated:
        text += "\n\nThe hub asks for a login and for consent on the model's page before it gives out the files."
    title = f"{licence.name if licence else 'Unknown licence'} of {model.name}"
    return QuestionScreen(title, text, [Answer("accept", "Accept and choose"), Answer("cancel", "Not this model")])
