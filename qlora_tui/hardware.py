"""The machine as one frozen snapshot: GPUs, processor, memory, disks; and live samples of a GPU.

Nothing here raises because of the machine: what cannot be read is None, and a machine without a GPU says why.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from qlora_tui.gpus import Capability, Gpu, GpuMemory, GpuProcess, MigInstance, read_driver, supports_bf16
from qlora_tui.nvml import Nvml
from qlora_tui.paths import cache_directory, downloads_directory, runs_directory
from qlora_tui.sampler import GpuSample, Sampler
from qlora_tui.text import one_line

__all__ = [
    "Capability", "Cpu", "Disk", "Gpu", "GpuMemory", "GpuProcess", "GpuSample", "Hardware", "Memory", "MigInstance",
    "Nvml", "Sampler", "read_cpu", "read_disks", "read_memory", "snapshot", "supports_bf16",
]  # fmt: skip

# What decides how fast a 4-bit product and a bf16 one run on the processor; Arm names come last.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16", "sve")
# A limit above this is how version 1 of control groups writes "none".
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor."""

    name: str
    """Printable; "unknown" if the system does not tell."""
    cores: int | None
    """Physical cores."""
    threads: int | None
    """Logical cores of the machine."""
    usable: int | None
    """Logical cores that this process may run on."""
    flags: tuple[str, ...]
    """Those of :data:`CPU_FLAGS` that it has."""


@dataclass(frozen=True, slots=True)
class Memory:
    """RAM that this process can have, in bytes."""

    total: int
    """The machine's, or the limit of its container if that is smaller."""
    available: int
    limit: int | None = None
    """The container's limit; None if it has none below the machine's memory."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Where something is written."""

    purpose: str
    """``runs``, ``cache`` (converted models, prepared data) or ``downloads`` (the hub's cache)."""
    path: Path
    free: int | None
    """Bytes this user can still write; None if the system does not tell."""
    writable: bool
    """Whether the folder exists and can be written, or can be made."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine at one moment."""

    gpus: tuple[Gpu, ...]
    no_gpu: str | None
    """Why ``gpus`` is empty, as a sentence."""
    driver: str | None
    """Version of the NVIDIA driver."""
    cuda: tuple[int, int] | None
    """The newest CUDA that the driver speaks."""
    cpu: Cpu
    memory: Memory
    disks: tuple[Disk, ...]


def snapshot(nvml: Nvml | None = None) -> Hardware:
    """The machine now; takes a few milliseconds and never raises because of it.

    Args:
        nvml: A stand-in for the module ``pynvml``.
    """
    memory = read_memory()
    driver = read_driver((memory.total, memory.available), nvml)
    return Hardware(
        gpus=driver.gpus,
        no_gpu=driver.problem,
        driver=driver.version,
        cuda=driver.cuda,
        cpu=read_cpu(),
        memory=memory,
        disks=read_disks(),
    )


def read_cpu(root: Path = Path("/")) -> Cpu:
    """The processor; ``root`` is where ``/proc`` is looked for."""
    name, flags = "", frozenset[str]()
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and not name:
                name = value
            elif key.strip() in ("flags", "Features") and not flags:
                flags = frozenset(value.split())
    usable = None
    with suppress(AttributeError, OSError):  # not every system has it
        usable = len(os.sched_getaffinity(0))
    return Cpu(
        name=one_line(name or platform.processor() or platform.machine(), 80) or "unknown",
        cores=psutil.cpu_count(logical=False),
        threads=psutil.cpu_count(),
        usable=usable,
        flags=tuple(flag for flag in CPU_FLAGS if flag in flags),
    )


def read_memory(root: Path = Path("/")) -> Memory:
    """RAM within the limits of this process's control groups; ``root`` holds ``/proc`` and ``/sys``."""
    ram = psutil.virtual_memory()
    total, available, limit = ram.total, ram.available, None
    for most, used in _group_limits(root):
        if most < total:
            total = limit = most
        available = min(available, max(0, most - used))
    return Memory(total, min(available, total), limit)


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of memory, in bytes, of this process's control groups and of all above them."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            files = ("memory.max", "memory.current", "inactive_file")
            yield from _climb(mount, path, files)
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _climb(mount / "memory", path, files)


def _climb(mount: Path, path: str, files: tuple[str, str, str]) -> Iterator[tuple[int, int]]:
    """The limits on the way from a group up to the mount; inside a container only the mount itself may exist."""
    limit, usage, reclaimable = files
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(mount):
            break
        most = _number(folder / limit)
        if most is not None and 0 < most < _NO_LIMIT:
            # Cached file pages count as used but are given back when memory is asked for.
            cached = _statistic(folder / "memory.stat", reclaimable)
            yield most, max(0, (_number(folder / usage) or 0) - cached)


def _number(path: Path) -> int | None:
    """The number in a file; None if there is no such file, or it says ``max``."""
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii", errors="replace"))
    return None


def _statistic(path: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def read_disks() -> tuple[Disk, ...]:
    """Where runs, made files and downloads go."""
    found = []
    for purpose, find in (("runs", runs_directory), ("cache", cache_directory), ("downloads", downloads_directory)):
        with suppress(RuntimeError):  # "~name" of a user who does not exist
            found.append(_disk(purpose, find()))
    return tuple(found)


def _disk(purpose: str, path: Path) -> Disk:
    """The disk of a folder that need not exist yet: its nearest existing parent tells."""
    with suppress(OSError):
        existing = next((each for each in (path, *path.absolute().parents) if each.exists()), None)
        if existing is not None:
            writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
            return Disk(purpose, path, shutil.disk_usage(existing).free, writable)
    return Disk(purpose, path, None, writable=False)
