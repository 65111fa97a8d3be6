"""What pydantic finds wrong with a config, in sentences that name the setting, its value and what it takes."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from qlora_tui.config_nodes import BOOL, FLOAT, INT, Document, Place, Problem, dotted
from qlora_tui.config_schema import allowed, alternatives, schema_at, setting_names
from qlora_tui.text import one_line

# The schema's name of a kind -> text that would be of that kind without its quotes.
_READINGS = {"integer": INT, "number": re.compile(f"{INT.pattern}|{FLOAT.pattern}"), "boolean": BOOL}

# What other trainers call our settings; only names that likeness alone does not find.
_ELSEWHERE = {
    "base_model": "model.source", "model_name_or_path": "model.source", "model_id": "model.source",
    "lora": "adapter", "peft": "adapter", "r": "adapter.rank", "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha", "lora_dropout": "adapter.dropout", "use_dora": "adapter.dora",
    "dataset": "data.source", "datasets": "data.source", "max_seq_length": "data.max_length",
    "sequence_len": "data.max_length", "sample_packing": "data.packing", "val_set_size": "data.evaluation.fraction",
    "lr": "training.learning_rate", "num_epochs": "training.epochs", "num_train_epochs": "training.epochs",
    "batch_size": "training.effective_batch", "per_device_train_batch_size": "training.micro_batch",
    "micro_batch_size": "training.micro_batch", "gradient_accumulation_steps": "training.effective_batch",
    "lr_scheduler_type": "training.schedule", "warmup_ratio": "training.warmup", "optim": "training.optimizer",
    "eval_steps": "evaluation.every", "save_steps": "checkpoints.every", "output_dir": "output.directory",
}  # fmt: skip


def add_validation_problems(error: ValidationError, document: Document, values: dict[str, Any]) -> None:
    """Note in ``document`` what ``error`` says of ``values``, each at its line."""
    found: dict[Place, Problem] = {}
    for detail in error.errors(include_url=False):
        path = _path_in_file(detail["loc"], values, missing=detail["type"] == "missing")
        if path in found or path in document.refused:
            continue
        if detail["type"] == "value_error" and isinstance(detail["input"], dict):
            # A rule between settings; its message begins with the one to point at.
            text = str(detail["ctx"]["error"])
            line = document.line_of(tuple(text.split(" ", 1)[0].split(".")))
        else:
            text = f"{dotted(path)}: {_message(detail, path, document)}"
            line = document.line_of(path)
        found[path] = Problem(line, text)
    # Each alternative of a setting complains for itself; the one that got furthest inside is the one meant.
    inner = {path[:end] for path in found for end in range(len(path))}
    document.problems += [problem for path, problem in found.items() if path not in inner]


def _path_in_file(location: tuple[int | str, ...], values: Any, missing: bool) -> Place:
    """``location`` without the labels of alternatives, which pydantic puts between keys."""
    path: Place = ()
    for part in location:
        inside = part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)
        if inside:
            path, values = (*path, part), values[part]
    return (*path, location[-1]) if missing else path


def _message(detail: Any, path: Place, document: Document) -> str:
    """What is wrong with the setting at ``path``, in words."""
    value, schema = detail["input"], schema_at(path)
    if detail["type"] == "missing":
        return f"missing ({schema['description'].rstrip('.')})"
    if detail["type"] == "extra_forbidden":
        return _unknown(path)
    shown = as_typed(value, path, document)
    if detail["type"] == "value_error":
        return f"{shown} is not allowed; {detail['ctx']['error']}"
    wanted = allowed(schema)
    kinds = {alternative.get("type") for alternative in alternatives(schema)} - {"null"}
    readings = [reading for kind, reading in _READINGS.items() if kind in kinds]
    if isinstance(value, str) and any(reading.fullmatch(value) for reading in readings):
        return f"{shown} is text; remove the quotes (use {wanted})"
    if kinds <= {"integer", "number"} and isinstance(value, str):
        return f"{shown} is not a number; use {wanted}"
    if kinds == {"integer"} and isinstance(value, float):
        return f"{shown} is not a whole number; use {wanted}"
    if wanted.startswith("text") and isinstance(value, bool | int | float):
        return f"{shown} is not read as text; put it in quotes"
    near = _nearest(value, [word for choice in alternatives(schema) for word in _words(choice)])
    return f"{shown} is not allowed; use {wanted}" + (f" (did you mean {near}?)" if near else "")


def _words(schema: dict[str, Any]) -> list[str]:
    """The words that a setting of fixed choices takes."""
    return [word for word in (*schema.get("enum", ()), schema.get("const")) if isinstance(word, str)]


def _unknown(path: Place) -> str:
    """Where an unknown key may belong: the nearest name beside it, else the same name in another section."""
    section, key = path[:-1], str(path[-1])
    settings = setting_names(())
    if "." in key and key in settings:
        outer, inner = key.rsplit(".", 1)
        return f"settings are nested; write {inner} on an indented line under {outer}"
    near = _nearest(key, list(schema_at(section).get("properties", ())))
    if near:
        return f"unknown setting; did you mean {dotted((*section, near))}?"
    homes = [name for name in settings if key == name.rsplit(".", 1)[-1]]
    if not homes and key.lower() in _ELSEWHERE:
        homes = [_ELSEWHERE[key.lower()]]
    if not homes:
        last = _nearest(key, [name.rsplit(".", 1)[-1] for name in settings])
        homes = [name for name in settings if last and name.rsplit(".", 1)[-1] == last]
    if homes:
        return f"not a setting of this section; did you mean {' or '.join(homes)}?"
    return f"unknown setting; known here: {', '.join(schema_at(section).get('properties', ()))}"


def _nearest(word: Any, names: list[str]) -> str | None:
    return next(iter(get_close_matches(word.lower(), names, 1, 0.65)), None) if isinstance(word, str) else None


def as_typed(value: Any, path: Place, document: Document) -> str:
    """A value for a message: text in quotes, the rest as typed."""
    if isinstance(value, list | dict):
        return f"{'a' if value else 'an empty'} {'list' if isinstance(value, list) else 'mapping'}"
    typed = one_line(document.typed.get(path, ""), 60)
    return f'"{typed}"' if isinstance(value, str) else typed or "an empty value"
