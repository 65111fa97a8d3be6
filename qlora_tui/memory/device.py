"""What a run would have to train on: a GPU of this machine as it is now, a kind of card, or the processor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

from qlora_tui.cards import Card, card_named
from qlora_tui.memory.recipe import GIB, MIB, DeviceFacts
from qlora_tui.memory.speed import CardRates

if TYPE_CHECKING:
    from qlora_tui.gpus import Capability, Gpu, GpuMemory
    from qlora_tui.hardware import Hardware, Memory

_DRIVER_SHARE: Final = 0.02
_LEAST_DRIVER_SHARE: Final = 256 * MIB
"""What the driver of an idle card keeps of the memory it reports: 0.6 to 2 % on the cards that tell."""
_PROCESSOR_CONTEXT: Final = round(0.7 * GIB)
"""Resident size of a process that has imported the libraries and loaded nothing yet."""
_SYSTEM: Final = 2 * GIB
"""What an idle system takes of memory that it shares with its GPU: an allowance, not a measurement."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run would train.

    Attributes:
        total: Bytes, None if unknown.
        free: What a new process can have, in bytes; None if unknown. Of a kind of card: what an idle one has free.
        capability: Compute capability, None on a processor and where the driver does not tell.
        rates: What the card publishes, None where it publishes nothing.
        context: What a process takes besides torch's memory, bytes; None until this machine has been measured.
        pace: Tokens per second of earlier runs on it over what was predicted for them.
        unified: Whether its memory is the machine's own, so that the rest of the process takes of it too.
        planned: Whether it is a kind of card and not one of this machine.
        layer_kernels: Whether liger-kernel is installed beside it; taken for granted in another machine.
        notes: What earlier runs on it say.
    """

    name: str
    kind: Literal["cuda", "cpu"] = "cuda"
    total: int | None = None
    free: int | None = None
    capability: Capability | None = None
    rates: CardRates | None = None
    context: int | None = None
    pace: float = 1.0
    unified: bool = False
    planned: bool = False
    layer_kernels: bool = True
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> DeviceFacts:
        """What enters the sum."""
        default = DeviceFacts()
        if self.kind == "cpu":
            return DeviceFacts(free=self.free, context=_PROCESSOR_CONTEXT, workspace=0, in_ram=True)
        context = default.context if self.context is None else self.context
        return DeviceFacts(
            free=self.free,
            context=context + (_PROCESSOR_CONTEXT if self.unified else 0),
            workspace=default.workspace if self.capability is None else DeviceFacts.workspace_of(self.capability),
        )

    @property
    def bf16(self) -> bool:
        """Whether it computes in bf16; taken for granted where the driver does not tell."""
        return self.kind == "cuda" and (self.capability is None or self.capability >= (8, 0))


def this_device(hardware: Hardware, visible: str | None = None) -> Device:
    """What a run on this machine would train on: of several GPUs the first, or the one that is made visible.

    Args:
        visible: ``CUDA_VISIBLE_DEVICES``, whose first entry counts; the environment's if None.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    found = _visible(hardware.gpus, visible)
    return processor(hardware.cpu.name, hardware.memory) if found is None else device_of(*found, hardware.driver)


def _visible(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, GpuMemory | None] | None:
    """A card, and the memory of it or of its partition; None if there is none or all are hidden."""
    entry = "0" if visible is None else visible.partition(",")[0].strip()
    for gpu in gpus:
        # An id may be cut short as long as it stays the only one.
        if entry == str(gpu.index) or (entry.startswith("GPU-") and (gpu.uuid or "").startswith(entry)):
            return gpu, gpu.instances[0].memory if gpu.mig and gpu.instances else gpu.memory
        for part in gpu.instances:
            if entry.startswith("MIG-") and (part.uuid or "").startswith(entry):
                return gpu, part.memory
    return None


def device_of(gpu: Gpu, memory: GpuMemory | None, driver: str | None) -> Device:
    """A GPU of this machine with what is free of it, or of a partition of it, now.

    Args:
        driver: Its version, None if unknown: what runs with another one measured does not count.
    """
    card = card_named(gpu.name, memory.total if memory else None)
    # Imported here: kinds of cards have no history.
    from qlora_tui.memory.history import calibration

    measured = calibration(gpu.name, driver=driver)
    return Device(
        name=gpu.name,
        total=memory.total if memory else None,
        free=memory.free if memory else None,
        capability=gpu.capability,
        rates=_rates(card) if card else None,
        context=measured.context if measured else None,
        unified=bool(gpu.unified),
        pace=(measured.speed if measured else None) or 1.0,
        layer_kernels=find_spec("liger_kernel") is not None,
        notes=measured.notes if measured else (),
    )


def device_like(card: Card) -> Device:
    """An idle card of this kind, in some other machine."""
    least = _SYSTEM if card.unified else _LEAST_DRIVER_SHARE
    kept = max(round(card.memory * _DRIVER_SHARE), min(least, card.memory // 8))
    return Device(
        name=card.name,
        total=card.memory,
        free=card.memory - kept,
        capability=card.capability,
        rates=_rates(card),
        unified=card.unified,
        planned=True,
    )


def processor(name: str, memory: Memory) -> Device:
    """This machine without its GPUs."""
    return Device(name=name, kind="cpu", total=memory.total, free=memory.available)


def _rates(card: Card) -> CardRates | None:
    if card.matrix_rate is None or card.bandwidth is None:
        return None
    return CardRates(card.matrix_rate, card.bandwidth)
