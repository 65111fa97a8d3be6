"""What this process holds on the GPU, as torch and as the driver count it, and what it may still have."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch

Work = Literal["training", "evaluation"]


@dataclass(frozen=True, slots=True)
class Gauge:
    """Bytes on the GPU.

    Attributes:
        process: What the driver shows for this process now; None if it does not tell.
        context: ``process`` less what torch holds now: CUDA's context, libraries, managed memory.
        free: Free memory of the device now.
        total: Memory of the device.
        capacity: The most that torch may hold in this process, its own share and what is free.
    """

    process: int | None
    context: int | None
    free: int
    total: int
    capacity: int


def read_gauge() -> Gauge | None:
    """All figures now; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    held = torch.cuda.memory_reserved()
    free, total = torch.cuda.mem_get_info()
    process = _driver_figure()
    capacity = held + free
    with suppress(AttributeError, RuntimeError):  # a cap on the allocator, where this torch can tell it
        capacity = min(capacity, round(total * torch.cuda.get_per_process_memory_fraction()))
    return Gauge(
        process=process,
        context=max(0, process - held) if process is not None else None,
        free=free,
        total=total,
        capacity=capacity,
    )


class Peaks:
    """Peaks of allocated memory apart by what was being done, and of reserved memory, since the run's beginning."""

    def __init__(self) -> None:
        self._settled = {"training": 0, "evaluation": 0}
        self._reserved = 0

    def settle(self, work: Work) -> None:
        """What was held since the last call was held for ``work``."""
        if torch.cuda.is_available():
            self._settled[work] = max(self._settled[work], torch.cuda.max_memory_allocated())
            self._reserved = self.reserved or 0
            torch.cuda.reset_peak_memory_stats()

    def forget(self) -> None:
        """Begin anew: what was held so far was held for an attempt that failed."""
        self._settled = dict.fromkeys(self._settled, 0)
        self._reserved = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def of(self, work: Work) -> int | None:
        """Peak of one kind of work as far as it is settled; None without a GPU."""
        return self._settled[work] if torch.cuda.is_available() else None

    @property
    def allocated(self) -> int | None:
        """Peak of everything; None without a GPU."""
        return max(*self._settled.values(), torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None

    @property
    def reserved(self) -> int | None:
        """Peak of reserved memory; None without a GPU."""
        return max(self._reserved, torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else None


def _driver_figure() -> int | None:
    """NVML's figure for this process on the card that torch uses.

    In a container the driver may know the process by another id. If it shows one process on the card, that is this one.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode())
            found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError, AttributeError):
        return None
    known = {each.pid: each.usedGpuMemory for each in found}
    figure = known.get(os.getpid(), next(iter(known.values())) if len(known) == 1 else None)
    return int(figure) if figure else None


def release_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had no memory left, however the library puts it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    signs = (
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
        "CUDA out of memory",
        "CUDNN_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
