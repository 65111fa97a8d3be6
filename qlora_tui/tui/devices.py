"""What the run is planned for: a GPU of this machine, its processor, or a card that is not here."""

from __future__ import annotations

from functools import lru_cache

from qlora_tui.cards import plan_for
from qlora_tui.errors import UsageError
from qlora_tui.hardware import Hardware
from qlora_tui.memory.device import Device, device_like, device_of, this_device


@lru_cache(maxsize=16)
def device_for(card: str | None, gpu: int, hardware: Hardware | None) -> Device | None:
    """The device that the answers name; None while the machine has not been looked at."""
    if card is not None:
        try:
            return device_like(plan_for(card))
        except UsageError:
            pass  # a draft of an older version may name a card that is not listed any more
    if hardware is None:
        return None
    chosen = next((each for each in hardware.gpus if each.index == gpu), None)
    if chosen is None:
        return this_device(hardware)
    memory = chosen.instances[0].memory if chosen.mig and chosen.instances else chosen.memory
    return device_of(chosen, memory, hardware.driver)


def chosen_uuid(gpu: int, hardware: Hardware | None) -> str | None:
    """What tells the engine which GPU to train on; None where there is no choice, so that the environment decides."""
    if hardware is None or len(hardware.gpus) < 2:
        return None
    chosen = next((each for each in hardware.gpus if each.index == gpu), None)
    if chosen is None:
        return None
    return chosen.instances[0].uuid if chosen.mig and chosen.instances else chosen.uuid


def precision(device: Device) -> str:
    """The arithmetic type that ``auto`` becomes."""
    return "float32" if device.kind == "cpu" else "bf16" if device.bf16 else "fp16 in place of bf16"
