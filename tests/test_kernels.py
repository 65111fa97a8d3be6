"""Which kernels a model trains with: the estimate's answer, from the shape alone, is the engine's."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from qlora_tui.memory.kernels import liger_possible, varlen_possible
from qlora_tui.models.catalog import CatalogEntry, catalog, find_model

# One entry of each configuration: many models share one.
ENTRIES = list({repr(sorted(entry.config.items())): entry for entry in catalog()}.values())


@pytest.mark.full
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_variable_length_attention_is_chosen_where_the_engine_can(entry: CatalogEntry) -> None:
    from transformers import AutoConfig

    from qlora_tui.engine.attention import supports_varlen

    values = {name: value for name, value in entry.config.items() if name != "model_type"}
    config = AutoConfig.for_model(entry.config["model_type"], **values)
    assert varlen_possible(entry.shape()) == supports_varlen(config)


def test_layer_kernels_are_chosen_where_liger_has_them() -> None:
    spec = find_spec("liger_kernel")
    if spec is None or spec.origin is None:
        pytest.skip("liger-kernel is not installed here")
    source = (Path(spec.origin).parent / "transformers" / "monkey_patch.py").read_text(encoding="utf-8")
    (table,) = (
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_TYPE_TO_APPLY_LIGER_FN"
    )
    assert isinstance(table, ast.Dict)
    known = {key.value for key in table.keys if isinstance(key, ast.Constant)}
    for entry in ENTRIES:
        assert liger_possible(entry.shape()) == (entry.config["model_type"] in known), entry.id


def test_what_attention_lacks_rules_variable_lengths_out() -> None:
    assert varlen_possible(find_model("Llama-3.1-8B-Instruct").shape())
    assert not varlen_possible(find_model("gemma-2-9b").shape())
    assert not varlen_possible(find_model("Mistral-7B-v0.1").shape())
