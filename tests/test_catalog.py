"""The catalog: every count holds, nothing is listed twice, and names are found."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qlora_tui.errors import ModelError
from qlora_tui.models.catalog import CatalogEntry, catalog, catalog_entry, find_model, search_catalog

# The hub's totals of weight files that hold every parameter once and nothing else, as published in
# llmfit's hf_models.json and other public lists of the hub's figures.
HUB_TOTALS = {
    "01-ai/Yi-1.5-34B-Chat": 34_388_917_248,
    "CohereLabs/aya-expanse-32b": 32_296_476_672,
    "CohereLabs/c4ai-command-r7b-12-2024": 8_028_033_024,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "allenai/OLMo-2-0325-32B-Instruct": 32_234_279_936,
    "allenai/OLMoE-1B-7B-0125-Instruct": 6_919_161_856,
    "bigcode/starcoder2-7b": 7_173_923_840,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "google/gemma-2-27b-it": 27_227_128_320,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-270m": 268_098_176,
    "ibm-granite/granite-3.3-8b-instruct": 8_170_864_640,
    "ibm-granite/granite-4.1-8b": 8_791_592_960,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "microsoft/Phi-3-medium-4k-instruct": 13_960_238_080,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/phi-4": 14_659_507_200,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23_572_403_200,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "openai/gpt-oss-20b": 20_914_757_184,
    "tiiuae/Falcon3-7B-Instruct": 7_455_550_464,
}
_SHAPES = {entry.parameters: entry for entry in catalog()}


@pytest.mark.parametrize("entry", catalog(), ids=lambda entry: entry.id)
def test_the_count_is_the_stated_one(entry: CatalogEntry) -> None:
    shape = entry.shape()
    assert shape.exact
    assert shape.parameters == entry.parameters
    assert shape.max_position_embeddings >= entry.context
    assert (entry.kind == "base") or entry.chat_template


@pytest.mark.parametrize("model_id", HUB_TOTALS)
def test_the_count_is_the_hubs(model_id: str) -> None:
    entry = catalog_entry(model_id)
    assert entry is not None
    assert entry.parameters == HUB_TOTALS[model_id]


@pytest.mark.parametrize("entry", _SHAPES.values(), ids=lambda entry: entry.id)
def test_transformers_builds_that_model(entry: CatalogEntry) -> None:
    """With two layers: the rest are like these, and building eighty takes long."""
    config: dict[str, Any] = entry.config | {"num_hidden_layers": 2}
    values = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **values, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        )
    counted = entry.model_copy(update={"config": config}).shape()
    assert counted.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_extent() -> None:
    entries = catalog()
    sizes = [entry.parameters / 1e9 for entry in entries]
    assert len(entries) >= 60
    assert len({entry.id.lower() for entry in entries}) == len(entries)
    assert sizes == sorted(sizes)
    for low, high in ((0.1, 0.5), (0.5, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 35), (60, 73)):
        assert any(low <= size < high for size in sizes), (low, high)
    assert sizes[0] < 0.15
    assert sizes[-1] < 73
    assert len({entry.config["model_type"] for entry in entries}) >= 15
    assert {entry.gated for entry in entries} >= {True, False}


def test_licences_say_their_limits() -> None:
    for entry in catalog():
        assert entry.licence.name
        assert len(entry.licence.limits) > 10
    research = catalog_entry("Qwen/Qwen2.5-3B-Instruct")
    assert research is not None
    assert research.licence.limits == "no commercial use"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen/qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
        ("smollm2 135m instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("gemma 2 9b it", "google/gemma-2-9b-it"),
        ("llama 3.3", "meta-llama/Llama-3.3-70B-Instruct"),
        ("phi-4", "microsoft/phi-4"),
        ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("qwen3 4b", "Qwen/Qwen3-4B"),
    ],
)
def test_names_are_found(name: str, expected: str) -> None:
    assert find_model(name).id == expected


def test_names_that_fit_none_or_several() -> None:
    with pytest.raises(ModelError, match=r"None has a name.*SmolLM2"):
        find_model("smolm2-135")
    with pytest.raises(ModelError, match=r"Several fit"):
        find_model("gemma")
    with pytest.raises(ModelError):
        find_model("")
    with pytest.raises(ModelError) as caught:
        find_model("\x1b[31m???")
    assert "\x1b" not in str(caught.value)


def test_search() -> None:
    assert search_catalog("") == list(catalog())
    assert {entry.id for entry in search_catalog("r1 distill llama")} == {
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    }
    assert search_catalog("no such model") == []


def test_reading_it_takes_no_torch() -> None:
    code = (
        "import sys; from qlora_tui.models.catalog import catalog; catalog()[0].shape(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
