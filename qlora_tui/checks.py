"""The doctor's checks of the machine: driver and cards, torch and a 4-bit product on them, memory, disks, model, hub.

torch and bitsandbytes are only ever touched by the child process whose report is judged here.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qlora_tui.selftest import Selftest
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from qlora_tui.hardware import Gpu, Hardware

Status = Literal["ok", "warn", "fail", "skipped"]

_GIB = 1 << 30
# Judgement, not measurement. RAM: torch with CUDA takes about 3 GiB of it before a model comes.
_RAM_FAIL, _RAM_WARN = 2 * _GIB, 6 * _GIB
# Free disk below which it fails, and below which it warns. An 8B model is a download of 16 GB; a run keeps adapters.
_DISK_LIMITS = {"runs": (1 * _GIB, 5 * _GIB), "cache": (1 * _GIB, 5 * _GIB), "downloads": (1 * _GIB, 20 * _GIB)}
_DISK_VARIABLE = {"runs": "QLORA_TUI_RUNS", "cache": "QLORA_TUI_CACHE", "downloads": "HF_HOME"}
_HUB_SECONDS = 10.0
_FP16_FIX = "Leave compute_dtype at auto, which takes fp16 here, or use a card of capability 8.0 or more."


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    detail: str
    """What is the case, in printable sentences."""
    fix: str | None = None
    """What to do about it, in one sentence; None if there is nothing to do."""


def driver(hardware: Hardware, buses: Path = Path("/sys/bus/pci/devices")) -> Iterator[Finding]:
    """The driver and each card; without a driver, whether there is a card at all."""
    if not hardware.gpus:
        reason = hardware.no_gpu or "No GPU was found."
        if cards := _cards_on_bus(buses):
            fix = "Install the NVIDIA driver for this card, or restart if it was just updated."
            yield Finding("driver", "fail", f"{reason} {cards} NVIDIA card(s) are on the PCI bus.", fix)
        else:
            fix = "Install the driver of your card, or train a small model on the CPU."
            yield Finding("driver", "warn", f"{reason} Training would run on the CPU.", fix)
        return
    cuda = "unknown" if hardware.cuda is None else ".".join(map(str, hardware.cuda))
    yield Finding("driver", "ok", f"NVIDIA driver {hardware.driver or 'of unknown version'}, CUDA up to {cuda}.")
    yield from map(_gpu, hardware.gpus)


def _gpu(gpu: Gpu) -> Finding:
    """One card: whether it can be used, and how much of it is free."""
    check, shown = f"GPU {gpu.index}", gpu.name
    if gpu.memory is not None:
        shown += f", {gpu.memory.free / _GIB:.1f} of {gpu.memory.total / _GIB:.1f} GiB free"
    if gpu.mig and not gpu.instances:
        fix = "Create an instance with nvidia-smi mig, or switch the partitioning off."
        return Finding(check, "fail", f"{shown}; it is partitioned (MIG) and has no instance.", fix)
    if gpu.mig:
        detail = f"{shown}; partitioned (MIG) into {len(gpu.instances)}, of which one process can use one."
        return Finding(check, "warn", detail, "Set CUDA_VISIBLE_DEVICES to the uuid of the instance to train on.")
    reasons = ", ".join(f"{name} ({reason})" for name, reason in gpu.unread)
    if gpu.memory is None and reasons:
        fix = "Restart the machine; if it comes back, look for Xid errors in the kernel's log."
        return Finding(check, "fail", f"{shown}; not told: {reasons}.", fix)
    if gpu.memory is None:
        fix = "Watch the memory with nvidia-smi; no estimate can be held against it here."
        return Finding(check, "warn", f"{shown}; the driver does not tell its memory.", fix)
    if reasons:
        fix = "Update the NVIDIA driver if this matters; nothing but the display needs it."
        return Finding(check, "warn", f"{shown}; not told: {reasons}.", fix)
    return Finding(check, "ok", f"{shown}.")


def _cards_on_bus(buses: Path) -> int:
    """Number of NVIDIA display controllers on the PCI bus, driver or not."""
    count = 0
    with suppress(OSError):
        for device in buses.iterdir():
            with suppress(OSError):
                vendor, kind = ((device / name).read_bytes().strip() for name in ("vendor", "class"))
                count += vendor == b"0x10de" and kind.startswith(b"0x03")
    return count


def bf16(hardware: Hardware) -> Iterator[Finding]:
    """Whether each card computes in bf16."""
    if not hardware.gpus:
        yield Finding("bf16", "skipped", "There is no GPU; the CPU computes in fp32.")
    for gpu in hardware.gpus:
        status: Status = "skipped" if gpu.bf16 is None else "ok" if gpu.bf16 else "warn"
        yield Finding("bf16", status, f"GPU {gpu.index}: {gpu.bf16_reason}", _FP16_FIX if status == "warn" else None)


def torch(hardware: Hardware | None, child: Selftest) -> Iterator[Finding]:
    """torch's CUDA build against the driver."""
    version = child.text("torch")
    if version is None:
        yield _torch_unheard(child)
        return
    build, gpus = child.text("cuda_build"), hardware.gpus if hardware is not None else ()
    shown = f"torch {version}, built for {'the CPU alone' if build is None else f'CUDA {build}'}"
    driver = hardware.cuda if hardware is not None else None
    if not gpus:
        yield Finding("torch", "ok", f"{shown}.")
    elif build is None:
        yield Finding(
            "torch", "fail", f"{shown}, so the GPU stays idle.", "Install a build of torch for the driver's CUDA."
        )
    elif driver is not None and _major(build) > driver[0]:
        detail = f"{shown}, but the driver only speaks CUDA {driver[0]}.{driver[1]}."
        fix = f"Update the NVIDIA driver, or install a build of torch for CUDA {driver[0]}."
        yield Finding("torch", "fail", detail, fix)
    elif child.report.get("cuda_available") is not True:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        because = child.text("cuda_error") or "no reason given"
        note = "" if hidden is None else f" CUDA_VISIBLE_DEVICES is {one_line(hidden, 60)!r}."
        fix = "Unset CUDA_VISIBLE_DEVICES, or restart the machine if the driver was just updated."
        yield Finding("torch", "fail", f"{shown}, does not find the GPU ({because}).{note}", fix)
    else:
        yield Finding("torch", "ok", f"{shown}, uses {child.text('device_name') or 'the GPU'}.")


def _torch_unheard(child: Selftest) -> Finding:
    """The child did not get as far as torch's version; what is installed may still be known."""
    fix = "Install torch anew with `pip install --force-reinstall torch`."
    reason = child.problem or f"It cannot be imported ({child.text('error') or 'no reason given'})."
    try:
        installed = f"torch {one_line(str(importlib.metadata.version('torch')), 40)} is installed, but: "
    except importlib.metadata.PackageNotFoundError:
        return Finding("torch", "fail", "torch is not installed.", "Run `pip install torch`.")
    return Finding("torch", "fail", installed + reason, fix)


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0


def four_bit(child: Selftest) -> Iterator[Finding]:
    """The product of a 4-bit layer, forward and backward, as the child computed it."""
    error, stage = child.text("error") or "no reason given", child.report.get("stage")
    if child.ok:
        versions = f"bitsandbytes {child.text('bitsandbytes')} on {child.text('device')} in {child.text('dtype')}"
        yield Finding("4-bit", "ok", f"A 4-bit product and its gradient are right: {versions}.")
    elif child.problem is not None:
        fix = "Run `python -m qlora_tui.engine selftest` to see all of its output."
        yield Finding("4-bit", "fail", f"The test of a 4-bit product failed. {child.problem}", fix)
    elif stage == "torch":
        yield Finding("4-bit", "skipped", "It needs torch, which does not work.")
    elif stage == "bitsandbytes":
        fix = "Install bitsandbytes anew with `pip install --force-reinstall --no-deps bitsandbytes`."
        yield Finding("4-bit", "fail", f"bitsandbytes cannot be imported ({error}).", fix)
    else:
        yield Finding("4-bit", "fail", f"A 4-bit product fails ({error}).", _product_fix(error))


def _product_fix(error: str) -> str:
    if "no kernel image" in error:
        return "Install builds of torch and bitsandbytes that still support this card's compute capability."
    if "out of memory" in error.lower():
        return "End what holds the GPU's memory, or choose another GPU with CUDA_VISIBLE_DEVICES."
    return "Install versions of torch and bitsandbytes that this release is tested with."


def memory(hardware: Hardware) -> Iterator[Finding]:
    """RAM that is available."""
    memory = hardware.memory
    limit = "" if memory.limit is None else ", the limit of this container"
    detail = f"{memory.available / _GIB:.1f} GiB of RAM available of {memory.total / _GIB:.1f} GiB{limit}."
    if memory.available >= _RAM_WARN:
        yield Finding("memory", "ok", detail)
    else:
        status: Status = "fail" if memory.available < _RAM_FAIL else "warn"
        yield Finding("memory", status, detail, "End other programs, or give the container more memory.")


def disks(hardware: Hardware) -> Iterator[Finding]:
    """Free space and permission where something is written."""
    for disk in hardware.disks:
        check, where = f"disk {disk.purpose}", one_line(str(disk.path), 160)
        fail, warn = _DISK_LIMITS[disk.purpose]
        elsewhere = f"Free some space, or set {_DISK_VARIABLE[disk.purpose]} to a folder on another disk."
        if disk.free is None:
            yield Finding(check, "warn", f"The free space of {where} is unknown.", elsewhere)
        elif not disk.writable:
            fix = f"Change its permissions, or set {_DISK_VARIABLE[disk.purpose]} to a folder that you may write."
            yield Finding(check, "fail", f"{where} cannot be written.", fix)
        else:
            status: Status = "fail" if disk.free < fail else "warn" if disk.free < warn else "ok"
            detail = f"{disk.free / _GIB:.1f} GiB free in {where}."
            yield Finding(check, status, detail, None if status == "ok" else elsewhere)


def bundled_model() -> Iterator[Finding]:
    """Whether the bundled models are installed."""
    from qlora_tui.models.sources import bundled_models

    for model in bundled_models().values():
        if model.path is None:
            detail = f"bundled:{model.name} is not installed."
            yield Finding("bundled model", "warn", detail, f"Run `{model.install_command}`.")
        else:
            yield Finding("bundled model", "ok", f"bundled:{model.name} is installed.")


def hub(online: bool) -> Iterator[Finding]:
    """Whether the hub answers; asked only if ``online``."""
    if not online:
        yield Finding("hub", "skipped", "Not asked; nothing was sent.")
        return
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        fix = "Unset HF_HUB_OFFLINE to download models and data."
        yield Finding("hub", "warn", "HF_HUB_OFFLINE is set, so the hub is not asked.", fix)
        return
    shown = one_line(str(constants.ENDPOINT), 80)
    try:
        with urllib.request.urlopen(f"{constants.ENDPOINT}/api/models?limit=1", timeout=_HUB_SECONDS):
            yield Finding("hub", "ok", f"{shown} answers.")
    except urllib.error.HTTPError as error:
        fix = "Try again later, or use models and data that are on this machine."
        yield Finding("hub", "warn", f"{shown} answers with status {error.code}.", fix)
    except (OSError, ValueError) as error:
        fix = "Check the network and proxy settings, or use models and data that are on this machine."
        yield Finding("hub", "warn", f"{shown} cannot be reached ({one_line(str(error), 120)}).", fix)
