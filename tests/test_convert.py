"""A .gguf model is unpacked once, however many processes want it at the same time."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from real_model import converted_model

pytestmark = pytest.mark.full


def test_who_comes_second_waits_and_finds_it_done(tmp_path: Path) -> None:
    from qlora_tui.engine.convert import STAGES, WAITING, convert_gguf

    whole = converted_model()
    # Whoever reads this file fails: it is none.
    files = replace(whole, folder=tmp_path / "models" / "small", gguf=tmp_path / "no.gguf", converted=False)
    files.folder.parent.mkdir()
    told: list[str] = []
    second = threading.Thread(target=convert_gguf, args=(files, lambda _done, _total, what: told.append(what)))
    with files.folder.with_name(".small.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        second.start()
        end = time.monotonic() + 60
        while WAITING not in told:
            assert time.monotonic() < end
            time.sleep(0.01)
        shutil.copytree(whole.folder, files.folder)
    second.join(60)
    assert told == [WAITING, STAGES[-1]]
