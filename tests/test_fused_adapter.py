"""A quantised matrix and its adapter as one operation: peft's numbers, and peft's own way wherever it has to be."""

from __future__ import annotations

from typing import Any

import pytest

from qlora_tui.config import RunConfig
from qlora_tui.memory.from_config import recipe_from
from qlora_tui.memory.recipe import Recipe


class TestTheOperation:
    """On bitsandbytes' and peft's own layers."""

    pytestmark = pytest.mark.full

    @staticmethod
    def model(**choices: Any) -> Any:
        """Two quantised matrices, the first with a bias, and an adapter on each that does something."""
        import bitsandbytes
        import torch
        from peft import LoraConfig, get_peft_model

        from qlora_tui.engine.load import keep_gradients

        class Two(torch.nn.Module):
            is_loaded_in_4bit = True

            def __init__(self) -> None:
                super().__init__()
                settings: dict[str, Any] = {"compute_dtype": torch.float32, "quant_type": "nf4"}
                self.up = bitsandbytes.nn.Linear4bit(64, 192, bias=True, **settings).to("cpu")
                self.down = bitsandbytes.nn.Linear4bit(192, 64, bias=False, **settings).to("cpu")

            def forward(self, rows: torch.Tensor) -> torch.Tensor:
                return self.down(torch.nn.functional.silu(self.up(rows)))  # type: ignore[no-any-return]

        torch.manual_seed(0)
        base = Two()
        keep_gradients(base)
        model: Any = get_peft_model(base, LoraConfig(r=8, lora_alpha=24, target_modules=["up", "down"], **choices))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model

    @staticmethod
    def results(model: Any, *, wanted: bool = True) -> list[Any]:
        """The output, the gradient of the input, those of the adapters."""
        import torch

        rows = torch.randn(3, 7, 64, generator=torch.Generator().manual_seed(1)).requires_grad_(wanted)
        model.zero_grad()
        output = model(rows)
        output.square().sum().backward()
        adapters = [each.grad.clone() for each in model.parameters() if each.requires_grad]
        return [output.detach(), *([rows.grad] if wanted else []), *adapters]

    @pytest.mark.parametrize("checkpointed", [False, True])
    def test_output_and_every_gradient_are_peft_s(self, checkpointed: bool) -> None:
        import torch
        from torch.utils.checkpoint import checkpoint

        from qlora_tui.engine.fused_adapter import fuse_adapters

        model = self.model()
        expected = self.results(model)
        assert fuse_adapters(model) == 2
        inner = model.base_model.model
        if checkpointed:
            plain = inner.forward
            inner.forward = lambda rows: checkpoint(plain, rows, use_reentrant=False)
        for fused, peft in zip(self.results(model), expected, strict=True):
            assert torch.allclose(fused, peft, rtol=1e-5, atol=1e-5 * float(peft.abs().max()))

    def test_the_operation_is_used_in_training_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        from qlora_tui.engine import fused_adapter

        used = 0
        operation: Any = fused_adapter._AdaptedProduct.apply

        def counted(*arguments: Any) -> Any:
            nonlocal used
            used += 1
            return operation(*arguments)

        monkeypatch.setattr(fused_adapter._AdaptedProduct, "apply", counted)
        model = self.model()
        fused_adapter.fuse_adapters(model)
        rows = torch.randn(2, 64)
        with torch.no_grad():
            adapted = model(rows)
            with model.disable_adapter():
                base = model(rows)
        assert not torch.allclose(adapted, base)
        with model.disable_adapter():
            model(rows)
        model(rows.half().float())
        assert used == 2

    def test_frozen_inputs_need_no_gradient(self) -> None:
        import torch

        from qlora_tui.engine.fused_adapter import fuse_adapters

        model = self.model()
        expected = self.results(model, wanted=False)
        fuse_adapters(model)
        for fused, peft in zip(self.results(model, wanted=False), expected, strict=True):
            assert torch.allclose(fused, peft, rtol=1e-5, atol=1e-5 * float(peft.abs().max()))

    @pytest.mark.parametrize("choices", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
    def test_what_needs_the_steps_between_is_left_alone(self, choices: dict[str, Any]) -> None:
        from qlora_tui.engine.fused_adapter import fuse_adapters

        assert fuse_adapters(self.model(**choices)) == 0


def recipe(**sections: Any) -> Recipe:
    config = RunConfig.model_validate({"name": "run", "data": {"source": "rows.jsonl"}, **sections})
    return recipe_from(
        config, sequence=512, packed=True, dtype="bfloat16", attention="varlen", repeats_heads=False,
        layer_kernels="liger", optimizer="paged_adamw_8bit",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "fused"),
    [
        ({}, True),
        ({"adapter": {"dropout": 0.05}}, False),
        ({"adapter": {"dora": True}}, False),
        ({"quantization": {"type": "none"}}, False),
    ],
)
def test_the_estimate_knows_when_they_are_fused(sections: dict[str, Any], fused: bool) -> None:
    assert recipe(**sections).fused_adapters is fused
