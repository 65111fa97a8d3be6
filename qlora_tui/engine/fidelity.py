"""Whether a merged model still answers as base and adapter did: both read the same rows, their predictions compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qlora_tui.data.encode import Encoder
from qlora_tui.data.formats import Example, Turn
from qlora_tui.data.prepare import PreparedRow
from qlora_tui.runs.merges import Fidelity

MAX_ROWS = 32
MAX_TOKENS = 1024
"""Longest row read, and most tokens read together."""
POSITIONS_PER_ROW = 32
PREDICTION_BYTES = 256 << 20
"""Memory that may be spent on keeping the adapter's predictions."""

# Where a run's rows are not at hand: what any chat model can answer.
PROMPTS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Write one sentence about the sea.", "The sea is wide and blue, and it never stands still."),
    ("How many days has a week?", "A week has seven days."),
    ("Translate to German: good morning", "Guten Morgen"),
    ("Name three colours.", "Red, green and blue."),
    ("Why is the sky blue?", "Because air scatters blue light more than red light."),
    ("Is the following positive or negative? I loved this film.", "Positive"),
    ("Give me a title for a story about a lost dog.", "The Long Way Home"),
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One row to read, and the positions whose next token is predicted and compared."""

    input_ids: list[int]
    positions: list[int]


def probes_of(rows: Sequence[PreparedRow]) -> list[Probe]:
    """Probes at the trained tokens of the first rows."""
    found = []
    for row in rows[:MAX_ROWS]:
        ids = row.input_ids[:MAX_TOKENS]
        places = [place - 1 for place in range(1, len(ids)) if row.trained[place]][:POSITIONS_PER_ROW]
        if places:
            found.append(Probe(ids, places))
    return found


def general_probes(encoder: Encoder) -> list[Probe]:
    """Probes for an adapter whose rows are not at hand."""
    found = []
    for prompt, answer in PROMPTS:
        row = encoder.encode(Example(0, (Turn("user", prompt), Turn("assistant", answer))))
        places = [place - 1 for place in range(1, len(row.input_ids)) if row.trained[place]]
        found.append(Probe(row.input_ids, places or list(range(len(row.input_ids) - 1))))
    return found


def within_memory(probes: Sequence[Probe], vocabulary: int) -> list[Probe]:
    """As many probes as can be kept with their predictions."""
    room = max(1, PREDICTION_BYTES // (4 * vocabulary))
    kept = []
    for probe in probes:
        places = probe.positions[:room]
        if not places:
            break
        kept.append(Probe(probe.input_ids, places))
        room -= len(places)
    return kept


def predictions(model: Any, probes: Sequence[Probe]) -> list[torch.Tensor]:
    """Log-probabilities [positions, vocabulary] of the next token for each probe, on the CPU in fp32."""
    model.eval()
    found: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for batch in _batches(probes):
            width = max(len(probes[index].input_ids) for index in batch)
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, index in enumerate(batch):
                length = len(probes[index].input_ids)
                ids[place, :length], mask[place, :length] = torch.tensor(probes[index].input_ids), 1
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
            for place, index in enumerate(batch):
                places = torch.tensor(probes[index].positions, device=logits.device)
                found[index] = torch.log_softmax(logits[place, places].float(), dim=-1).cpu()
    return [found[index] for index in range(len(probes))]


def _batches(probes: Sequence[Probe]) -> Iterator[list[int]]:
    """Indices of probes of similar length, read together: 4-bit weights are unpacked once for each batch."""
    batch: list[int] = []
    for index in sorted(range(len(probes)), key=lambda index: -len(probes[index].input_ids)):
        if batch and (len(batch) + 1) * len(probes[batch[0]].input_ids) > MAX_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def compare(
    probes: Sequence[Probe],
    adapter: Sequence[torch.Tensor],
    merged: Sequence[torch.Tensor],
    *,
    held_out: bool,
    dtype: str,
) -> Fidelity:
    """Both models' predictions of the same probes, compared."""
    divergences, agreements, losses = [], [], []
    for probe, ours, theirs in zip(probes, adapter, merged, strict=True):
        divergences.append((ours.exp() * (ours - theirs)).sum(dim=-1))
        agreements.append(ours.argmax(dim=-1) == theirs.argmax(dim=-1))
        targets = torch.tensor([[probe.input_ids[place + 1]] for place in probe.positions])
        losses.append(-torch.cat([ours.gather(1, targets), theirs.gather(1, targets)], dim=1))
    kl, same, loss = torch.cat(divergences).clamp(min=0), torch.cat(agreements), torch.cat(losses)
    return Fidelity(
        rows=len(probes),
        positions=len(kl),
        held_out=held_out,
        kl=float(kl.mean()),
        kl_max=float(kl.max()),
        agreement=float(same.float().mean()),
        loss_adapter=float(loss[:, 0].mean()),
        loss_merged=float(loss[:, 1].mean()),
        dtype=dtype,
    )
