"""Where files live: the platform's folders, each with an environment override.

``QLORA_TUI_HOME`` moves all of them below one folder, which is what the tests and throw-away machines want.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APPLICATION = "qlora-tui"


def _folder(variable: str, name: str, default: str) -> Path:
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    if home := os.environ.get("QLORA_TUI_HOME"):
        return Path(home).expanduser() / name
    return Path(default)


def runs_directory() -> Path:
    """The default folder of run directories (``QLORA_TUI_RUNS``)."""
    return _folder("QLORA_TUI_RUNS", "runs", platformdirs.user_data_dir(APPLICATION) + "/runs")


def cache_directory() -> Path:
    """What can be made again at any time: converted models, prepared data (``QLORA_TUI_CACHE``)."""
    return _folder("QLORA_TUI_CACHE", "cache", platformdirs.user_cache_dir(APPLICATION))


def state_directory() -> Path:
    """What this machine has learnt and the user has chosen: measurements, preferences (``QLORA_TUI_STATE``)."""
    return _folder("QLORA_TUI_STATE", "state", platformdirs.user_state_dir(APPLICATION))


def downloads_directory() -> Path:
    """Where the hub's client keeps its files, by the environment variables it obeys."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(chosen)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def all_paths() -> dict[str, Path]:
    """Every folder by its name, for ``qlora-tui paths``."""
    return {"runs": runs_directory(), "cache": cache_directory(), "state": state_directory()}
