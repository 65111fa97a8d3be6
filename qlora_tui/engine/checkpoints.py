"""Checkpoints that are complete or not there, their rotation, and the newest one to go on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from qlora_tui.runs.files import replace_folder, write_atomic

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"


def staging_folder(checkpoints: Path) -> Path:
    """Where a checkpoint is written before it counts; emptied of what a crash left there."""
    staging = checkpoints / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def publish(staged: Path, checkpoints: Path) -> Path:
    """Make the complete folder ``staged`` a checkpoint, with a manifest of its files' sizes in bytes."""
    sizes = {str(path.relative_to(staged)): path.stat().st_size for path in sorted(staged.rglob("*")) if path.is_file()}
    write_atomic(staged / MANIFEST, json.dumps(sizes, indent=1))
    target = checkpoints / staged.name
    replace_folder(staged, target)
    return target


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint folder; -1 if the name holds none."""
    number = checkpoint.name.removeprefix(PREFIX)
    return int(number) if number.isdecimal() else -1


def is_complete(checkpoint: Path) -> bool:
    """Whether every file of the manifest is there with its size."""
    try:
        sizes = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def complete_checkpoints(checkpoints: Path) -> list[Path]:
    """All checkpoints that can be believed, oldest first."""
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.glob(f"{PREFIX}*") if step_of(path) >= 0 and is_complete(path)]
    return sorted(found, key=step_of)


def rotate(checkpoints: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest complete checkpoints, and whatever is incomplete."""
    kept = set(complete_checkpoints(checkpoints)[-keep:])
    for path in checkpoints.iterdir():
        if path not in kept and path.is_dir() and (path.name.startswith((PREFIX, "."))):
            shutil.rmtree(path, ignore_errors=True)
