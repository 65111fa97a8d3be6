"""Cards below capability 8.0: attention that stays fused, and an estimate that knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations import sdpa_attention

from qlora_tui.engine.attention import keep_fused, repeats_heads


@pytest.fixture
def capability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: found)
    # Put back afterwards, for keep_fused replaces it.
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)
    return found


def heads_that_sdpa_gets(monkeypatch: pytest.MonkeyPatch) -> int:
    seen = []

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_keywords: Any) -> torch.Tensor:
        seen.append(key.shape[1])
        return query

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    query, shared = torch.zeros(1, 8, 4, 16), torch.zeros(1, 2, 4, 16)
    sdpa_attention.sdpa_attention_forward(
        SimpleNamespace(num_key_value_groups=4, is_causal=True),
        query,
        shared,
        shared,
        None,
    )
    return seen[0]


@pytest.mark.parametrize(
    ("capability", "heads"), [((7, 0), 8), ((7, 5), 8), ((8, 0), 2), ((9, 0), 2)], indirect=["capability"]
)
def test_keys_are_repeated_where_no_fused_kernel_shares_them(
    capability: tuple[int, int], heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_fused()
    assert heads_that_sdpa_gets(monkeypatch) == heads
    assert repeats_heads() == (capability < (8, 0))


def test_a_processor_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not repeats_heads()
