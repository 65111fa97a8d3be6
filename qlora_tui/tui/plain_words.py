"""The recipe as sentences."""

from __future__ import annotations

from collections.abc import Iterator

from qlora_tui.text import one_line
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.memory_bar import VERDICTS
from qlora_tui.tui.words import count, gib, plural


def sentences(view: View) -> Iterator[str]:
    """What will happen, in the order in which it does."""
    config = view.answers.config
    held = {"none": "in 16 bits", "fp4": "in 4 bits (FP4)"}.get(config.quantization.type, "in 4 bits (NF4)")
    size = f" ({count(view.model.parameters)} parameters)" if view.model.parameters else ""
    where = view.device.name if view.device else "this machine"
    yield f"{one_line(config.model.source, 120)}{size} is held {held} on {where} and does not change."
    adapter = config.adapter
    layers = "all linear layers" if adapter.target_modules == "all-linear" else f"{len(adapter.target_modules)} layers"
    trained = f": {count(view.fit.trainable)} trained parameters" if view.fit else ""
    yield f"An adapter of rank {adapter.rank} (alpha {adapter.alpha:g}) on {layers} learns{trained}."
    data = config.data
    which = "the answers" if data.train_on == "assistant" else "every token"
    yield f"It learns {which} of {one_line(data.source, 120)} ({data.split}), rows up to {data.max_length:,} tokens."
    yield from _measured(view)
    yield from _training(view)
    yield from _memory(view)


def _measured(view: View) -> Iterator[str]:
    held_out = view.answers.config.data.evaluation
    if held_out.source is not None:
        yield f"It is measured before and after on {one_line(held_out.source, 120)}, which it never trains on."
    elif held_out.fraction:
        yield f"{held_out.fraction:.0%} of the rows are held out, and it is measured on them before and after."
    else:
        yield "No rows are held out, so nothing is measured."


def _training(view: View) -> Iterator[str]:
    training = view.answers.config.training
    passes = plural(int(training.epochs), "pass") + "es" * (training.epochs != 1) if training.epochs % 1 == 0 else ""
    passes = passes.replace("passs", "pass") or f"{training.epochs:g} passes"
    rate = (
        "a learning rate chosen by the model's size"
        if training.learning_rate == "auto"
        else (f"learning rate {training.learning_rate:g}")
    )
    yield f"{passes} over the rows, {training.effective_batch} to an update, with {rate} ({training.schedule})."


def _memory(view: View) -> Iterator[str]:
    fit = view.fit
    if fit is None:
        return
    low, high = gib(fit.process.low, unit=False), gib(fit.process.high)
    free = "" if fit.device.free is None else f" of {gib(fit.device.free)} free"
    yield f"It needs {low} to {high}{free}: {VERDICTS[fit.fits][1]}."
