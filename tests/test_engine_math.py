"""The arithmetic that must not go wrong, on the real model: packing, attention, gradients, evaluation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from real_model import config_for, converted_model, shared_cache

from benchmarks.loaded import Loaded

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("math")


@pytest.fixture(scope="module")
def bench(home: Path) -> Loaded:
    converted_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QLORA_TUI_CACHE", str(shared_cache()))
        return Loaded(config_for(home, "math", rows=8), home / "out")


def test_packed_rows_give_the_loss_of_separate_rows(bench: Loaded) -> None:
    import torch

    from qlora_tui.engine.evaluate import measure

    bench.model.eval()
    with torch.no_grad():
        packed = float(bench.loss(bench.packed_batch()))
    separate = measure(bench.model, bench.rows.train, 2)
    assert separate.tokens > 8
    assert packed == pytest.approx(separate.loss, abs=1e-4)


def test_each_row_alone_gives_its_loss_in_a_padded_batch(bench: Loaded) -> None:
    from qlora_tui.engine.evaluate import measure

    together = measure(bench.model, bench.rows.train, 2)
    for row, result in zip(bench.rows.train, together.rows, strict=True):
        alone = measure(bench.model, [row], 2).rows[0]
        assert (alone.number, alone.tokens) == (result.number, result.tokens)
        assert alone.loss == pytest.approx(result.loss, abs=1e-3)


def test_variable_length_attention_equals_sdpa(bench: Loaded) -> None:
    import torch

    from qlora_tui.engine.agreement import attention_difference
    from qlora_tui.engine.attention import PACKED_VARLEN, register, supports_varlen

    assert supports_varlen(bench.base.model.config)
    register()
    base = bench.model.get_base_model()
    batch = bench.packed_batch()
    base.set_attn_implementation(PACKED_VARLEN)
    assert attention_difference(bench.model, batch) < 1e-4
    own = bench.gradients(batch)
    base.set_attn_implementation("sdpa")
    reference = bench.gradients(batch)
    for name, gradient in reference.items():
        assert torch.allclose(own[name], gradient, atol=1e-4), name


def test_variable_length_attention_refuses_padded_batches(bench: Loaded) -> None:
    from qlora_tui.engine.attention import PACKED_VARLEN, register
    from qlora_tui.engine.evaluate import measure

    register()
    base = bench.model.get_base_model()
    base.set_attn_implementation("sdpa")
    right = measure(bench.model, bench.rows.train, 2)
    base.set_attn_implementation(PACKED_VARLEN)
    try:
        with pytest.raises(ValueError, match="packed rows"):
            bench.model(input_ids=bench.packed_batch()["input_ids"][:, :16], use_cache=False)
        measured = measure(bench.model, bench.rows.train, 2)
        assert measured.loss == pytest.approx(right.loss, abs=1e-6)
        assert base.config._attn_implementation == PACKED_VARLEN
    finally:
        base.set_attn_implementation("sdpa")


def test_gradients_are_the_same_before_and_after_an_evaluation(bench: Loaded) -> None:
    import torch

    from qlora_tui.engine.evaluate import generate, measure

    batch = bench.packed_batch()
    before = bench.gradients(batch)
    measure(bench.model, bench.rows.train, 2)
    generate(bench.model, bench.base.tokenizer, [bench.rows.train[0].input_ids[:20]], 3, [2])
    after = bench.gradients(batch)
    assert before.keys() == after.keys()
    assert any(float(gradient.abs().max()) > 0 for name, gradient in before.items() if "lora_A" in name)
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name


def test_the_guard_is_what_keeps_the_gradients(bench: Loaded) -> None:
    """On a CPU with AVX512_BF16 the same evaluation without the guard changes the gradients."""
    import bitsandbytes
    import torch
    from bitsandbytes.functional import has_avx512bf16

    from qlora_tui.engine.load import load_base

    if not has_avx512bf16():
        pytest.skip("this CPU has no AVX512_BF16, so bitsandbytes does not repack")
    unguarded = load_base(bench.files, bench.config, training=False).model
    layer = next(module for module in unguarded.modules() if isinstance(module, bitsandbytes.nn.Linear4bit))
    values = torch.randn(4, layer.in_features)

    def gradient() -> Any:
        inputs = values.clone().requires_grad_(True)
        layer.train()
        output = layer(inputs).sum()
        if not output.requires_grad:
            return None
        output.backward()
        return inputs.grad

    before = gradient()
    layer.eval()
    with torch.no_grad():
        layer(values)
    after = gradient()
    assert before is not None
    assert after is None or not torch.allclose(before, after)


def test_masks_reach_the_trainer_as_they_are(bench: Loaded) -> None:
    for row, stored in zip(bench.rows.train, bench.separate, strict=True):
        assert stored["input_ids"] == row.input_ids
        assert [label != -100 for label in stored["labels"]] == row.trained
    packed = bench.packed
    assert sum(map(sum, packed["seq_lengths"])) == sum(len(row.input_ids) for row in bench.rows.train)
    assert max(map(len, packed["input_ids"])) <= bench.config.data.max_length


def test_accuracy_is_the_likelier_label(bench: Loaded) -> None:
    import torch

    from qlora_tui.engine.evaluate import Labels, answer_start, measure, reference

    rows = bench.rows.train
    labels = Labels.of(rows)
    assert labels is not None
    assert set(labels.first_tokens) == {"spam", "ham"}
    measured = measure(bench.model, rows, 2, labels)
    bench.model.eval()
    for row, result in zip(rows, measured.rows, strict=True):
        with torch.no_grad():
            prompt = torch.tensor([row.input_ids[: answer_start(row)]])
            logits = bench.model(input_ids=prompt, use_cache=False).logits[0, -1]
        likeliest = max(labels.first_tokens, key=lambda label: float(logits[labels.first_tokens[label]]))
        assert result.metrics["accuracy"] == float(likeliest == reference(row))


def test_layer_kernels_are_only_claimed_where_they_can_run() -> None:
    from qlora_tui.engine.kernels import layer_kernels_available

    assert not layer_kernels_available("no-such-family")
    if importlib.util.find_spec("liger_kernel") is None:
        assert not layer_kernels_available("llama")
