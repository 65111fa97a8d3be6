"""Files that are either whole or not there."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``: a reader sees the old file or the new one, also after a power cut.

    Raises:
        OSError: if the folder cannot be written or the disk is full; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder`` to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def replace_folder(source: Path, target: Path) -> None:
    """Move the complete folder ``source`` to ``target``, replacing what is there.

    A crash in between leaves the old folder beside the new one under a name that starts with a dot, never half of each.
    """
    sync_tree(source)
    retired = target.with_name(f".{target.name}.retired-{uuid.uuid4().hex[:8]}")
    if target.exists():
        target.replace(retired)
    source.replace(target)
    sync_folder(target.parent)
    shutil.rmtree(retired, ignore_errors=True)
