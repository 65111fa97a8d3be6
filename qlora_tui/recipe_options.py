"""What ``estimate`` and ``models`` take from the command line: a recipe, and a card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qlora_tui.config import RunConfig
from qlora_tui.memory.device import Device, device_like
from qlora_tui.text import one_line

_DECIDING: Final = ("device", "memory", "compute capability")
"""What an estimate depends on of what a driver may fail to tell."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says in place of the config."""

    model: str | None = None
    max_length: int | None = None
    micro_batch: int | None = None
    rank: int | None = None


NO_OVERRIDES: Final = Overrides()


def recipe_of(path: Path | None, overrides: Overrides = NO_OVERRIDES) -> RunConfig:
    """The recipe of a config file, or the default one, with what the command line says in its place.

    Raises:
        ConfigError: if the file cannot be used.
    """
    config = _without_file() if path is None else _from_file(path)
    changes: dict[str, dict[str, Any]] = {}
    if overrides.model is not None:
        changes["model"] = {"source": overrides.model, "revision": None}
    if overrides.max_length is not None:
        changes["data"] = {"max_length": overrides.max_length}
    if overrides.rank is not None:
        changes["adapter"] = {"rank": overrides.rank}
    if (rows := overrides.micro_batch) is not None:
        # The next effective batch that can be made of such micro-batches.
        effective = -(-config.training.effective_batch // rows) * rows
        changes["training"] = {"micro_batch": rows, "effective_batch": min(effective, 65_536 // rows * rows)}
    return config.changed(**changes) if changes else config


def _without_file() -> RunConfig:
    """The default recipe, of data that nobody reads."""
    return RunConfig.model_validate({"name": "estimate", "data": {"source": "rows.jsonl"}})


def _from_file(path: Path) -> RunConfig:
    from qlora_tui.config_file import load_config

    return load_config(path)


def device_for(gpu: str | None) -> tuple[Device, tuple[str, ...]]:
    """A kind of card, or what this machine would train on, and what is to be known of it.

    Args:
        gpu: A card or an amount of memory; None for this machine.

    Raises:
        UsageError: if no known card is meant.
    """
    if gpu is not None:
        from qlora_tui.cards import plan_for

        return device_like(plan_for(gpu)), ()
    from qlora_tui import hardware
    from qlora_tui.memory.device import this_device

    machine = hardware.snapshot()
    device = this_device(machine)
    notes = device.notes
    for gpu_here in machine.gpus:
        notes += tuple(
            f"{one_line(gpu_here.name, 60)} does not tell its {what} ({reason})."
            for what, reason in gpu_here.unread
            if what in _DECIDING
        )
    if device.kind == "cpu":
        reason = machine.no_gpu or "CUDA_VISIBLE_DEVICES hides every GPU."
        notes += (f'{reason} For another card, add for example --gpu "RTX 3060".',)
    return device, notes
