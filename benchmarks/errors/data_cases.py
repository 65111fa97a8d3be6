"""Rows that cannot be read, mean nothing, or are too long."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors.case import ENVIRONMENT, OK, USAGE, Case, Prepare, with_sections
from benchmarks.errors.place import Place, good_rows

LONG_ROW = 6
"""The row of ``long_rows`` that is longer than ``max_length``, counted from 1."""
NO_ANSWER = {"prompt": "What follows?", "completion": ""}


def with_rows(*lines: object, good: int = 0, **data: Any) -> Prepare:
    """The data holds so many good rows and then these lines."""

    def prepare(place: Place) -> Sequence[str]:
        place.rows(*good_rows(good), *lines)
        return place.config(data=data)

    return prepare


def long_rows(policy: str) -> Prepare:
    """One of eight rows has more tokens than ``max_length``, half of them in its answer."""
    rows: list[Any] = good_rows()
    rows[LONG_ROW - 1] = {"prompt": "Say a.", "completion": "a" * 200}
    return with_rows(*rows, long_rows=policy, evaluation={"fraction": 0})


def empty_folder(place: Place) -> Path:
    folder = place.folder / "nothing"
    folder.mkdir()
    return folder


def gzip_bomb(place: Place) -> Sequence[str]:
    """A gigabyte without a line break in a megabyte."""
    path = place.folder / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(1024):
            file.write(bytes(1 << 20))
    return place.config(data={"source": str(path)})


def bad_evaluation_rows(place: Place) -> Sequence[str]:
    place.rows('{"prompt": "a"', name="held-out.jsonl")
    return place.config(data={"evaluation": {"source": "held-out.jsonl"}})


DATA_CASES = (
    Case("data: no such file", with_sections(data={"source": "nowhere.jsonl"}), USAGE, ("nowhere.jsonl", "path")),
    Case("data: a folder without data", lambda place: place.config(data={"source": str(empty_folder(place))}), USAGE,
         ("no data file", "name a file")),
    Case("data: another kind of file", lambda place: place.config(data={"source": str(place.rows(name="rows.xlsx"))}),
         USAGE, ("rows.xlsx", ".jsonl")),
    Case("data: a table with a short row", lambda place: place.config(
        data={"source": str(place.rows("prompt,completion", "a,b", "c", name="rows.csv"))}), USAGE,
        ("Line 3", "rows.csv", "1 fields")),
    Case("data: a bomb", gzip_bomb, USAGE, ("longer than 16 MiB", "own")),
    Case("data: no such bundled sample", with_sections(data={"source": "bundled:ham"}), USAGE,
         ("'ham'", "bundled:spam")),
    Case("data: a hub data set without a network", with_sections(data={"source": "owner/rows"}), ENVIRONMENT,
         ("owner/rows", "HF_HUB_OFFLINE")),
    Case("data: empty file", with_rows(), USAGE, ("rows.jsonl", "empty")),
    Case("data: invalid JSON on line 4", with_rows('{"prompt": "a", "completion": }', good=3), USAGE,
         ("Line 4", "not valid JSON", "column")),
    Case("data: a line that is no object", with_rows("[1, 2]", good=2), USAGE, ("Line 3", "a list", "object")),
    Case("data: not UTF-8", with_rows(b'{"prompt": "caf\xe9", "completion": "a"}', good=4), USAGE,
         ("Line 5", "UTF-8")),
    Case("data: NUL bytes", with_rows(b'{"prompt": "a\0", "completion": "a"}', good=1), USAGE, ("Line 2", "NUL")),
    Case("data: no row has an answer", with_rows(NO_ANSWER, NO_ANSWER), USAGE, ("no answer", "2")),
    Case("data: some rows have no answer", with_rows(NO_ANSWER, NO_ANSWER, good=6), OK,
         ("2 of 8 rows are not used", "no answer"), {"rows": 8, "kept": 6}, full=True),
    Case("data: unknown columns", with_rows({"frage": "a", "antwort": "b"}), USAGE,
         ("frage", "antwort", "data.columns")),
    Case("data: data.columns names no column", with_sections(data={"columns": {"completion": "compleiton"}}), USAGE,
         ("compleiton", "did you mean 'completion'?")),
    Case("data: the template names no column",
         with_sections(data={"template": "{promt}", "columns": {"completion": "completion"}}), USAGE,
         ("promt", "did you mean 'prompt'?")),
    Case("data: messages of an unknown role", with_rows({"messages": [{"role": "judge", "content": "a"}]}), USAGE,
         ("judge", "assistant")),
    Case("data: a row too long, error", long_rows("error"), USAGE, (f"Row {LONG_ROW}", "tokens", "128")),
    Case("data: a row too long, drop", long_rows("drop"), OK, ("1 of 8 rows are not used",),
         {"rows": 8, "kept": 7, "truncated": 0, "train_rows": 7}, full=True),
    Case("data: a row too long, truncate", long_rows("truncate"), OK, ("1 of 8 rows are cut",),
         {"rows": 8, "kept": 8, "truncated": 1, "train_rows": 8}, full=True),
    Case("data: a row too long, split", long_rows("split"), OK, (),
         {"rows": 8, "kept": 8, "truncated": 0, "train_rows": 9}, full=True),
    Case("data: every prompt fills max_length", with_rows({"prompt": "a" * 200, "completion": "b"}), USAGE,
         ("prompt", "data.max_length")),
    Case("data: no such evaluation file", with_sections(data={"evaluation": {"source": "nowhere.jsonl"}}), USAGE,
         ("nowhere.jsonl", "path")),
    Case("data: damaged evaluation file", bad_evaluation_rows, USAGE, ("Line 1", "held-out.jsonl")),
)  # fmt: skip
