"""The tokenizer of a GGUF file: taken out once, with news meanwhile, and not for longer than somebody waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlora_tui.engine import tokenizer_files
from qlora_tui.engine.inspection import Cancelled
from qlora_tui.engine.tokenizer_files import tokenizer_folder
from qlora_tui.errors import ModelError
from qlora_tui.models.sources import ModelFiles

WRITES = "import pathlib, sys; folder = pathlib.Path(sys.argv[3]); folder.mkdir(); (folder / 'tokenizer.json').touch()"


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return ModelFiles(
        "model.gguf", "gguf", tmp_path / "cache" / "model", None, tmp_path / "model.gguf", False, None, False
    )


def test_it_is_taken_out_once_and_told(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "_TAKE_OUT", WRITES)
    told: list[int] = []
    folder = tokenizer_folder(files, told.append)
    assert (folder / "tokenizer.json").is_file()
    assert told[0] == 0
    told.clear()
    assert tokenizer_folder(files, told.append) == folder
    assert told == []


def test_nobody_waits_any_longer(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "_TAKE_OUT", "import signal; signal.pause()")

    def leave(_seconds: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        tokenizer_folder(files, leave)
    assert not files.folder.parent.exists() or not any(files.folder.parent.iterdir())


def test_what_went_wrong_is_told(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "_TAKE_OUT", "raise SystemExit('no such architecture')")
    with pytest.raises(ModelError, match="no such architecture"):
        tokenizer_folder(files, lambda _seconds: None)
