"""NVIDIA GPUs as NVML sees them, field by field: what one card or driver does not tell is None, never an error.

Values that NVML fails to give are common and harmless (a laptop has no power limit, a unified-memory chip no memory of
its own), so every field is read on its own and the reasons are kept beside the values. Names come from the driver and
from other people's processes: they are made printable here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qlora_tui.nvml import Nvml, Reader, Session, text_of
from qlora_tui.text import one_line

Capability = tuple[int, int]

BF16_CAPABILITY: Capability = (8, 0)
# Chips whose GPU works in the machine's own memory: Xavier, Orin, Thor (two numbers for it), GB10.
_UNIFIED_CAPABILITIES = frozenset({(7, 2), (8, 7), (10, 1), (11, 0), (12, 1)})
_UNIFIED_NAMES = ("gb10", "orin", "thor", "tegra", "xavier")


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of a GPU or of a part of one, in bytes."""

    total: int
    free: int
    """What a new process can have now."""
    reserved: int | None = None
    """What the driver keeps for itself, within what is not free; None if it does not say."""

    @property
    def used(self) -> int:
        """Everything that is not free, the driver's share included."""
        return self.total - self.free


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    name: str | None
    """Printable; None if the process is not ours to see (another container's, another user's)."""
    memory: int | None
    """Bytes; None where the driver does not tell."""


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A partition of a GPU that counts as a device of its own."""

    index: int
    uuid: str | None
    name: str | None
    memory: GpuMemory | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment."""

    index: int
    """In NVML's order, that of the PCI bus; CUDA's own order may differ, the ``uuid`` does not."""
    name: str
    """Printable; "GPU" if the driver gives none."""
    uuid: str | None = None
    memory: GpuMemory | None = None
    capability: Capability | None = None
    processes: tuple[GpuProcess, ...] | None = None
    ecc: bool | None = None
    mig: bool | None = None
    """Whether the card is partitioned: then only its ``instances`` can be used."""
    instances: tuple[MigInstance, ...] = ()
    unified: bool | None = None
    """Whether the GPU works in the machine's RAM; ``memory`` then is that RAM."""
    unread: tuple[tuple[str, str], ...] = ()
    """What could not be read although it should be there: field and the driver's reason."""

    @property
    def bf16(self) -> bool | None:
        """Whether it computes in bf16; None if its capability is unknown."""
        return supports_bf16(self.capability)

    @property
    def bf16_reason(self) -> str:
        """Why it does or does not compute in bf16, as a sentence."""
        if self.capability is None:
            return "The driver does not tell the compute capability, so bf16 is uncertain."
        shown = ".".join(map(str, self.capability))
        if self.bf16:
            return f"Compute capability {shown}: bf16 needs 8.0 or more."
        return f"Compute capability {shown} is below 8.0, so fp16 takes the place of bf16."


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVML tells about the machine; ``gpus`` is empty for the reason in ``problem``."""

    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    version: str | None = None
    cuda: tuple[int, int] | None = None
    """The newest CUDA that the driver speaks."""


def supports_bf16(capability: Capability | None) -> bool | None:
    """Whether a GPU of this compute capability computes in bf16; None if it is unknown."""
    return None if capability is None else capability >= BF16_CAPABILITY


def read_driver(ram: tuple[int, int], library: Nvml | None = None) -> Driver:
    """Everything NVML tells now.

    Args:
        ram: The machine's memory, total and available, in bytes: the memory of a GPU that has none of its own.
        library: A stand-in for ``pynvml``.
    """
    with Session(library) as session:
        if session.library is None:
            return Driver(problem=session.problem)
        nvml = session.library
        reader = Reader()
        version = text_of(reader.read("driver version", lambda: nvml.nvmlSystemGetDriverVersion()))
        cuda = reader.read("CUDA version", lambda: int(nvml.nvmlSystemGetCudaDriverVersion_v2()))
        count = reader.read("number of GPUs", lambda: int(nvml.nvmlDeviceGetCount()))
        gpus = tuple(_read_gpu(nvml, index, ram) for index in range(count or 0))
        problem = None
        if count is None:
            reason = reader.unread[-1][1] if reader.unread else "not supported"
            problem = f"The NVIDIA driver does not tell its GPUs ({reason})."
        elif count == 0:
            problem = "The NVIDIA driver runs but sees no GPU."
        return Driver(gpus, problem, version, None if cuda is None else (cuda // 1000, cuda % 1000 // 10))


def _read_gpu(nvml: Nvml, index: int, ram: tuple[int, int]) -> Gpu:
    reader = Reader()
    handle = reader.read("device", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return Gpu(index, "GPU", unread=tuple(reader.unread) or (("device", "not supported"),))
    name = text_of(reader.read("name", lambda: nvml.nvmlDeviceGetName(handle))) or "GPU"
    capability = reader.read("compute capability", lambda: to_pair(nvml.nvmlDeviceGetCudaComputeCapability(handle)))
    unified = is_unified(name, capability)
    memory = GpuMemory(*ram) if unified else read_gpu_memory(nvml, handle, reader)
    ecc = reader.read("ECC", lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]))
    mig = reader.read("MIG", lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]))
    return Gpu(
        index=index,
        name=name,
        uuid=text_of(reader.read("uuid", lambda: nvml.nvmlDeviceGetUUID(handle))),
        memory=memory,
        capability=capability,
        processes=_read_processes(nvml, handle, reader),
        ecc=ecc,
        mig=mig,
        instances=_read_instances(nvml, handle) if mig else (),
        unified=unified,
        unread=tuple(reader.unread),
    )


def to_pair(numbers: Sequence[int]) -> Capability:
    """NVML's pair of numbers."""
    major, minor = numbers
    return int(major), int(minor)


def is_unified(name: str, capability: Capability | None) -> bool | None:
    """NVML has no such flag for all chips, and where memory is shared its memory calls fail or mislead."""
    if capability is not None:
        return capability in _UNIFIED_CAPABILITIES
    return True if any(part in name.lower() for part in _UNIFIED_NAMES) else None


def read_gpu_memory(nvml: Nvml, handle: Any, reader: Reader) -> GpuMemory | None:
    """Memory of a card or of a partition; None if the driver does not tell, or tells nonsense."""
    # Only the second version tells the driver's own share; drivers before 510 have the first alone.
    with suppress(Exception):
        info = nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)
        return _checked(int(info.total), int(info.free), int(info.reserved))
    return reader.read("memory", lambda: _plain_memory(nvml.nvmlDeviceGetMemoryInfo(handle)))


def _plain_memory(info: Any) -> GpuMemory:
    return _checked(int(info.total), int(info.free), None)


def _checked(total: int, free: int, reserved: int | None) -> GpuMemory:
    if total <= 0 or not 0 <= free <= total:
        raise ValueError(f"{free} of {total} bytes free")
    return GpuMemory(total, free, reserved)


def _read_processes(nvml: Nvml, handle: Any, reader: Reader) -> tuple[GpuProcess, ...] | None:
    """Processes that compute or draw on the GPU, the largest first; one that does both is told once."""
    computing = reader.read("processes", lambda: list(nvml.nvmlDeviceGetComputeRunningProcesses(handle)))
    drawing = reader.read("processes", lambda: list(nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)))
    if computing is None and drawing is None:
        return None
    held: dict[int, int | None] = {}
    for process in [*(computing or []), *(drawing or [])]:
        with suppress(Exception):
            pid, memory = int(process.pid), getattr(process, "usedGpuMemory", None)
            known = [int(each) for each in (memory, held.get(pid)) if each is not None]
            held[pid] = max(known, default=None)
    found = [GpuProcess(pid, _process_name(pid), memory) for pid, memory in held.items()]
    return tuple(sorted(found, key=lambda process: (-(process.memory or 0), process.pid)))


def _process_name(pid: int) -> str | None:
    import psutil  # not needed by those who only ask about kinds of cards

    with suppress(psutil.Error, OSError, ValueError, OverflowError):
        return one_line(psutil.Process(pid).name(), 60) or None
    return None


def _read_instances(nvml: Nvml, handle: Any) -> tuple[MigInstance, ...]:
    """The partitions that exist; their numbers have gaps, which NVML reports as errors."""
    most = Reader().read("instances", lambda: int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))) or 0
    found = (_read_instance(nvml, handle, index) for index in range(most))
    return tuple(instance for instance in found if instance is not None)


def _read_instance(nvml: Nvml, handle: Any, index: int) -> MigInstance | None:
    reader = Reader()
    part = reader.read("instance", lambda: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
    if part is None:
        return None
    return MigInstance(
        index=index,
        uuid=text_of(reader.read("uuid", lambda: nvml.nvmlDeviceGetUUID(part))),
        name=text_of(reader.read("name", lambda: nvml.nvmlDeviceGetName(part))),
        memory=read_gpu_memory(nvml, part, reader),
    )
