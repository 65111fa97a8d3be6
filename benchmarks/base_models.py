"""The base models of the measured runs, as the fields of their ``config.json`` that decide sizes.

Most are in the catalog. The rest is copied from the models' pages, as far as sizes go.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.catalog import catalog_entry
from qlora_tui.models.shape import shape_from_config

_CATALOG: Final = {
    "Llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "Llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "Llama-2-70b": "meta-llama/Llama-2-70b-hf",
    "Meta-Llama-3-8B": "meta-llama/Meta-Llama-3-8B",
    "Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
    "Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "Llama-3.2-1B": "meta-llama/Llama-3.2-1B",
    "Llama-3.2-3B": "meta-llama/Llama-3.2-3B",
    "Llama-3.3-70B-Instruct": "meta-llama/Llama-3.3-70B-Instruct",
    "llama1b": "meta-llama/Llama-3.2-1B",
    "llama8b": "meta-llama/Llama-3.1-8B",
    "qwen3_4b": "Qwen/Qwen3-4B",
    "qwen25_7b": "Qwen/Qwen2.5-7B",
    "gemma-2b": "google/gemma-2b",
    "gemma-7b": "google/gemma-7b",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-9b": "google/gemma-2-9b",
    "Mistral-7B-v0.1": "mistralai/Mistral-7B-v0.1",
    "Mistral-7B-v0.2": "mistralai/Mistral-7B-Instruct-v0.2",
    "phi-2": "microsoft/phi-2",
    "Phi-3-mini-4k": "microsoft/Phi-3-mini-4k-instruct",
    "TinyLlama-1.1B": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "Qwen3-30B-A3B": "Qwen/Qwen3-30B-A3B",
}
"""Catalog ids of the names that the measured rows use."""


def _llama(hidden: int, intermediate: int, layers: int, heads: int, vocab: int, **other: Any) -> dict[str, Any]:
    sizes = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": vocab,
        "max_position_embeddings": 8192,
    }
    return sizes | other


_OWN: Final[Mapping[str, dict[str, Any]]] = {
    # Mistral 7B v0.1's window on v0.3's vocabulary: what the H100 rows were run with.
    "mistral7b": _llama(4096, 14_336, 32, 32, 32_768, model_type="mistral", num_key_value_heads=8, sliding_window=4096),
    "deepseek-ai/deepseek-coder-1.3b-instruct": _llama(2048, 5504, 24, 16, 32_256),
    "llama-7b": _llama(4096, 11_008, 32, 32, 32_000),
    "llama-13b": _llama(5120, 13_824, 40, 40, 32_000),
    "Yi-34B": _llama(7168, 20_480, 60, 56, 64_000, num_key_value_heads=8),
    "Ministral-8B": _llama(
        4096, 12_288, 36, 32, 131_072, model_type="mistral", num_key_value_heads=8, head_dim=128, sliding_window=None
    ),
    # The first Qwen: Llama's layer with biases on q, k and v, as in Qwen2.
    "Qwen-1.8B": _llama(2048, 5504, 24, 16, 151_936, model_type="qwen2"),
    "Qwen-7B": _llama(4096, 11_008, 32, 32, 151_936, model_type="qwen2"),
    "Qwen-14B": _llama(5120, 13_696, 40, 40, 152_064, model_type="qwen2"),
    "Qwen-72B": _llama(8192, 24_576, 80, 64, 152_064, model_type="qwen2"),
    "falcon-7b": {
        "model_type": "falcon",
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "vocab_size": 65_024,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "new_decoder_architecture": False,
    },
    "stablelm-base-alpha-3b": {
        "model_type": "gpt_neox",
        "hidden_size": 4096,
        "intermediate_size": 16_384,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "vocab_size": 50_688,
        "max_position_embeddings": 4096,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    },
}


def hub_id(name: str) -> str:
    """The id under which a hub cache would hold the model's config."""
    found = _CATALOG.get(name, name)
    return found if "/" in found else f"benchmark/{found}"


@cache
def config_of(name: str) -> dict[str, Any]:
    """The fields that decide sizes.

    Raises:
        KeyError: if the model is unknown.
    """
    if name in _OWN:
        return _OWN[name]
    entry = catalog_entry(_CATALOG.get(name, name))
    if entry is None:
        raise KeyError(name)
    return entry.config


@cache
def shape_of(name: str) -> ModelShape:
    """The model, counted."""
    return shape_from_config(config_of(name))


@cache
def dimensions_of_model(name: str) -> Dimensions:
    """What the estimate needs of it."""
    return dimensions_of(shape_of(name))
