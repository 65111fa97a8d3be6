"""The fields of the recipe step: which there are, and what their text means."""

from __future__ import annotations

from typing import Any, Final, get_args

from pydantic import ValidationError

from qlora_tui.config import RowFormat
from qlora_tui.tui.answers import Answers, problem_of
from qlora_tui.tui.widgets.form import FieldSpec
from qlora_tui.tui.words import value_text

FIELDS: Final = (
    FieldSpec("adapter.rank", "rank", detail="A whole number, 1 to 1024."),
    FieldSpec("adapter.alpha", "alpha", detail="A number above 0; leave it at 32."),
    FieldSpec("adapter.dropout", "dropout", detail="A share from 0 to below 1."),
    FieldSpec("adapter.target_modules", "target modules", detail="all-linear, or names separated by commas."),
    FieldSpec("data.max_length", "sequence length", detail="Tokens, 8 or more."),
    FieldSpec("training.effective_batch", "effective batch", detail="A whole number, 1 or more."),
    FieldSpec("training.epochs", "epochs", detail="A number above 0; parts of a pass are allowed."),
    FieldSpec("training.learning_rate", "learning rate", detail="auto, or a number such as 2e-4."),
    FieldSpec("training.schedule", "schedule", options=("cosine", "linear", "constant")),
    FieldSpec("data.packing", "packing", options=("auto", "yes", "no")),
    FieldSpec("data.evaluation.fraction", "held-out share", detail="A share from 0 to below 1; 0 measures nothing."),
    FieldSpec("training.micro_batch", "micro-batch", detail="auto, or a divisor of the effective batch."),
    FieldSpec("training.gradient_checkpointing", "checkpointing", options=("auto", "full", "every-2", "none")),
)


DATA_FIELDS: Final = (
    FieldSpec("data.split", "split", detail="train, or a slice such as train[:2%] or train[100:600]."),
    FieldSpec("data.format", "format", options=get_args(RowFormat)),
    FieldSpec("data.columns", "columns", detail="Role: column, separated by commas, such as prompt: question."),
    FieldSpec("data.train_on", "train on", options=("assistant", "all")),
    FieldSpec("data.long_rows", "long rows", options=("truncate", "drop", "split", "error")),
)


def with_text(answers: Answers, path: str, text: str) -> Answers:
    """The answers with a field as it was typed; what cannot be taken is kept beside the recipe."""
    try:
        return answers.with_value(path, _meaning(path, text.strip()))
    except ValidationError:
        return answers.with_unusable(path, text)


def problem(answers: Answers, spec: FieldSpec) -> str:
    """What is wrong with what was typed into a field; empty if nothing is."""
    text = answers.unusable.get(spec.path)
    if text is None:
        return ""
    try:
        answers.with_value(spec.path, _meaning(spec.path, text.strip()))
    except ValidationError as error:
        own = error.errors(include_url=False)[0]["type"] == "value_error"
        return problem_of(error) if own or not spec.detail else spec.detail
    return ""


def shown_text(answers: Answers, path: str) -> str:
    """What stands in a field."""
    return answers.unusable.get(path, value_text(answers.value(path)))


def _meaning(path: str, text: str) -> Any:
    if path == "data.packing":
        return {"yes": True, "no": False}.get(text, text)
    if path == "data.columns":
        pairs = (pair.partition(":") for pair in text.split(",") if pair.strip())
        return {role.strip(): column.strip() for role, _, column in pairs}
    if path == "adapter.target_modules" and text != "all-linear":
        return [name.strip() for name in text.split(",") if name.strip()]
    return text
