"""A model with its adapter and optimizer states under fake tensors, put together by the libraries that train it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bitsandbytes
import torch
from bitsandbytes.functional import quantize_4bit
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from qlora_tui.engine.liveness import Liveness
from qlora_tui.memory.recipe import ALL_FP32, Recipe

_DTYPES: Final = {2: torch.bfloat16, 4: torch.float32}


@dataclass(frozen=True, slots=True)
class Built:
    """A model on the meta device: ``base`` as transformers made it, with peft's layers in it; ``adapted`` around it."""

    base: Any
    adapted: Any
    notes: tuple[str, ...] = ()


class FakeLinear4bit(bitsandbytes.nn.Linear4bit):
    """bitsandbytes' layer as it runs on CUDA, with a plain parameter: a fake tensor cannot be a Params4bit."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``Linear4bit.forward`` without the CPU's repacking and the search for a lost quantisation state."""
        given = x.dtype
        x = x.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        return bitsandbytes.matmul_4bit(x, self.weight, bias=bias, quant_state=self.quant_state).to(given)


def build(folder: Path, recipe: Recipe) -> Built:
    """The model without memory: its linear layers as loading in 4 bit makes them, and an adapter on them."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    dtype = _DTYPES[recipe.regime.quantised_from]
    attention, notes = _attention(config, recipe)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    if recipe.quantization != "none":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=recipe.quantization,
            bnb_4bit_use_double_quant=recipe.double_quant,
            bnb_4bit_compute_dtype=torch.float32 if recipe.regime == ALL_FP32 else torch.bfloat16,
        )
        quantizer = AutoHfQuantizer.from_config(quantization, pre_quantized=False)
        quantizer.preprocess_model(model=model, dtype=dtype, device_map=None)
        model.is_loaded_in_4bit = model.is_quantized = True
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=32,
        lora_dropout=recipe.dropout,
        target_modules="all-linear" if recipe.targets is None else sorted(recipe.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return Built(model, get_peft_model(model, lora, low_cpu_mem_usage=True), notes)


def _attention(config: Any, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    """Variable-length and flash attention take what fused attention without a mask takes."""
    if recipe.attention == "eager":
        return "eager", ()
    if not getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_supports_sdpa", True):
        return "eager", ("transformers has no fused attention for this model, so it was run with eager attention.",)
    return "sdpa", ()


def load(model: Any, recipe: Recipe, live: Liveness) -> None:
    """Give the model fake weights one after the other, quantising each as it comes, as loading does."""
    known: dict[int, torch.Tensor] = {}
    tables = {id(table.weight) for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or parameter.requires_grad:
                continue
            if isinstance(module, bitsandbytes.nn.Linear4bit) and name == "weight":
                with live.allocating("weights_4bit"):
                    _quantise(module, recipe)
                continue
            if id(parameter) not in known:
                table = id(parameter) in tables
                part = "embeddings_and_head" if table else "weights" if isinstance(module, nn.Linear) else "norms"
                dtype = _DTYPES[recipe.regime.embedding if table else recipe.regime.norm]
                with live.allocating(part):
                    known[id(parameter)] = nn.Parameter(_empty(parameter, dtype), requires_grad=False)
            module._parameters[name] = known[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = known.setdefault(id(buffer), _empty(buffer, buffer.dtype))
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and value.is_meta:
                setattr(module, name, known.setdefault(id(value), _empty(value, value.dtype)))


def load_adapter(model: Any, recipe: Recipe, live: Liveness) -> None:
    """Give the adapter fake weights, in the dtype that TRL leaves it in."""
    dtype = _DTYPES[recipe.regime.adapter]
    with live.allocating("adapter"):
        for module in model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and parameter.requires_grad:
                    module._parameters[name] = nn.Parameter(_empty(parameter, dtype))


def optimizer_states(model: Any, recipe: Recipe, live: Liveness) -> tuple[list[torch.Tensor], int]:
    """States as the optimizer leaves them after its first step, and bytes of those that the driver pages."""
    kept, managed = [], 0
    with live.allocating("optimizer"):
        for parameter in model.parameters():
            if not parameter.requires_grad:
                continue
            states, paged = _states(parameter, recipe.optimizer)
            kept += states
            managed += paged
    return kept, managed


def _states(parameter: torch.Tensor, optimizer: str) -> tuple[list[torch.Tensor], int]:
    """bitsandbytes ``Optimizer2State.init_state`` and ``get_state_buffer``; torch's AdamW has two copies and a step."""
    if optimizer == "adamw":
        step = torch.zeros((), dtype=torch.float32)
        return [torch.zeros_like(parameter), torch.zeros_like(parameter), step], 0
    elements = parameter.numel()
    if elements < 4096:
        return [torch.zeros_like(parameter, dtype=torch.float32) for _ in range(2)], 0
    scales = [torch.zeros(-(-elements // 256), dtype=torch.float32) for _ in range(2)]
    if optimizer == "paged_adamw_8bit" and elements >= 1e5:
        return scales, 2 * elements
    return [*scales, *(torch.zeros_like(parameter, dtype=torch.uint8) for _ in range(2))], 0


def _quantise(module: Any, recipe: Recipe) -> None:
    weight = torch.empty(module.out_features, module.in_features, dtype=_DTYPES[recipe.regime.quantised_from])
    packed, state = quantize_4bit(
        weight, blocksize=64, compress_statistics=recipe.double_quant, quant_type=recipe.quantization
    )
    meta = module._parameters["weight"]
    parameter = nn.Parameter(packed, requires_grad=False)
    for name in ("compress_statistics", "quant_type", "quant_storage", "blocksize"):
        setattr(parameter, name, getattr(meta, name))
    module._parameters["weight"] = parameter
    module.__class__ = FakeLinear4bit
    module.quant_state = state


def _empty(like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=dtype, device="cpu")
