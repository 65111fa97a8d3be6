"""Measuring on held-out rows: loss of the trained tokens, accuracy over a closed set of answers, generated answers.

One forward pass gives the loss and the accuracy. The loss comes from the trainer's own fused head, so training and
evaluation cannot disagree; row boundaries are kept by padding, never by an all-ones mask over packed rows.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from qlora_tui.data.formats import Turn
from qlora_tui.data.prepare import PreparedRow
from qlora_tui.engine.attention import PACKED_VARLEN
from qlora_tui.engine.gauge import is_out_of_memory, release_memory
from qlora_tui.engine.measurement import Measurement, RowResult
from qlora_tui.errors import OutOfMemory

MAX_LABELS = 20
TOKENS_PER_BATCH = 1024
MAX_NEW_TOKENS = 512

OnProgress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Labels:
    """A closed set of answers that differ in their first token, as in classification."""

    first_tokens: dict[str, int]

    @classmethod
    def of(cls, rows: Sequence[PreparedRow]) -> Labels | None:
        """The answers of ``rows``, or None if there are too many, or two begin alike."""
        first_tokens: dict[str, int] = {}
        for row in rows:
            answer = reference(row)
            if answer is None:
                return None
            first_tokens.setdefault(answer, row.input_ids[answer_start(row)])
            if len(first_tokens) > MAX_LABELS:
                return None
        distinct = len(set(first_tokens.values())) == len(first_tokens) > 1
        return cls(first_tokens) if distinct else None


def reference(row: PreparedRow) -> str | None:
    """The last answer of the row, or None for plain text."""
    return row.turns[-1].content.strip() if row.turns and row.turns[-1].role == "assistant" else None


def prompt_turns(row: PreparedRow) -> tuple[Turn, ...]:
    """The row's turns without its last answer."""
    return row.turns[:-1]


def answer_start(row: PreparedRow) -> int:
    """Position of the first token of the last answer."""
    start = len(row.trained)
    while start > 0 and not row.trained[start - 1]:
        start -= 1
    while start > 0 and row.trained[start - 1]:
        start -= 1
    return start


@contextmanager
def measuring(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients, on an attention that honours padding masks; restored afterwards."""
    was_training = model.training
    base = model.get_base_model()
    packed = base.config._attn_implementation == PACKED_VARLEN
    model.eval()
    if packed:
        base.set_attn_implementation("sdpa")
    try:
        with torch.no_grad():
            yield
    finally:
        if packed:
            base.set_attn_implementation(PACKED_VARLEN)
        model.train(was_training)


def measure(
    model: Any,
    rows: Sequence[PreparedRow],
    pad_id: int,
    labels: Labels | None = None,
    on_progress: OnProgress | None = None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> Measurement:
    """Loss, and accuracy over ``labels`` if given, of each row.

    Args:
        model: A PeftModel whose base carries TRL's fused head.
        rows: Held-out rows; any length, any order.
        on_progress: Called with the number of rows done after each batch; may raise to stop.
        tokens_per_batch: Most tokens of a batch, padding included, unless one row alone has more.
    """
    start = time.monotonic()
    results: dict[int, RowResult] = {}
    pending = deque(_batches(rows, tokens_per_batch))
    most = math.inf
    while pending:
        batch = pending.popleft()
        tokens = len(batch) * max(len(rows[i].input_ids) for i in batch)
        found = _measure_batch(model, rows, batch, pad_id, labels) if tokens <= most or len(batch) == 1 else None
        if found is None:
            if len(batch) == 1:
                raise _row_too_long(rows[batch[0]])
            # The halves of this one, and no later one that is as large.
            most = min(most, tokens // 2)
            middle = len(batch) // 2
            pending.extendleft((batch[middle:], batch[:middle]))
            continue
        results |= zip(batch, found, strict=True)
        if on_progress:
            on_progress(len(results))
    return Measurement(tuple(results[i] for i in range(len(rows))), time.monotonic() - start)


def heaviest(rows: Sequence[PreparedRow], tokens_per_batch: int) -> list[PreparedRow]:
    """The rows of the batch that needs most memory."""
    batches = list(_batches(rows, tokens_per_batch))
    largest = max(batches, key=lambda batch: len(batch) * max(len(rows[i].input_ids) for i in batch), default=[])
    return [rows[i] for i in largest]


def _measure_batch(
    model: Any, rows: Sequence[PreparedRow], batch: list[int], pad_id: int, labels: Labels | None
) -> list[RowResult] | None:
    """The results of one batch, or None if memory ran out; it is released by then."""
    try:
        with measuring(model), _last_hidden_state(model) as hidden:
            outputs = model(**_padded(rows, batch, pad_id, model.device), use_cache=False, fused_lm_head=True)
            losses = (-outputs.log_probs.float()).sum(dim=1).tolist()
            counts = outputs.label_mask.sum(dim=1).tolist()
            correct = _label_hits(model, hidden[0], [rows[i] for i in batch], labels)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return [
            RowResult(
                rows[index].number, losses[place], int(counts[place]), {"accuracy": correct[place]} if correct else {}
            )
            for place, index in enumerate(batch)
        ]
    release_memory()
    return None


def _row_too_long(row: PreparedRow) -> OutOfMemory:
    return OutOfMemory(
        "The run stopped because one held-out row does not fit into memory.",
        f"Row {row.number} has {len(row.input_ids):,} tokens.",
        "Lower data.max_length, or leave such rows out of the held-out rows.",
    )


def _batches(rows: Sequence[PreparedRow], budget: int) -> Iterator[list[int]]:
    """Row indices in batches of similar length, bounded in padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids)):
        if batch and (len(batch) + 1) * len(rows[batch[0]].input_ids) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _padded(
    rows: Sequence[PreparedRow], batch: list[int], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    width = max(len(rows[i].input_ids) for i in batch)
    ids = torch.full((len(batch), width), pad_id)
    labels = torch.full((len(batch), width), -100)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for place, index in enumerate(batch):
        row = rows[index]
        length = len(row.input_ids)
        tokens = torch.tensor(row.input_ids)
        ids[place, :length] = tokens
        labels[place, :length] = torch.where(torch.tensor(row.trained), tokens, -100)
        mask[place, :length] = 1
    labels[:, 0] = -100
    return {"input_ids": ids.to(device), "labels": labels.to(device), "attention_mask": mask.to(device)}


@contextmanager
def _last_hidden_state(model: Any) -> Iterator[list[torch.Tensor]]:
    """A one-element list that holds the decoder's last hidden states [batch, T, hidden] after each forward."""
    seen: list[torch.Tensor] = []

    def remember(_module: Any, _inputs: Any, outputs: Any) -> None:
        seen[:] = [outputs[0] if isinstance(outputs, tuple) else outputs.last_hidden_state]

    handle = model.get_base_model().get_decoder().register_forward_hook(remember)
    try:
        yield seen
    finally:
        handle.remove()


def _label_hits(
    model: Any, hidden: torch.Tensor, rows: Sequence[PreparedRow], labels: Labels | None
) -> list[float] | None:
    """1.0 where the right label's first token is the likeliest of all labels' first tokens.

    Scaling and soft-capping of logits are monotone, so the head's raw product decides the same.
    """
    if labels is None:
        return None
    answers = list(labels.first_tokens)
    candidates = torch.tensor([labels.first_tokens[answer] for answer in answers], device=hidden.device)
    before_answer = torch.tensor([answer_start(row) - 1 for row in rows], device=hidden.device)
    states = hidden[torch.arange(len(rows), device=hidden.device), before_answer]
    weight = model.get_output_embeddings().weight[candidates]
    chosen = (states.to(weight.dtype) @ weight.T).argmax(dim=1).tolist()
    return [float(answers[choice] == reference(row)) for choice, row in zip(chosen, rows, strict=True)]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    end_ids: list[int],
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Greedy answers to prompts given as token ids, in the order given."""
    answers: dict[int, str] = {}
    # Not the model's own defaults: a repetition penalty would change what the weights themselves answer.
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, use_cache=True, pad_token_id=end_ids[0], eos_token_id=end_ids
    )
    with measuring(model), _generation(model, settings):
        for start in range(0, len(prompts), 8):
            group = prompts[start : start + 8]
            width = max(map(len, group))
            pad = end_ids[0]
            ids = torch.tensor([[pad] * (width - len(p)) + p for p in group], device=model.device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in group], device=model.device)
            output = model.generate(input_ids=ids, attention_mask=mask)
            for place, tokens in enumerate(output[:, width:]):
                answers[start + place] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            if on_progress:
                on_progress(len(answers))
    return [answers[i] for i in range(len(prompts))]


@contextmanager
def _generation(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """The model's generation settings replaced for a while."""
    base = model.get_base_model()
    own = base.generation_config
    base.generation_config = settings
    try:
        yield
    finally:
        base.generation_config = own
