"""What has to be there before an adapter is merged: a free folder, memory, disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from safetensors import safe_open

from qlora_tui.errors import EnvironmentFault, OutOfMemory, UsageError
from qlora_tui.hardware import read_memory
from qlora_tui.runs.merges import MERGE_FILE

_GIB = 1 << 30
BYTES_PER_PARAMETER = 2
MEMORY_OVERHEAD = 1.15
"""Of the 16-bit weights: the adapter's product for one layer at a time, and what the libraries hold."""
MEMORY_BASE = 1 * _GIB
DISK_BASE = 64 << 20
"""Tokenizer, settings, and some room."""


def parameters_of(folder: Path) -> int:
    """Parameters in the safetensors files of a model folder, by their headers."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something else, or a merge that may not be replaced.

    Raises:
        UsageError: if so.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    ours = (output / MERGE_FILE).is_file()
    if ours and overwrite:
        return
    raise UsageError(
        f"Cannot write to {output}.",
        "A merged model is there already." if ours else "It exists and holds something else.",
        "Choose another --output, or add --overwrite." if ours else "Choose another --output.",
    )


def check_disk(output: Path, parameters: int) -> None:
    """Refuse if the weights do not fit on the disk.

    Raises:
        EnvironmentFault: if so.
    """
    needed = BYTES_PER_PARAMETER * parameters + DISK_BASE
    place = output.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise EnvironmentFault(
            "The merged model does not fit on the disk.",
            f"It needs {needed / _GIB:.1f} GiB; {place} has {free / _GIB:.1f} GiB free.",
            "Free some space, or choose another --output.",
        )


def check_memory(parameters: int) -> None:
    """Refuse if the base in 16 bits does not fit into main memory.

    Raises:
        OutOfMemory: if so.
    """
    needed = MEMORY_OVERHEAD * BYTES_PER_PARAMETER * parameters + MEMORY_BASE
    available = read_memory().available
    if available < needed:
        raise OutOfMemory(
            "The base does not fit into main memory in 16 bits.",
            f"Merging needs about {needed / _GIB:.1f} GiB; {available / _GIB:.1f} GiB are available.",
            "End other programs, or merge on a machine with more memory; the adapter can be used without merging.",
        )
