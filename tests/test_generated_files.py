"""Some generated files, of which most are damaged: each is inspected, or refused in sentences that name it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz import fuzz
from benchmarks.generated_files import write_file
from qlora_tui.config import DataSection
from qlora_tui.data.encode import Encoder


def test_generated_files_make_no_fault(tokenizer_folder: Path) -> None:
    tally = fuzz(70_000, 30, Encoder.from_folder(tokenizer_folder, DataSection(source="rows.jsonl")))
    assert tally.faults == []
    assert tally.inspected > 5
    assert tally.with_line > 5


def test_a_seed_makes_the_same_file_again(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    for seed in range(20):
        one, other = (write_file(seed, tmp_path / name) for name in ("one", "other"))
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())
