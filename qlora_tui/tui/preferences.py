"""What a person has chosen about the application itself, kept in one small file."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from qlora_tui.paths import state_directory
from qlora_tui.runs.files import write_atomic

DEFAULT_THEME: Final = "qlora-dark"


@dataclass(frozen=True, slots=True)
class Preferences:
    """Kept between sessions; whatever of the file cannot be read has its default."""

    theme: str = DEFAULT_THEME
    ascii: bool = False
    """Draw with ASCII characters only."""
    motion: bool = True
    """Animate; a slow connection is better off without."""
    keymap: dict[str, str] = field(default_factory=dict)
    """Binding id -> keys, separated by commas; ids are listed in the help."""

    def with_theme(self, theme: str) -> Preferences:
        return replace(self, theme=theme)


def preferences_file() -> Path:
    """Where they are kept."""
    return state_directory() / "preferences.json"


def load_preferences(path: Path | None = None) -> Preferences:
    """The kept preferences; the environment's ``TEXTUAL_THEME`` goes before the kept theme."""
    values: Any = None
    with suppress(OSError, ValueError, RecursionError):
        values = json.loads((path or preferences_file()).read_text(encoding="utf-8"))
    loaded = _read(values if isinstance(values, dict) else {})
    theme = os.environ.get("TEXTUAL_THEME")
    return loaded.with_theme(theme) if theme else loaded


def _read(values: dict[str, Any]) -> Preferences:
    theme, keymap = values.get("theme"), values.get("keymap")
    keys = keymap.items() if isinstance(keymap, dict) else ()
    return Preferences(
        theme=theme if isinstance(theme, str) and theme else DEFAULT_THEME,
        ascii=values.get("ascii") is True,
        motion=values.get("motion") is not False,
        keymap={str(name): key for name, key in keys if isinstance(key, str) and key},
    )


def save_preferences(preferences: Preferences, path: Path | None = None) -> None:
    """Keep them; a state folder that cannot be written is no reason to fail."""
    path = path or preferences_file()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(preferences), indent=2) + "\n")
