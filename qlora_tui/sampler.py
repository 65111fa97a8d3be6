"""What a GPU is doing, moment by moment, as NVML tells it: what it does not tell is None, never an error."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qlora_tui.gpus import GpuMemory, is_unified, read_gpu_memory, to_pair
from qlora_tui.nvml import Nvml, Reader, Session, either, text_of

_TEMPERATURE_OF_GPU, _CLOCK_OF_SM = 0, 1
# Bits of NVML's mask; the others mean that nothing holds the clocks down against the user's will.
_THROTTLE_REASONS = (
    (0x04, "power limit"),
    (0x08, "hardware slowdown"),
    (0x20, "temperature"),
    (0x40, "temperature, by hardware"),
    (0x80, "power brake"),
)


@dataclass(frozen=True, slots=True)
class GpuSample:
    """What a GPU is doing at one moment; None where it does not tell."""

    utilisation: int | None = None
    """Percent of the last moments in which some kernel ran."""
    memory_used: int | None = None
    """Bytes that are not free."""
    memory_total: int | None = None
    temperature: int | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""
    power_limit: float | None = None
    """Watts."""
    sm_clock: int | None = None
    """MHz."""
    throttled: tuple[str, ...] | None = None
    """Why the clocks are held down, in words; empty if they are not."""


class Sampler:
    """Samples one GPU again and again and never raises.

    To keep a sample cheap, NVML stays open between the samples; close the sampler, or use it in a ``with``.

    Args:
        index: The GPU in NVML's order.
        library: A stand-in for ``pynvml``.
    """

    def __init__(self, index: int, library: Nvml | None = None) -> None:
        self._session = Session(library).__enter__()
        self._handle: Any = None
        self._unified = False
        if (nvml := self._session.library) is not None:
            with suppress(Exception):
                self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
                reader = Reader()
                capability = reader.read("", lambda: to_pair(nvml.nvmlDeviceGetCudaComputeCapability(self._handle)))
                name = text_of(reader.read("", lambda: nvml.nvmlDeviceGetName(self._handle))) or ""
                self._unified = bool(is_unified(name, capability))

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of NVML; later samples are empty."""
        self._handle = None
        self._session.__exit__(None, None, None)

    def sample(self) -> GpuSample:
        """The GPU now; an empty sample if it is gone."""
        nvml, handle = self._session.library, self._handle
        if nvml is None or handle is None:
            return GpuSample()
        read = Reader().read
        memory = self._memory(nvml, handle)
        power = read("", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        limit = read("", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
        return GpuSample(
            utilisation=read("", lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            memory_used=None if memory is None else memory.used,
            memory_total=None if memory is None else memory.total,
            temperature=either(
                lambda: int(nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_OF_GPU)),
                lambda: int(nvml.nvmlDeviceGetTemperatureV(handle, _TEMPERATURE_OF_GPU)),
            ),
            power=power,
            power_limit=limit,
            sm_clock=read("", lambda: int(nvml.nvmlDeviceGetClockInfo(handle, _CLOCK_OF_SM))),
            throttled=_throttle(nvml, handle),
        )

    def _memory(self, nvml: Nvml, handle: Any) -> GpuMemory | None:
        if self._unified:
            import psutil

            ram = psutil.virtual_memory()
            return GpuMemory(ram.total, ram.available)
        return read_gpu_memory(nvml, handle, Reader())


def _throttle(nvml: Nvml, handle: Any) -> tuple[str, ...] | None:
    mask = either(
        lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
        lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
    )
    return None if mask is None else tuple(text for bit, text in _THROTTLE_REASONS if mask & bit)
