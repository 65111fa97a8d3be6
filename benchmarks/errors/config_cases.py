"""Configs that are wrong in themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors.case import USAGE, Case, Prepare, with_sections
from benchmarks.errors.place import Place, good_rows


def no_config(place: Place) -> Sequence[str]:
    return ["--config", str(place.folder / "nowhere.yaml"), "--json"]


def config_is_a_folder(place: Place) -> Sequence[str]:
    return ["--config", str(place.folder), "--json"]


def config_is_not_text(place: Place) -> Sequence[str]:
    arguments = place.text("")
    Path(arguments[1]).write_bytes(b"name: bad\n\xff\xfe\n")
    return arguments


def with_text(text: str) -> Prepare:
    """The config is this text; its rows are good."""

    def prepare(place: Place) -> Sequence[str]:
        place.rows(*good_rows())
        return place.text(text)

    return prepare


CONFIG_CASES = (
    Case("config: no such file", no_config, USAGE, ("nowhere.yaml", "no such file")),
    Case("config: a folder", config_is_a_folder, USAGE, ("is a folder", "config file")),
    Case("config: not UTF-8", config_is_not_text, USAGE, ("run.yaml:2", "UTF-8")),
    Case("config: empty", with_text(""), USAGE, ("run.yaml", "name", "data")),
    Case("config: YAML syntax", with_text("name: bad\ndata: {source: rows.jsonl\n"), USAGE, ("run.yaml:", "yaml")),
    Case("config: unknown key", with_sections(training={"learning_rat": 1e-4}), USAGE,
         ("run.yaml:", "training.learning_rate")),
    Case("config: wrong type", with_sections(training={"epochs": "three"}), USAGE,
         ("run.yaml:", "training.epochs", "not a number")),
    Case("config: two errors", with_sections(training={"epochs": "three"}, adapter={"rank": 0}), USAGE,
         ("training.epochs", "adapter.rank", "these places")),
    Case("config: batch sizes do not divide", with_sections(training={"effective_batch": 8, "micro_batch": 3}), USAGE,
         ("training.micro_batch", "does not divide", "1, 2, 4, 8")),
    Case("config: everything held out", with_sections(data={"evaluation": {"fraction": 1}}), USAGE,
         ("data.evaluation.fraction", "below 1")),
    Case("config: no such split", with_sections(data={"split": "test"}), USAGE, ("no split", "test", "data.split")),
    Case("config: a slice without rows", with_sections(data={"split": "train[100:200]"}), USAGE,
         ("train[100:200]", "8 rows")),
    Case("config: a name that is a path", lambda place: [*place.config(), "--name", "../up"], USAGE,
         ("../up", "--name")),
)  # fmt: skip
