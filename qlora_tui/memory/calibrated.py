"""What earlier runs on this machine measured, put into the next estimate."""

from __future__ import annotations

from dataclasses import replace

from qlora_tui.memory.device import Device


def calibrated(device: Device, *, driver: str | None, model: str) -> tuple[Device, tuple[str, ...]]:
    """The device with what runs on it measured, and the sentences that say so; as it is if there were none.

    Args:
        driver: Version of the NVIDIA driver.
        model: Source of the base, whose faults of the formula are told.
    """
    if device.kind != "cuda" or device.planned:
        return device, ()
    # Imported here: it needs pydantic, and most estimates have no history to look at.
    from qlora_tui.memory.history import calibration

    found = calibration(device.name, driver=driver, model=model)
    if found is None:
        return device, ()
    return replace(device, context=found.context or device.context, pace=found.speed or 1.0), found.notes
