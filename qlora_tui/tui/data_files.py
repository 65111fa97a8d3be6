"""Data files near at hand, to choose from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from qlora_tui.data.source import is_data_name

_MOST_FILES: Final = 40
_MOST_ENTRIES: Final = 4000
_DEPTH: Final = 2


def files_near(folder: Path) -> list[Path]:
    """Files that can be read as rows, in ``folder`` and two levels below it, at most :data:`_MOST_FILES`."""
    found: list[Path] = []
    seen = 0
    for root, folders, names in os.walk(folder, followlinks=False):
        depth = len(Path(root).relative_to(folder).parts)
        folders[:] = [] if depth >= _DEPTH else sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            seen += 1
            if is_data_name(name) and not name.lower().endswith((".txt", ".json")):  # these mostly hold other things
                found.append(Path(root) / name)
        if seen > _MOST_ENTRIES or len(found) >= _MOST_FILES:
            break
    return found[:_MOST_FILES]
