"""What the closed form is held to the dry run on: real widths of every family, few layers, every kind of recipe."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qlora_tui.memory.estimate import estimate
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.kernels import liger_possible, varlen_possible
from qlora_tui.memory.recipe import LORA_ON_SIXTEEN_BIT, DeviceFacts, Recipe
from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.shape import shape_from_config


def _config(
    model_type: str, hidden: int, intermediate: int, heads: int, kv_heads: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 32_768,
        "pad_token_id": 0,
        **more,
    }


_GRANITE: Final = {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 16.0}
_NEW_FALCON: Final = {"new_decoder_architecture": True, "num_kv_heads": 8, "ffn_hidden_size": 32_768}
_OLD_FALCON: Final = {"multi_query": True, "parallel_attn": True, "ffn_hidden_size": 18_176}
_STARCODER: Final = {"use_bias": True, "residual_dropout": 0.1, "embedding_dropout": 0.1, "attention_dropout": 0.1}

FAMILIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama 2 7B": _config("llama", 4096, 11_008, 32, 32, 32_000),
    "llama 3.1 8B, deepseek distill": _config("llama", 4096, 14_336, 32, 8, 128_256),
    "llama 3.2 1B": _config("llama", 2048, 8192, 32, 8, 128_256, head_dim=64, tie_word_embeddings=True),
    "mistral 7B": _config("mistral", 4096, 14_336, 32, 8, 32_768, sliding_window=None),
    "mistral 7B, window": _config("mistral", 4096, 14_336, 32, 8, 32_768, sliding_window=1024),
    "mistral nemo 12B": _config("mistral", 5120, 14_336, 32, 8, 131_072, head_dim=128, sliding_window=None),
    "qwen2.5 7B, deepseek distill": _config("qwen2", 3584, 18_944, 28, 4, 152_064),
    "qwen2.5 0.5B": _config("qwen2", 896, 4864, 14, 2, 151_936, tie_word_embeddings=True),
    "qwen3 4B": _config("qwen3", 2560, 9728, 32, 8, 151_936, head_dim=128, tie_word_embeddings=True),
    "gemma 2B": _config("gemma", 2048, 16_384, 8, 1, 256_000, head_dim=256, hidden_activation="gelu_pytorch_tanh"),
    "gemma 7B": _config("gemma", 3072, 24_576, 16, 16, 256_000, head_dim=256, hidden_activation="gelu_pytorch_tanh"),
    "gemma2 2B": _config("gemma2", 2304, 9216, 8, 4, 256_000, head_dim=256, sliding_window=4096),
    "gemma3 4B": _config("gemma3_text", 2560, 10_240, 8, 4, 262_208, head_dim=256, sliding_window=1024),
    "phi 2": _config(
        "phi", 2560, 10_240, 32, 32, 51_200, hidden_act="gelu_new", partial_rotary_factor=0.4, resid_pdrop=0.1
    ),
    "phi 3 mini": _config("phi3", 3072, 8192, 32, 32, 32_064, sliding_window=2047),
    "phi 4": _config("phi3", 5120, 17_920, 40, 10, 100_352, sliding_window=None),
    "smollm3 3B": _config("smollm3", 2048, 11_008, 16, 4, 128_256, tie_word_embeddings=True),
    "olmo2 7B": _config("olmo2", 4096, 11_008, 32, 32, 100_352),
    "granite 3.1 8B": _config("granite", 4096, 12_800, 32, 8, 49_155, tie_word_embeddings=True, **_GRANITE),
    "stablelm 2 1.6B": _config("stablelm", 2048, 5632, 32, 32, 100_352, use_qkv_bias=True, hidden_dropout=0.0),
    "stablelm 2 12B": _config(
        "stablelm", 5120, 13_824, 32, 8, 100_352, use_parallel_residual=True, qk_layernorm=True, hidden_dropout=0.0
    ),
    "starcoder2 3B": _config("starcoder2", 3072, 12_288, 24, 2, 49_152, sliding_window=4096, **_STARCODER),
    "falcon 7B": _config("falcon", 4544, 18_176, 71, 1, 65_024, **_OLD_FALCON),
    "falcon 40B": _config("falcon", 8192, 32_768, 128, 8, 65_024, **_NEW_FALCON),
    "command-r 35B": _config("cohere", 8192, 22_528, 64, 64, 256_000),
    "command-r+ 104B": _config("cohere", 12_288, 33_792, 96, 8, 256_000, use_qk_norm=True),
    "command-r7b": _config("cohere2", 4096, 14_336, 32, 8, 256_000, head_dim=128, sliding_window=4096),
    "pythia 6.9B": _config("gpt_neox", 4096, 16_384, 32, 32, 50_432, use_parallel_residual=True),
    "gpt-neox, not parallel": _config("gpt_neox", 2560, 10_240, 32, 32, 50_432, use_parallel_residual=False),
}

LAYERS: Final = 4
"""Few, so that a layer counts for much; enough that the last one rules, as it does in a model of full depth."""

_PLAIN: Final = Recipe(micro_batch=4, sequence=2048)
RECIPES: Final[Mapping[str, Recipe]] = {
    "4×2048": _PLAIN,
    "1×512, r8": replace(_PLAIN, micro_batch=1, sequence=512, rank=8),
    "1×8192, r64, ×4": replace(_PLAIN, micro_batch=1, sequence=8192, rank=64, accumulation=4),
    "every second layer": replace(_PLAIN, checkpointing="every-2"),
    "no checkpoints": replace(_PLAIN, checkpointing="none"),
    "dropout": replace(_PLAIN, micro_batch=2, dropout=0.05),
    "dropout, no checkpoints": replace(_PLAIN, micro_batch=2, dropout=0.05, checkpointing="none"),
    "packed": replace(_PLAIN, packed=True, optimizer="adamw_8bit"),
    "padded": replace(_PLAIN, padded=True, sequence=1238),
    "eager": replace(_PLAIN, micro_batch=2, sequence=1024, attention="eager"),
    "eager, no checkpoints": replace(_PLAIN, micro_batch=2, sequence=1024, attention="eager", checkpointing="none"),
    "16-bit base": replace(_PLAIN, quantization="none", regime=LORA_ON_SIXTEEN_BIT, optimizer="adamw"),
    "16-bit base, no checkpoints": replace(
        _PLAIN, quantization="none", regime=LORA_ON_SIXTEEN_BIT, optimizer="adamw", checkpointing="none"
    ),
    "attention only": replace(_PLAIN, targets=frozenset({"attention"}), double_quant=False),
    "attention only, no checkpoints": replace(_PLAIN, targets=frozenset({"attention"}), checkpointing="none"),
}
NO_FUSED_ATTENTION: Final = frozenset({"gemma2", "gpt_oss"})
"""Types that transformers runs with eager attention only."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A family, a recipe, and a number of layers."""

    family: str
    name: str
    layers: int
    recipe: Recipe

    @property
    def config(self) -> dict[str, Any]:
        """What its ``config.json`` holds."""
        return {**FAMILIES[self.family], "num_hidden_layers": self.layers}

    @property
    def estimated(self) -> int:
        """Allocated bytes by the closed form."""
        return estimate(dimensions_of(shape_from_config(self.config)), self.recipe, NO_WORKSPACE).allocated

    def traced(self) -> int:
        """Allocated bytes by the dry run."""
        from qlora_tui.engine.dryrun import dry_run

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
            return dry_run(Path(folder), self.recipe, NO_WORKSPACE, phases=()).allocated


NO_WORKSPACE: Final = DeviceFacts(workspace=0)


def cells(layers: int = LAYERS) -> Iterator[Cell]:
    """Every family with every recipe it can be trained by, plain, with layer kernels, and with fused adapters too."""
    for family, config in FAMILIES.items():
        shape = shape_from_config({**config, "num_hidden_layers": layers})
        for name, recipe in RECIPES.items():
            fitted = _fitted(shape, recipe)
            yield Cell(family, name, layers, fitted)
            if liger_possible(shape):
                with_kernels = replace(fitted, layer_kernels="liger")
                yield Cell(family, f"{name}, liger", layers, with_kernels)
                if recipe.quantization != "none" and not recipe.dropout:
                    fused = replace(with_kernels, fused_adapters=True)
                    yield Cell(family, f"{name}, liger, fused adapters", layers, fused)


def _fitted(shape: ModelShape, recipe: Recipe) -> Recipe:
    """The recipe with the family's own names, and an attention it has."""
    if recipe.targets:
        names = {m.name.rpartition(".")[2] for _, m in shape.matrices() if "attention" in m.name or "attn" in m.name}
        recipe = replace(recipe, targets=frozenset(names))
    if shape.model_type in NO_FUSED_ATTENTION:
        return replace(recipe, attention="eager")
    if recipe.packed and varlen_possible(shape):
        return replace(recipe, attention="varlen")
    return recipe
