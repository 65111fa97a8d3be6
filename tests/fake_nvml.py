"""A stand-in for the module ``pynvml`` with cards as described; it fails where it is told to, as the real one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 1 << 30


@dataclass
class FakeCard:
    """A card, or an instance of one; ``broken`` maps a function's name to the error code it fails with."""

    name: Any = "NVIDIA GeForce RTX 3060"
    uuid: str = "GPU-0000"
    total: int = 12 * GIB
    free: int = 11 * GIB
    reserved: int = GIB // 4
    capability: tuple[int, int] = (8, 6)
    ecc: int | None = None
    mig: int | None = None
    instances: dict[int, FakeCard] = field(default_factory=dict)
    computing: list[tuple[int, int | None]] = field(default_factory=list)
    drawing: list[tuple[int, int | None]] = field(default_factory=list)
    throttle: int = 0
    broken: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """Has the functions of ``pynvml`` that are used, raising its own exceptions."""

    nvmlMemory_v2 = 0x02000028  # noqa: N815

    def __init__(self, *cards: FakeCard, broken: dict[str, int] | None = None) -> None:
        self.cards = list(cards)
        self.broken = broken or {}
        self.running = 0

    def _call(self, function: str, card: FakeCard | None = None) -> None:
        for table in (self.broken, card.broken if card is not None else {}):
            if (code := table.get(function, table.get("*"))) is not None:
                raise pynvml.NVMLError(code)
        if not self.running:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def nvmlInit(self) -> None:  # noqa: N802
        self.running += 1
        try:
            self._call("nvmlInit")
        except pynvml.NVMLError:
            self.running -= 1
            raise

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._call("nvmlShutdown")
        self.running -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._call("nvmlSystemGetDriverVersion")
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        self._call("nvmlSystemGetCudaDriverVersion_v2")
        return 13010

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._call("nvmlDeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:  # noqa: N802
        if index >= len(self.cards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        self._call("nvmlDeviceGetHandleByIndex", self.cards[index])
        return self.cards[index]

    def nvmlDeviceGetName(self, handle: FakeCard) -> Any:  # noqa: N802
        self._call("nvmlDeviceGetName", handle)
        return handle.name

    def nvmlDeviceGetUUID(self, handle: FakeCard) -> str:  # noqa: N802
        self._call("nvmlDeviceGetUUID", handle)
        return handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: FakeCard, version: int | None = None) -> Any:  # noqa: N802
        self._call("nvmlDeviceGetMemoryInfo" if version is None else "nvmlDeviceGetMemoryInfo_v2", handle)
        self._call("nvmlDeviceGetMemoryInfo", handle)
        used = handle.total - handle.free
        if version is None:
            return SimpleNamespace(total=handle.total, free=handle.free, used=used)
        return SimpleNamespace(
            total=handle.total, free=handle.free, reserved=handle.reserved, used=used - handle.reserved
        )

    def nvmlDeviceGetCudaComputeCapability(self, handle: FakeCard) -> Sequence[int]:  # noqa: N802
        self._call("nvmlDeviceGetCudaComputeCapability", handle)
        return handle.capability

    def nvmlDeviceGetEccMode(self, handle: FakeCard) -> Sequence[int]:  # noqa: N802
        self._call("nvmlDeviceGetEccMode", handle)
        return [_supported(handle.ecc)] * 2

    def nvmlDeviceGetMigMode(self, handle: FakeCard) -> Sequence[int]:  # noqa: N802
        self._call("nvmlDeviceGetMigMode", handle)
        return [_supported(handle.mig)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeCard) -> int:  # noqa: N802
        self._call("nvmlDeviceGetMaxMigDeviceCount", handle)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: FakeCard, index: int) -> FakeCard:  # noqa: N802
        self._call("nvmlDeviceGetMigDeviceHandleByIndex", handle)
        if index not in handle.instances:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle.instances[index]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeCard) -> Sequence[Any]:  # noqa: N802
        self._call("nvmlDeviceGetComputeRunningProcesses", handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in handle.computing]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: FakeCard) -> Sequence[Any]:  # noqa: N802
        self._call("nvmlDeviceGetGraphicsRunningProcesses", handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in handle.drawing]

    def nvmlDeviceGetUtilizationRates(self, handle: FakeCard) -> Any:  # noqa: N802
        self._call("nvmlDeviceGetUtilizationRates", handle)
        return SimpleNamespace(gpu=97, memory=40)

    def nvmlDeviceGetTemperature(self, handle: FakeCard, sensor: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetTemperature", handle)
        return 71 + sensor

    def nvmlDeviceGetTemperatureV(self, handle: FakeCard, sensor: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetTemperatureV", handle)
        return 72 + sensor

    def nvmlDeviceGetPowerUsage(self, handle: FakeCard) -> int:  # noqa: N802
        self._call("nvmlDeviceGetPowerUsage", handle)
        return 168_500

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeCard) -> int:  # noqa: N802
        self._call("nvmlDeviceGetEnforcedPowerLimit", handle)
        return 170_000

    def nvmlDeviceGetClockInfo(self, handle: FakeCard, kind: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetClockInfo", handle)
        return {0: 1800, 1: 1777, 2: 7500}[kind]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeCard) -> int:  # noqa: N802
        self._call("nvmlDeviceGetCurrentClocksEventReasons", handle)
        return handle.throttle

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: FakeCard) -> int:  # noqa: N802
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return handle.throttle


def _supported(value: int | None) -> int:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value
