"""Attention that allocates what CUDA's fused kernels allocate, and computes nothing.

Read from ``aten/src/ATen/native/transformers/cuda/attention.cu`` and ``flash_attn/flash_api.cpp`` of torch 2.13.
Tensors are [batch, heads, tokens, head size] throughout.
"""

from __future__ import annotations

from typing import Any

import torch

_ROWS = 128
"""Queries are handled in blocks of this many."""


def fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """In place of ``scaled_dot_product_attention``: the flash kernel without a mask, the memory-efficient one with."""
    query, key, value = (_autocast(tensor) for tensor in (query, key, value))
    if attn_mask is not None:
        # The kernel adds its mask, so it takes one of numbers; its rows begin on multiples of 16 bytes.
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
        if attn_mask.shape[-1] % 8:
            columns = -(-attn_mask.shape[-1] // 16) * 16
            attn_mask = attn_mask.new_empty((*attn_mask.shape[:-1], columns))
    output: torch.Tensor = _Attention.apply(query, key, value, attn_mask)
    return output


def _autocast(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else tensor


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        batch, heads, tokens, _ = query.shape
        # The flash kernel lays its output out as the queries are, the other one token by token.
        output = torch.empty_like(query) if mask is None else query.new_empty(_token_first(query)).transpose(1, 2)
        statistics = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        context.save_for_backward(query, key, value, mask, output, statistics)
        return output

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, mask, output, _statistics = context.saved_tensors
        batch, heads, tokens, size = query.shape
        gradient, output = (tensor.transpose(1, 2).contiguous() for tensor in (gradient, output))
        if mask is None:
            results = [torch.empty_like(tensor) for tensor in (query, key, value)]
        else:
            results = [tensor.new_empty(_token_first(tensor)).transpose(1, 2) for tensor in (query, key, value)]
        rows, width = -(-tokens // _ROWS) * _ROWS, -(-size // 32) * 32
        scratch = [query.new_empty(batch, heads, rows, dtype=torch.float32)]
        if mask is None:
            # Sums of the queries' gradients over blocks of keys, in fp32.
            scratch.append(query.new_empty(batch, heads, rows, width, dtype=torch.float32))
            if key.shape[1] != heads:
                # Every query head writes its own gradient of the key head it shares.
                scratch += [query.new_empty(batch, tokens, heads, tensor.shape[-1]) for tensor in (key, value)]
        del scratch, gradient, output
        return (*results, None)


def _token_first(tensor: torch.Tensor) -> tuple[int, ...]:
    batch, heads, tokens, size = tensor.shape
    return batch, tokens, heads, size
