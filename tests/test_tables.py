"""Parquet and Arrow files as rows, as JSON would have them."""

from __future__ import annotations

import io
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from qlora_tui.data.files import DataFile
from qlora_tui.data.source import RawRow, find_source
from qlora_tui.engine import tables
from qlora_tui.engine.data_source import Data, open_source
from qlora_tui.errors import DataError

CALL = {"function": {"name": "f", "arguments": {"x": 1}}}
MESSAGES = [
    [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [CALL]}],
    [{"role": "user", "content": "é"}, {"role": "assistant", "content": "a"}],
]


def opened(path: Path, split: str = "train") -> Data:
    return open_source(find_source(str(path), split))


def values(path: Path, split: str = "train") -> list[dict[str, Any]]:
    return [row.values for row in opened(path, split).rows()]


def written(path: Path, table: Any, form: str) -> Path:
    if form == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=2)
        return path
    writer = pyarrow.ipc.new_file if form == "arrow file" else pyarrow.ipc.new_stream
    with path.open("wb") as stream, writer(stream, table.schema) as out:
        out.write_table(table, max_chunksize=2)
    return path


@pytest.fixture(params=["parquet", "arrow file", "arrow stream"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def path_for(folder: Path, form: str) -> Path:
    return folder / ("rows.parquet" if form == "parquet" else "rows.arrow")


def test_rows_are_those_of_the_table(tmp_path: Path, form: str) -> None:
    path = written(path_for(tmp_path, form), pyarrow.table({"n": list(range(7))}), form)
    data = opened(path)
    assert data.count() == 7
    assert next(data.rows()) == RawRow(1, {"n": 0}, size=8)
    assert [row["n"] for row in values(path, "train[2:-3]")] == [2, 3]
    assert not data.source.is_light


def test_nulls_of_missing_keys_are_taken_out(tmp_path: Path, form: str) -> None:
    """A table gives every message every key; a chat template would meet tool_calls that are none."""
    path = written(path_for(tmp_path, form), pyarrow.Table.from_pylist([{"messages": each} for each in MESSAGES]), form)
    assert values(path) == [{"messages": each} for each in MESSAGES]


def test_other_kinds_of_values_become_those_of_json(tmp_path: Path, form: str) -> None:
    row = {
        "when": datetime(2026, 11, 23, tzinfo=UTC),
        "price": Decimal("1.50"),
        "bytes": b"caf\xc3\xa9",
        "map": [("a", 1)],
        "large": "x",
        "list": [1, 2],
        "none": None,
    }
    kinds = {"map": pyarrow.map_(pyarrow.string(), pyarrow.int64()), "large": pyarrow.large_string()}
    table = pyarrow.table({name: pyarrow.array([value], type=kinds.get(name)) for name, value in row.items()})
    assert values(written(path_for(tmp_path, form), table, form)) == [
        {
            "when": "2026-11-23T00:00:00+00:00",
            "price": "1.50",
            "bytes": "café",
            "map": {"a": 1},
            "large": "x",
            "list": [1, 2],
            "none": None,
        }
    ]


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    rows.save_to_disk(str(tmp_path / "saved"))
    expected = [{"text": "a", "label": "spam"}, {"text": "b", "label": "ham"}]
    assert values(tmp_path / "rows.parquet") == values(tmp_path / "saved") == expected


def test_saved_splits_are_found(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"n": [number]}) for number, name in enumerate(("train", "test"))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert values(tmp_path / "saved") == [{"n": 0}]
    assert values(tmp_path / "saved", "test") == [{"n": 1}]


@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_broken_file_is_told(tmp_path: Path, form: str, damage: str) -> None:
    path = written(path_for(tmp_path, form), pyarrow.table({"n": [str(n) * 50 for n in range(100)]}), form)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"n\n1\n"}[damage])
    with pytest.raises(DataError, match=r"rows\.\w+' (cannot be read|is empty)") as caught:
        values(path)
    assert caught.value.hint


def test_noise_in_a_file_is_told_or_read_as_values(tmp_path: Path, form: str) -> None:
    path = written(path_for(tmp_path, form), pyarrow.table({"n": [str(n) * 50 for n in range(100)]}), form)
    content = path.read_bytes()
    for start in range(0, len(content) - 40, 97):
        path.write_bytes(content[:start] + bytes(range(200, 240)) + content[start + 40 :])
        with suppress(DataError):
            assert len(values(path)) <= 100


def test_columns_of_the_same_name_are_refused(tmp_path: Path, form: str) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    with pytest.raises(DataError, match="cannot be told apart"):
        values(written(path_for(tmp_path, form), table, form))


def test_a_batch_has_a_bound(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(path_for(tmp_path, form), pyarrow.table({"n": ["x" * 1000] * 10}), form)
    monkeypatch.setattr(tables, "MAX_BATCH_BYTES", 1000)
    with pytest.raises(DataError, match="Row 1 of"):
        values(path)


def test_an_arrow_file_may_be_in_memory() -> None:
    """The readers take any stream, such as one over the network."""
    out = io.BytesIO()
    with pyarrow.ipc.new_stream(out, pyarrow.schema([("n", pyarrow.int64())])) as writer:
        writer.write_table(pyarrow.table({"n": [1]}))
    file = DataFile("rows.arrow", "arrow", None, lambda: io.BytesIO(out.getvalue()))
    assert list(tables.ALL_READERS["arrow"].records(file)) == [(1, {"n": 1})]
