"""Two checks before training that what was encoded, computed and shipped is the same thing everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qlora_tui.data.encode import Encoder
from qlora_tui.data.prepare import PreparedRow
from qlora_tui.engine.attention import PACKED_VARLEN

ROWS_CHECKED = 8
# bf16 keeps 8 bits of a number; two correct kernels differ by about this much of the loss, a wrong one by far more.
ATTENTION_TOLERANCE = 0.02


def tokenizer_difference(encoder: Encoder, tokenizer: Any, rows: Sequence[PreparedRow]) -> str | None:
    """A sentence if transformers would give other token ids to a prompt than the encoder does, else None.

    The encoder reads ``tokenizer.json`` as it stands; transformers rebuilds some tokenizers from their class, and its
    version is what people load the adapter with.
    """
    for row in [row for row in rows if row.turns][:ROWS_CHECKED]:
        turns = row.turns[:-1]
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        if list(theirs) != encoder.prompt_ids(turns):
            return (
                f"transformers encodes the prompt of row {row.number} differently from this model's tokenizer.json; "
                "the adapter is trained on the latter, so load it with a tokenizer that reads that file."
            )
    return None


def attention_difference(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Relative difference of the loss of one packed batch under variable-length attention and under plain sdpa.

    Args:
        model: The trainer's PeftModel, with variable-length attention and TRL's fused head.
        batch: One packed batch from the trainer's collator, on the model's device.
    """
    base = model.get_base_model()
    losses = []
    with torch.no_grad():
        for name in (PACKED_VARLEN, "sdpa"):
            base.set_attn_implementation(name)
            outputs = model(**batch, use_cache=False, fused_lm_head=True)
            losses.append(float((-outputs.log_probs.float()).sum() / outputs.label_mask.sum().clamp(min=1)))
    base.set_attn_implementation(PACKED_VARLEN)
    return abs(losses[0] - losses[1]) / max(abs(losses[1]), 1e-6)
