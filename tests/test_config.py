"""The schema itself: its rules, its derived values, and that nothing in it is undocumented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from qlora_tui.config import RunConfig
from qlora_tui.config_file import config_schema


def config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"name": "run", "data": {"source": "rows.jsonl"}, **sections})


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for owner, definition in [("RunConfig", schema), *schema["$defs"].items()]:
        for name, settings in definition["properties"].items():
            yield f"{owner}.{name}", settings


def test_every_setting_is_documented() -> None:
    undocumented = [name for name, settings in properties(config_schema()) if not settings.get("description")]
    assert undocumented == []


def test_every_section_refuses_unknown_keys() -> None:
    schema = config_schema()
    assert [name for name, part in schema["$defs"].items() if part["additionalProperties"] is not False] == []


def test_the_schema_says_what_it_is() -> None:
    schema = config_schema()
    assert list(schema)[:2] == ["$schema", "title"]
    assert schema["title"] == "qlora-tui run config"
    assert schema["required"] == ["name", "data"]


@pytest.mark.parametrize("name", ["a", "spam-triage", "7B_v1.2", "x" * 64])
def test_names_that_make_a_folder(name: str) -> None:
    assert config(name=name).name == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a\\b", "a b", "a.", "ä", "a\n", "x" * 65])
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(ValidationError, match="a name starts with"):
        config(name=name)


@pytest.mark.parametrize("split", ["train", "train[:2%]", "train[100:600]", "test[-5%:]", "a_b.c-d[:]"])
def test_splits(split: str) -> None:
    assert config(data={"source": "x", "split": split}).data.split == split


@pytest.mark.parametrize("split", ["", "train[", "train[2%]", "train test", "train[:2]x"])
def test_splits_that_are_none(split: str) -> None:
    with pytest.raises(ValidationError, match="a split is a name"):
        config(data={"source": "x", "split": split})


def test_batches_must_divide() -> None:
    with pytest.raises(ValidationError, match=r"micro_batch 4 does not divide .*6; choose one of 1, 2, 3, 6"):
        config(training={"micro_batch": 4, "effective_batch": 6})


def test_accumulation_follows_from_the_batches() -> None:
    assert config(training={"micro_batch": 2, "effective_batch": 6}).gradient_accumulation == 3
    assert config(training={"effective_batch": 6}).gradient_accumulation == 6


def test_dora_and_rslora_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="choose one of them"):
        config(adapter={"dora": True, "rslora": True})


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValidationError):
        config(training={"max_grad_norm": value})


def test_changed_copies_and_validates() -> None:
    before = config()
    after = before.changed(training={"seed": 7}, name="other")  # type: ignore[arg-type]
    assert (after.training.seed, after.name, before.training.seed) == (7, "other", 42)
    assert after.data == before.data
    with pytest.raises(ValidationError):
        before.changed(training={"seed": -1})


def test_a_config_cannot_be_edited_in_place() -> None:
    with pytest.raises(ValidationError):
        config().training.seed = 7  # type: ignore[misc]
