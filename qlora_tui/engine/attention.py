"""Packed rows without a mask: variable-length attention, and where it may be used.

transformers keeps packed rows apart under sdpa with a dense T x T mask, which rules out the flash kernel. TRL's
packed batches carry the row boundaries (``cu_seq_lens_q``, ``max_length_q``), and ``torch.nn.attention.varlen`` takes
them as they are: the same result, several times faster at long sequences.
"""

from __future__ import annotations

import inspect
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations import sdpa_attention

from qlora_tui.memory.kernels import VARLEN_FAMILIES

PACKED_VARLEN = "packed_varlen"

# Attention that varlen cannot express: windows, soft-capped scores, sinks.
_UNSUPPORTED_FIELDS = ("attn_logit_softcapping", "final_logit_softcapping")


def supports_varlen(config: Any) -> bool:
    """Whether a transformers config describes plain causal attention, which varlen computes exactly.

    A sliding window that the config carries but does not use (Qwen2) does no harm.
    """
    if config.model_type not in VARLEN_FAMILIES:
        return False
    if any(getattr(config, field, None) for field in _UNSUPPORTED_FIELDS) or getattr(config, "attention_dropout", None):
        return False
    layer_types = getattr(config, "layer_types", None) or []
    if any(kind != "full_attention" for kind in layer_types):
        return False
    window_in_use = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    return not (window_in_use and not layer_types)


def repeats_heads() -> bool:
    """Whether no fused kernel of this card takes fewer heads of keys and values than of queries.

    Below capability 8.0 only the memory-efficient one is left, which does not.
    """
    return torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0)


def keep_fused() -> None:
    """Have transformers' sdpa repeat keys and values where heads cannot be shared.

    transformers asks every card to share them. One that cannot falls back to plain products with all scores in fp32,
    slow and as large as eager attention (huggingface/transformers#48633).
    """
    if repeats_heads():
        sdpa_attention.use_gqa_in_sdpa = lambda *_arguments: False


def register() -> None:
    """Make ``packed_varlen`` a choice of ``set_attn_implementation``; its mask is None by design."""
    AttentionInterface.register(PACKED_VARLEN, packed_varlen)
    AttentionMaskInterface.register(PACKED_VARLEN, lambda *_args, **_keywords: None)


def packed_varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each packed row.

    Args:
        query: [1, heads, T, head size]; key and value may have fewer heads.
        cu_seq_lens_q: int32 [rows + 1], where each row begins, and T.
        max_length_q: Longest row in tokens.

    Returns:
        [1, T, heads, head size], and no attention weights.

    Raises:
        ValueError: for a batch that is not packed. Computing it would silently mix padding into the result.
    """
    if cu_seq_lens_q is None or query.shape[0] != 1 or dropout:
        raise ValueError("variable-length attention takes packed rows without dropout; use sdpa for padded batches")
    if query.device.type == "cuda":
        return _on_cuda(query, key, value, scaling, cu_seq_lens_q, max_length_q), None
    bounds = cu_seq_lens_q.tolist()
    rows = [
        functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
        for start, end in pairwise(bounds)
    ]
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous(), None


def _on_cuda(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    boundaries: torch.Tensor,
    longest: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    boundaries = boundaries.to(device=query.device, dtype=torch.int32)
    keywords = _varlen_keywords(grouped=query.shape[1] != key.shape[1])
    longest = int(longest or 0)
    output = varlen_attn(query, key, value, boundaries, boundaries, longest, longest, scale=scaling, **keywords)
    assert isinstance(output, torch.Tensor)
    return output[None]


@cache
def _varlen_keywords(*, grouped: bool) -> dict[str, Any]:
    """How this torch release spells causality and grouped heads; both names changed between 2.10 and 2.13."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    keywords: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        keywords["enable_gqa"] = grouped
    return keywords
