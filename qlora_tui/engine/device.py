"""What this process and its device hold and do, as events."""

from __future__ import annotations

import os
import time

import psutil
import torch

from qlora_tui.engine.gauge import Peaks
from qlora_tui.runs.events import Memory
from qlora_tui.sampler import Sampler

SAMPLE_SECONDS = 10.0
"""Least time between two samples while training."""


class DeviceWatch:
    """Samples memory, load, temperature and power; NVML stays open between the samples."""

    def __init__(self) -> None:
        index = _nvml_index() if torch.cuda.is_available() else None
        self._sampler = None if index is None else Sampler(index)
        self._next = 0.0

    def if_due(self, peaks: Peaks) -> Memory | None:
        """A sample, if the last one is old enough."""
        if time.monotonic() < self._next:
            return None
        return self.sample(peaks)

    def sample(self, peaks: Peaks) -> Memory:
        """The device and this process now, with the peaks so far."""
        self._next = time.monotonic() + SAMPLE_SECONDS
        free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (None, None)
        process = psutil.Process().memory_info().rss
        if self._sampler is None:
            return Memory(allocated=peaks.allocated, reserved=peaks.reserved, process=process, moment="step")
        seen = self._sampler.sample()
        return Memory(
            allocated=peaks.allocated,
            reserved=peaks.reserved,
            process=process,
            device_free=free,
            device_total=total,
            utilisation=seen.utilisation,
            temperature=seen.temperature,
            power=seen.power,
            power_limit=seen.power_limit,
            throttled=seen.throttled,
            moment="step",
        )


def _nvml_index() -> int | None:
    """The number that NVML gives this process's GPU; None if it cannot be told."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.isdecimal():
        return int(first)
    from qlora_tui.gpus import read_driver

    ram = psutil.virtual_memory()
    cards = read_driver((ram.total, ram.available)).gpus
    return next((card.index for card in cards if card.uuid and first and card.uuid.startswith(first)), None)
