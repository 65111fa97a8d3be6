"""Reading JSON lines: what is accepted, and the line named in every error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from qlora_tui.data import source
from qlora_tui.data.slices import parse_split
from qlora_tui.data.source import file_fingerprint, locate, read_jsonl
from qlora_tui.errors import DataError


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    path = tmp_path / "ten.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(10)), encoding="utf-8")
    return path


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return path


def numbers(path: Path, split: str) -> list[int]:
    return [row.values["n"] for row in read_jsonl(path, split)]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", list(range(10))),
        ("train[:3]", [0, 1, 2]),
        ("train[7:]", [7, 8, 9]),
        ("train[2:4]", [2, 3]),
        ("train[:]", list(range(10))),
        ("train[-2:]", [8, 9]),
        ("train[:-8]", [0, 1]),
        ("train[10%:30%]", [1, 2]),
        ("train[-20%:]", [8, 9]),
        ("train[5:500]", [5, 6, 7, 8, 9]),
        ("train[:100%]", list(range(10))),
    ],
)
def test_a_slice_selects_rows(ten: Path, split: str, expected: list[int]) -> None:
    assert numbers(ten, split) == expected


@pytest.mark.parametrize("split", ["train[5:5]", "train[6:2]", "train[20:]", "train[:0]"])
def test_a_slice_without_rows_says_how_many_there_are(ten: Path, split: str) -> None:
    with pytest.raises(DataError, match="selects no row") as caught:
        numbers(ten, split)
    assert "holds 10 rows" in caught.value.why


def test_only_the_train_split_exists_in_a_file(ten: Path) -> None:
    with pytest.raises(DataError, match="no split 'test'"):
        numbers(ten, "test")


@pytest.mark.parametrize("text", ["train[", "train[a:b]", "train[:2%%]", "", "tr ain"])
def test_a_broken_split_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        parse_split(text)


def test_numbers_are_lines_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n{"a": "\xc3\xa9"}')
    assert [(row.number, row.values) for row in read_jsonl(path)] == [(1, {"a": 1}), (4, {"a": "é"})]


def test_slices_count_rows_not_lines(tmp_path: Path) -> None:
    path = written(tmp_path, b'\n\n{"n": 0}\n\n{"n": 1}\n')
    assert numbers(path, "train[-1:]") == [1]


def test_rows_before_a_broken_line_are_read_lazily(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"n": 0}\n{oops\n')
    assert numbers(path, "train[:1]") == [0]


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b'{"a": 1}\n{"a": }\n', 2, "Expecting value at column 7"),
        (b'{"a": 1}\n\n[1, 2]\n', 3, "a list, not an object"),
        (b'"text"\n', 1, "a string, not an object"),
        (b"null\n", 1, "null, not an object"),
        (b'{"a": "\xff"}\n', 1, "Byte 8 is not UTF-8"),
        (b'{"a": "caf\xe9"}\n', 1, "is not UTF-8"),
        ('{"a": 1}\n'.encode("utf-16"), 1, "NUL"),
        (b'{"a": "x\0y"}\n', 1, "NUL"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", 1, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", 1, "out of range"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, line: int, why: str) -> None:
    with pytest.raises(DataError, match=f"Line {line} of .*rows.jsonl") as caught:
        list(read_jsonl(written(tmp_path, content)))
    assert why in caught.value.why
    assert caught.value.hint


def test_a_json_document_over_several_lines_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_jsonl(written(tmp_path, json.dumps([{"a": 1}], indent=1).encode())))
    assert "one line" in caught.value.hint


def test_a_line_above_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_LINE_BYTES", 1024)
    path = written(tmp_path, b'{"a": 1}\n' + b'{"a": "' + b"x" * 1100 + b'"}\n')
    with pytest.raises(DataError, match="Line 2"):
        list(read_jsonl(path))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="is empty"):
        list(read_jsonl(written(tmp_path, content)))


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        list(read_jsonl(tmp_path / "gone.jsonl"))


def test_locate_takes_a_file(ten: Path) -> None:
    assert locate(str(ten)) == ten


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.json"])
def test_other_files_are_refused_with_what_is_supported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        locate(str(tmp_path / name))
    assert ".jsonl" in caught.value.why


@pytest.mark.parametrize("name", ["owner/data-set", "imdb", "bundled:spam"])
def test_hub_ids_are_recognised_and_refused(name: str) -> None:
    with pytest.raises(DataError, match="neither a file here"):
        locate(name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        locate(str(tmp_path))


def test_a_misspelt_file_gets_its_neighbour(ten: Path) -> None:
    with pytest.raises(DataError) as caught:
        locate(str(ten.with_name("tenn.jsonl")))
    assert "'ten.jsonl'" in caught.value.hint


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_an_impossible_path_is_an_error_not_a_crash(name: str) -> None:
    with pytest.raises(DataError):
        locate(name)


def test_the_fingerprint_is_the_sha256_of_the_bytes(ten: Path) -> None:
    assert file_fingerprint(ten) == hashlib.sha256(ten.read_bytes()).hexdigest()
