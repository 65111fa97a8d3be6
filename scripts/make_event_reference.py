"""Write the part of `docs/run-directory.md` that lists every event with its fields, from the event classes.

python scripts/make_event_reference.py
"""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from qlora_tui.runs import events

TARGET = Path(__file__).resolve().parent.parent / "docs" / "run-directory.md"
START, END = "<!-- events:start -->", "<!-- events:end -->"

# Units, and what a name does not say.
MEANINGS = {
    "RunStarted.name": "the run's name",
    "RunStarted.pid": "process id of the engine",
    "RunStarted.phases": "the phases to come, in order",
    "RunStarted.resumed_from_step": "step of the checkpoint gone on from; null for a start from nothing",
    "Phase.phase": "the phase",
    "Phase.state": "whether it began or ended",
    "Phase.seconds": "how long it took; null when it begins",
    "Phase.details": "its facts, by name; for `load` also each setting that was `auto`, with its reason",
    "Progress.phase": "the phase",
    "Progress.done": "amount done, in `unit`",
    "Progress.total": "amount in all; null where it is not known",
    "Progress.unit": "`bytes`, `rows`, `stages` …",
    "Progress.message": "what is being done, for people",
    "Step.step": "number of the optimizer step, from 1",
    "Step.total_steps": "steps of the whole run",
    "Step.epoch": "passes over the training rows so far",
    "Step.loss": "mean over the trained tokens of the step, in nats",
    "Step.learning_rate": "learning rate, as the trainer reports it with the step",
    "Step.grad_norm": "length of the gradient before clipping",
    "Step.tokens": "tokens of the step, padding left out",
    "Step.tokens_per_second": "`tokens` / `step_seconds`",
    "Step.step_seconds": "time from the start of the step to its end",
    "Step.memory_allocated": "peak so far, bytes",
    "Step.memory_reserved": "peak so far, bytes",
    "Eval.stage": "before training, during it, or after it",
    "Eval.step": "the step whose weights are measured",
    "Eval.epoch": "passes over the training rows so far",
    "Eval.loss": "mean over the trained tokens of the rows, in nats",
    "Eval.perplexity": "exp(`loss`)",
    "Eval.rows": "rows measured",
    "Eval.tokens": "trained tokens measured",
    "Eval.seconds": "how long it took",
    "Eval.metrics": "mean over the rows of each metric, by name",
    "Eval.best": "the lowest loss of the run so far; its adapter is kept",
    "Sample.step": "the step whose weights answer; 0 is the base",
    "Sample.prompt": "the prompt",
    "Sample.text": "the answer",
    "Checkpoint.step": "the step that is saved",
    "Checkpoint.path": "where it is",
    "Checkpoint.what": "a checkpoint to go on from, or the adapter to use",
    "Checkpoint.seconds": "how long saving took",
    "Memory.allocated": "peak of training that torch allocated on the GPU",
    "Memory.reserved": "peak that torch reserved on the GPU",
    "Memory.process": "resident main memory of the engine",
    "Memory.device_free": "free memory of the GPU, other programs included",
    "Memory.device_total": "memory of the GPU",
    "Memory.device_process": "what the driver shows for the engine on the GPU; null if it does not tell",
    "Memory.evaluation": "the same of evaluation",
    "Memory.estimated_allocated": "what the estimate said of `allocated`; null for a model that it does not know",
    "Memory.moment": "after the steps that probe the memory before training, after a step, or at the end of training",
    "Memory.utilisation": "percent of the last moments in which the GPU computed",
    "Memory.temperature": "degrees Celsius",
    "Memory.power": "watts",
    "Memory.power_limit": "watts",
    "Memory.throttled": "why the clocks are held down; empty if they are not",
    "Advice.topic": "what it is about, in a word: `nan`, `divergence`, `overfitting`, `plateau`, `throttling` …",
    "Advice.message": "the evidence",
    "Advice.change": "what to change",
    "Replanned.step": "the step after which it holds",
    "Replanned.micro_batch": "rows at once from now on",
    "Replanned.gradient_accumulation": "micro-batches per step from now on",
    "Replanned.reason": "why",
    "Warned.topic": "what it is about, in a word: `data`, `drift`, `evaluation`, `metrics`, `model` …",
    "Warned.message": "the warning",
    "Failed.error": "kind of the error: `config`, `data`, `model`, `environment`, `out_of_memory`, `training` …",
    "Failed.message": "what happened and why",
    "Failed.hint": "what to do",
    "Failed.log": "file that holds the traceback",
    "Failed.exit_code": "exit code of the command that follows the run",
    "Comparison.before": "value of the base",
    "Comparison.after": "value of the best adapter",
    "Comparison.difference": "`after` - `before`",
    "Comparison.low": "lower end of the interval of the difference",
    "Comparison.high": "upper end of the interval of the difference",
    "Comparison.confidence": "confidence of the interval, as a share",
    "Comparison.rows": "rows compared",
    "RunFinished.status": "how it ended",
    "RunFinished.steps": "optimizer steps of the run",
    "RunFinished.seconds": "how long this life took",
    "RunFinished.best_step": "step of the adapter that is kept",
    "RunFinished.best_loss": "its loss on the selection rows",
    "RunFinished.adapter": "folder of the adapter; null if there is none",
    "RunFinished.comparison": "before and after, by metric; see Comparison below",
}

_JSON_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


def reference() -> str:
    """The sections of all events and of the values inside them, in the order of the source."""
    return "\n".join([*map(_section, event_classes()), _section(events.Comparison)])


def event_classes() -> list[type[events.Event]]:
    """Every kind of event, in the order of the source."""
    return [event for event in events.Event.__subclasses__() if event.__module__ == events.__name__]


def page() -> str:
    """`docs/run-directory.md` as it should be: what is between the marks is made anew, the rest stays."""
    text = TARGET.read_text(encoding="utf-8")
    before, rest = text.split(START)
    return f"{before}{START}\n\n{reference()}\n{END}{rest.split(END)[1]}"


def _section(model: type[BaseModel]) -> str:
    title = f"`{model.kind}`" if issubclass(model, events.Event) else model.__name__
    description = inspect.cleandoc(model.__doc__ or "").replace("``", "`")
    rows = [_row(model, name) for name in model.model_fields]
    head = [f"#### {title}\n", f"{description}\n", "| field | type | meaning |"]
    return "\n".join([*head, "|---|---|---|", *rows, ""])


def _row(model: type[BaseModel], name: str) -> str:
    kind = json_type(model.model_fields[name].annotation)
    return f"| `{name}` | {kind} | {MEANINGS[f'{model.__name__}.{name}']} |"


def json_type(annotation: Any) -> str:
    """What a field holds in JSON, in words."""
    inside = get_args(annotation)
    match get_origin(annotation):
        case None:
            return _JSON_NAMES.get(annotation) or f"{annotation.__name__}"
        case origin if origin is Literal:
            if inside == events.PHASES:
                return "phase name"
            return ", ".join(f"`{choice}`" for choice in inside)
        case origin if origin in (Union, types.UnionType):
            return " or ".join(json_type(choice) for choice in inside)
        case origin if origin is tuple:
            return f"list of {json_type(inside[0])}"
        case origin if origin is dict:
            return f"object of {json_type(inside[1])}"
        case origin:
            return str(origin)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET}")
