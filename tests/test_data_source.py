"""What a source names, and its rows: what is accepted, and the file and line named in every error."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from qlora_tui.config import DataSection
from qlora_tui.data import files, json_rows, table_rows
from qlora_tui.data.reading import fingerprint, read_rows, row_count
from qlora_tui.data.slices import parse_split, split_in_name
from qlora_tui.data.source import RawRow, evaluation_source, find_source, sample_names
from qlora_tui.errors import DataError


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    path = tmp_path / "ten.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(10)), encoding="utf-8")
    return path


def written(tmp_path: Path, content: bytes, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def rows(path: Path, split: str | None = "train") -> list[RawRow]:
    return list(read_rows(find_source(str(path), split)))


def values(path: Path, split: str | None = "train") -> list[dict[str, Any]]:
    return [row.values for row in rows(path, split)]


def numbers(path: Path, split: str) -> list[int]:
    return [row.values["n"] for row in rows(path, split)]


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


# JSON lines


def test_numbers_are_lines_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n{"a": "\xc3\xa9"}')
    assert [(row.number, row.values) for row in rows(path)] == [(1, {"a": 1}), (4, {"a": "é"})]


def test_slices_count_rows_not_lines(tmp_path: Path) -> None:
    assert numbers(written(tmp_path, b'\n\n{"n": 0}\n\n{"n": 1}\n'), "train[-1:]") == [1]


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", b'{"n": 0}\n{oops\n'), ("rows.csv", b"n\n0\n1,2\n"), ("rows.json", b'[{"n": 0}, oops')],
)
def test_rows_before_a_broken_one_are_read_lazily(tmp_path: Path, name: str, content: bytes) -> None:
    path = written(tmp_path, content, name)
    assert [int(row["n"]) for row in values(path, "train[:1]")] == [0]
    with pytest.raises(DataError, match=r"Line \d of"):
        rows(path)


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
    with pytest.raises(DataError, match=rf"Line {line} of .*rows.jsonl") as caught:
        rows(written(tmp_path, content))
    assert why in caught.value.why
    assert caught.value.hint


def test_a_json_document_over_several_lines_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        rows(written(tmp_path, json.dumps([{"a": 1}], indent=1).encode()))
    assert "name it .json" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b'{"a": 1},\n{"a": 2},\n', "Remove the commas"),
        (b"{'a': 1}\n", "double quotes"),
        (b'{"a": 1}\n{"a": 2\n', "Correct or remove"),
    ],
)
def test_what_is_nearly_json_lines_gets_a_hint_of_its_own(tmp_path: Path, content: bytes, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        rows(written(tmp_path, content))
    assert hint in caught.value.hint


def test_a_line_above_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1024)
    with pytest.raises(DataError, match="Line 2"):
        rows(written(tmp_path, b'{"a": 1}\n' + b'{"a": "' + b"x" * 1100 + b'"}\n'))


def test_a_file_of_blank_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BLANK_LINES", 100)
    assert values(written(tmp_path, b"\n" * 100 + b'{"a": 1}')) == [{"a": 1}]
    with pytest.raises(DataError, match="Line 101"):
        rows(written(tmp_path, b"\n" * 101 + b'{"a": 1}'))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.txt"])
@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=r"is empty|not valid JSON"):
        rows(written(tmp_path, content, name))


def test_a_file_that_is_gone_is_an_error(ten: Path) -> None:
    source = find_source(str(ten))
    ten.unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        list(read_rows(source))


# JSON documents


@pytest.mark.parametrize(
    "content",
    [
        '[{"a": 1}, {"a": "é"}]',
        '[\n {"a": 1},\n {"a": "é"}\n]\n',
        '{"a": 1}\n{"a": "é"}\n',
        '{\n "a": 1\n}\n{\n "a": "é"\n}',
        '{"version": "1", "data": [{"a": 1}, {"a": "é"}]}',
        '{"a": [1, "é"]}',
        '{"a": {"0": 1, "1": "é"}}',
        '\ufeff[{"a": 1}, {"a": "é"}]',
    ],
)
def test_json_holds_rows_in_many_ways(tmp_path: Path, content: str) -> None:
    assert values(written(tmp_path, content.encode(), "rows.json")) == [{"a": 1}, {"a": "é"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"conversations": [{"from": "human", "value": "q"}], "id": [1]},
    ],
)
def test_a_json_file_may_hold_a_single_row(tmp_path: Path, row: dict[str, Any]) -> None:
    assert values(written(tmp_path, json.dumps(row, indent=1).encode(), "rows.json")) == [row]


def test_json_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_PIECE", 7)
    many = [{"text": "é" * size, "n": [size]} for size in range(40)]
    for content in (json.dumps(many), json.dumps(many, ensure_ascii=False, indent=2)):
        assert values(written(tmp_path, content.encode(), "rows.json")) == many


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b'[\n{"a": 1},\n{"a": }\n]', 3, "not valid JSON"),
        (b'[{"a": 1}\n{"a": 2}]', 2, "comma"),
        (b'[{"a": 1},\n 2]', 2, "a number, not an object"),
        (b'[{"a": 1}', 1, "comma"),
        (b'[{"a": 1}]\nmore', 2, "follows"),
        (b'[{"a": "\xff"}]', 1, "not UTF-8"),
        (b'[\n\n{"a": "\xff"}]', 3, "not UTF-8"),
        (b'"text"', 1, "a string"),
        (b'[{"a": ' + b"[" * 100_000, 1, "nested too deeply"),
        (b'[{"a": ' + b"9" * 5000 + b"}]", 1, "out of range"),
        (b"{", 1, "not valid JSON"),
    ],
)
def test_a_broken_document_names_the_line(tmp_path: Path, content: bytes, line: int, why: str) -> None:
    with pytest.raises(DataError, match=f"Line {line} of .*rows.json") as caught:
        rows(written(tmp_path, content, "rows.json"))
    assert why in caught.value.why


def test_a_row_in_a_document_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_LINE_BYTES", 1024)
    monkeypatch.setattr(json_rows, "_PIECE", 100)
    with pytest.raises(DataError, match="Line 2"):
        rows(written(tmp_path, b'[{"a": 1},\n{"a": "' + b"x" * 10_000 + b'"}]', "rows.json"))


def test_several_lists_in_a_document_are_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="several lists of rows") as caught:
        rows(written(tmp_path, b'{"train": [{"a": 1}], "test": [{"a": 2}]}', "rows.json"))
    assert "data.evaluation.source" in caught.value.hint


# Tables


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_table_is_recognised(tmp_path: Path, sign: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=sign).writerows([["prompt", "completion"], ["a, b; c | d", "x\n\ny"], ['"', "é\t"]])
    path = written(tmp_path, out.getvalue().encode(), "rows.csv")
    assert [(row.number, row.values) for row in rows(path)] == [
        (2, {"prompt": "a, b; c | d", "completion": "x\n\ny"}),
        (5, {"prompt": '"', "completion": "é\t"}),
    ]


def test_a_tsv_is_parted_by_tabs(tmp_path: Path) -> None:
    assert values(written(tmp_path, b"a,b\tc\n1,2\t3\n", "rows.tsv")) == [{"a,b": "1,2", "c": "3"}]


def test_blank_lines_between_rows_of_a_table_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n\r\n", "rows.csv")
    assert [(row.number, row.values) for row in rows(path)] == [(3, {"a": "1", "b": "2"})]


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b"a,b\n1,2\n1,2,3\n", 3, "3 fields where the first line names 2"),
        (b"a,b\n1\n", 2, "1 fields"),
        (b'a,b\n1,2\n"x,2\n\n3,4\n', 3, "not valid CSV"),
        (b'a,b\n"x"y,2\n', 2, "not valid CSV"),
        (b"a,a\n1,2\n", 1, "Two columns are called 'a'"),
        (b"a,b\n1,\xff\n", 2, "not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), 1, "NUL"),
    ],
)
def test_a_broken_table_names_the_line(tmp_path: Path, content: bytes, line: int, why: str) -> None:
    with pytest.raises(DataError, match=f"Line {line} of .*rows.csv") as caught:
        rows(written(tmp_path, content, "rows.csv"))
    assert why in caught.value.why


def test_columns_without_a_name_get_one(tmp_path: Path) -> None:
    assert values(written(tmp_path, b",text\n0,a\n", "rows.csv")) == [{"column 1": "0", "text": "a"}]


def test_a_table_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Line 1"):
        rows(written(tmp_path, b",".join(b"%d" % n for n in range(20_000)) + b"\n", "rows.csv"))
    monkeypatch.setattr(table_rows, "MAX_ROW_BYTES", 1024)
    with pytest.raises(DataError, match="longer than"):
        rows(written(tmp_path, b'a,b\n1,"' + b"x\n" * 2000, "rows.csv"))


# Text


def test_a_text_has_a_row_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, b"one\r\ntwo\n\nthree", "rows.txt")
    assert [(row.number, row.values["text"]) for row in rows(path)] == [(1, "one"), (2, "two"), (4, "three")]


def test_a_text_of_paragraphs_has_a_row_for_each(tmp_path: Path) -> None:
    path = written(tmp_path, b"\none\ntwo\n\n\nthree\nfour\n\nfive\n", "rows.txt")
    assert [(row.number, row.values["text"]) for row in rows(path)] == [
        (2, "one\ntwo"),
        (6, "three\nfour"),
        (9, "five"),
    ]


# Packed files


def packed(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"a": "1"}\n{"a": "2"}'),
        ("rows.json", b'[{"a": "1"}, {"a": "2"}]'),
        ("rows.csv", b"a\n1\n2\n"),
    ],
)
def test_packed_files_are_unpacked(tmp_path: Path, suffix: str, name: str, content: bytes) -> None:
    path = written(tmp_path, packed(content, suffix), name + suffix)
    assert values(path) == [{"a": "1"}, {"a": "2"}]
    assert values(path, "train[-50%:]") == [{"a": "2"}]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_off_names_the_line(tmp_path: Path, suffix: str) -> None:
    content = b"".join(b'{"a": "%s"}\n' % hashlib.sha256(b"%d" % n).hexdigest().encode() for n in range(5000))
    whole = packed(content, suffix)
    for damaged in (whole[: len(whole) // 2], whole[:100] + bytes(100) + whole[200:], b"oops"):
        with pytest.raises(DataError, match=r"Line \d+ of .*rows") as caught:
            rows(written(tmp_path, damaged, "rows.jsonl" + suffix))
        assert caught.value.hint


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("line", [b'{"a": 1}\n', b'{"a": "' + b"x" * 10_000 + b'"}\n'])
def test_a_bomb_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, line: bytes) -> None:
    monkeypatch.setattr(files, "UNPACKED_UNCHECKED", 1 << 20)
    path = written(tmp_path, packed(line * (50_000_000 // len(line)), suffix), "rows.jsonl" + suffix)
    with pytest.raises(DataError, match=r"Line \d+ of .*is not read") as caught:
        for _ in read_rows(find_source(str(path))):
            pass
    assert "250 times its size" in caught.value.why


# What a source names


def test_a_source_names_a_file(ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_source(str(ten))
    assert source.files is not None
    assert [file.path for file in source.files] == [ten]
    assert source.is_light
    assert row_count(source) == 10
    monkeypatch.setenv("HOME", str(ten.parent))
    assert find_source("~/ten.jsonl").files is not None


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.parquet.gz", "rows.zip"])
def test_other_files_are_refused_with_what_is_supported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        find_source(str(tmp_path / name))
    assert ".jsonl" in caught.value.why


@pytest.mark.parametrize("name", ["owner/data-set", "imdb"])
def test_hub_ids_are_recognised(name: str) -> None:
    source = find_source(name, "train[:5]", "plain", "v1")
    assert (source.files, source.subset, source.revision, source.asked) == (None, "plain", "v1", "train[:5]")
    assert not source.is_light


@pytest.mark.parametrize("name", ["https://huggingface.co/datasets/a/b", "hf://datasets/a/b"])
def test_addresses_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="is an address"):
        find_source(name)


@pytest.mark.parametrize("name", ["./nowhere", "nowhere/", "a/b/c", "nowhere.csv", "a--b", "x y"])
def test_a_missing_path_is_never_a_hub_id(name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_source(name)


def test_files_have_no_subset_and_no_revision(ten: Path) -> None:
    with pytest.raises(DataError, match="no subset 'x'"):
        find_source(str(ten), subset="x")
    with pytest.raises(DataError, match="no revision 'x'"):
        find_source(str(ten), revision="x")


def test_a_misspelt_file_gets_its_neighbour(ten: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_source(str(ten.with_name("tenn.jsonl")))
    assert "'ten.jsonl'" in caught.value.hint


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-here/x.jsonl"])
def test_an_impossible_path_is_an_error_not_a_crash(name: str) -> None:
    with pytest.raises(DataError):
        find_source(name)


def test_the_fingerprint_is_the_sha256_of_the_bytes(ten: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    found = fingerprint(find_source(str(ten)), lambda done, total: calls.append((done, total)))
    assert found == hashlib.sha256(ten.read_bytes()).hexdigest()
    assert calls == [(ten.stat().st_size, ten.stat().st_size)]


def test_the_bundled_samples_are_there() -> None:
    assert sample_names() == ["spam", "spam-heldout"]
    assert len(list(read_rows(find_source("bundled:spam")))) == 400
    with pytest.raises(DataError, match="no bundled sample 'ham'") as caught:
        find_source("bundled:ham")
    assert "bundled:spam" in caught.value.why


# Folders


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    written(tmp_path, b'{"n": 2}\n{"n": 3}\n', "data/b.jsonl")
    written(tmp_path, gzip.compress(b'{"n": 0}\n\n{"n": 1}\n'), "data/a.jsonl.gz")
    for name in ("README.md", "LICENSE.txt", ".hidden.jsonl", "dataset_info.json", ".cache/x.jsonl"):
        written(tmp_path, b"x", f"data/{name}")
    folder = tmp_path / "data"
    assert numbers(folder, "train") == [0, 1, 2, 3]
    assert numbers(folder, "train[1:3]") == [1, 2]
    assert numbers(folder, "train[-25%:]") == [3]
    found = rows(folder)
    assert [row.number for row in found] == [1, 2, 3, 4]
    assert found[1].place.startswith("row 3 of '")
    first = fingerprint(find_source(str(folder)))
    written(tmp_path, b'{"n": 9}\n', "data/b.jsonl")
    assert fingerprint(find_source(str(folder))) != first


def test_files_of_a_folder_tell_their_split(tmp_path: Path) -> None:
    written(tmp_path, b'{"n": 0}\n', "data/train-00000-of-00002.jsonl")
    written(tmp_path, b'{"n": 1}\n', "data/train-00001-of-00002.jsonl")
    written(tmp_path, b'{"n": 2}\n', "data/dev.jsonl")
    written(tmp_path, b'{"n": 3}\n', "data/test/part.jsonl")
    folder = tmp_path / "data"
    assert [numbers(folder, split) for split in ("train", "validation", "test")] == [[0, 1], [2], [3]]
    assert values(folder, None) == [{"n": 3}]
    with pytest.raises(DataError, match="no split 'eval'") as caught:
        rows(folder, "eval")
    assert "validation" in caught.value.why
    written(tmp_path, b'{"n": 4}\n', "data/more.jsonl")
    with pytest.raises(DataError, match="not clear which files"):
        rows(folder)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("my_train_v2.csv", "train"),
        ("data/validation/x.json", "validation"),
        ("test/train-of-thought.jsonl", "train"),
        ("training-set.csv", "train"),
        ("contest.csv", None),
        ("constraint/rows.csv", None),
        ("eval.json", "test"),
    ],
)
def test_a_name_tells_its_split(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_files_of_different_kinds_are_not_mixed(tmp_path: Path) -> None:
    written(tmp_path, b'{"n": 0}\n', "data/a.jsonl")
    written(tmp_path, b"n\n0\n", "data/b.csv")
    with pytest.raises(DataError, match="of different kinds"):
        find_source(str(tmp_path / "data"))


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no data file"):
        find_source(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        find_source(str(tmp_path / "rows.jsonl"))


# Evaluation rows


def test_evaluation_rows_come_from_where_the_config_says(tmp_path: Path) -> None:
    written(tmp_path, b'{"n": 0}\n', "data/train.jsonl")
    written(tmp_path, b'{"n": 1}\n', "data/validation.jsonl")
    other = written(tmp_path, b'{"n": 2}\n', "other.jsonl")

    def found(**evaluation: Any) -> list[dict[str, Any]] | None:
        section = DataSection.model_validate({"source": str(tmp_path / "data"), "evaluation": evaluation})
        source = evaluation_source(section)
        return None if source is None else [row.values for row in read_rows(source)]

    assert found() is None
    assert found(source=str(other)) == [{"n": 2}]
    assert found(source=str(tmp_path / "data")) == [{"n": 1}]
    assert found(split="validation") == [{"n": 1}]
    assert found(split="train[:1]") == [{"n": 0}]


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="It is a spreadsheet") as caught:
        find_source(str(tmp_path / "rows.xlsx"))
    assert "CSV" in caught.value.hint
