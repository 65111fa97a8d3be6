"""The catalog: every count holds, nothing is listed twice, and names are found."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from benchmarks.catalog import built, published_counts
from qlora_tui.errors import ModelError
from qlora_tui.models.catalog import CatalogEntry, catalog, catalog_entry, find_model, search_catalog

_SHAPES = {entry.parameters: entry for entry in catalog()}


@pytest.mark.parametrize("entry", catalog(), ids=lambda entry: entry.id)
def test_the_count_is_the_stated_one(entry: CatalogEntry) -> None:
    shape = entry.shape()
    assert shape.exact
    assert shape.parameters == entry.parameters
    assert shape.max_position_embeddings >= entry.context
    assert (entry.kind == "base") or entry.chat_template


@pytest.mark.parametrize(("model_id", "parameters"), published_counts().items())
def test_the_count_is_the_hubs(model_id: str, parameters: int) -> None:
    entry = catalog_entry(model_id)
    assert entry is not None
    assert entry.parameters == parameters


@pytest.mark.parametrize("entry", _SHAPES.values(), ids=lambda entry: entry.id)
def test_transformers_builds_that_model(entry: CatalogEntry) -> None:
    """With two layers: the rest are like these, and building eighty takes long."""
    config: dict[str, Any] = entry.config | {"num_hidden_layers": 2}
    assert entry.model_copy(update={"config": config}).shape().parameters == built(config)


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
