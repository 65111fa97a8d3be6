"""An estimate on a terminal: the verdict, a bar for every component, the settings, and what else is to be known."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Final

from qlora_tui.memory.words import size, verdict_in_words
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from qlora_tui.memory.answer import Answer

_EIGHTHS: Final = "▏▎▍▌▋▊▉█"
_LABELS: Final = {
    "weights_4bit": "weights, 4 bits",
    "weights": "weights, 16 bits",
    "embeddings_and_head": "embeddings and head",
    "layer_peak": "one layer at work",
    "small_tensors": "small tensors",
}
_NARROWEST: Final = 60
_WIDEST: Final = 110


def fit_table(answer: Answer) -> str:
    """The whole answer as text."""
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
    blocks = [_head(answer), *_wrapped([verdict_in_words(answer.fit)], width, ""), "", *_components(answer, width)]
    blocks += ["", *_settings(answer, width)]
    if answer.notes:
        blocks += ["", *_wrapped(answer.notes, width, "· ")]
    return "\n".join(blocks)


def _head(answer: Answer) -> str:
    fit, device = answer.fit, answer.fit.device
    place = one_line(device.name, 60)
    if device.free is not None and device.total is not None:
        place += f", {size(device.free)} of {size(device.total)} free"
    rows = answer.config.data.max_length
    return (
        f"{one_line(answer.model.id, 100)} ({answer.model.shape.model_type}), {_count(fit.parameters)} parameters\n"
        f"adapter of rank {answer.config.adapter.rank}, {_count(fit.trainable)} trained; rows of {rows:,} tokens\n"
        f"{place}\n"
    )


def _components(answer: Answer, width: int) -> list[str]:
    """A line for each component and for what comes on top of their sum."""
    fit = answer.fit
    parts = {_LABELS.get(name, name): count for name, count in fit.components.items() if count}
    total, rest = "allocated at the peak", "process, probably"
    names = max(map(len, [*parts, total, rest]))
    room = width - names - 14
    largest = max(parts.values(), default=1)
    lines = [f"{name:<{names}}  {size(count):>10}  {bar(count / largest, room)}" for name, count in parts.items()]
    process = fit.estimate.process
    lines.append(f"{total:<{names}}  {size(fit.allocated):>10}")
    lines.append(f"{rest:<{names}}  {size(process.point):>10}  {size(process.low)} to {size(process.high)}")
    for name, peak in (("evaluation", fit.estimate.evaluation), ("loading", fit.estimate.loading)):
        if peak > fit.allocated:
            lines.append(f"{'allocated at ' + name:<{names}}  {size(peak):>10}")
    return lines


def bar(share: float, width: int) -> str:
    """A bar of ``width`` characters at a share of 1, in eighths of a character, and never nothing."""
    eighths = max(1, round(8 * width * min(1.0, share)))
    whole, part = divmod(eighths, 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[part - 1] if part else "")


def _settings(answer: Answer, width: int) -> list[str]:
    """Every setting that memory and speed depend on, with why it was chosen if it was."""
    recipe = answer.fit.recipe
    reasons = {choice.field.partition(".")[2]: choice.reason for choice in answer.fit.choices}
    values = {
        "micro_batch": f"{recipe.micro_batch} × {recipe.accumulation}",
        "gradient_checkpointing": recipe.checkpointing,
        "attention": recipe.attention,
        "layer_kernels": recipe.layer_kernels,
        "optimizer": recipe.optimizer,
    }
    names, columns = max(map(len, values)), max(map(len, values.values()))
    lines = []
    for name, value in values.items():
        head = f"{name:<{names}}  {value:<{columns}}  "
        lines += textwrap.wrap(
            reasons.get(name, "as set"), width, initial_indent=head, subsequent_indent=" " * len(head)
        )
    return lines


def _wrapped(sentences: tuple[str, ...] | list[str], width: int, mark: str) -> list[str]:
    style = textwrap.TextWrapper(width, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False)
    return [line for sentence in sentences for line in style.wrap(one_line(sentence, 600))]


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
