"""What the settings of a run depend on: the model and the rows that are really there, and the memory free before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qlora_tui.engine.attention import supports_varlen
from qlora_tui.engine.kernels import layer_kernels_available
from qlora_tui.errors import ModelError
from qlora_tui.hardware import Hardware
from qlora_tui.memory.device import Device, processor, this_device
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.from_shape import dimensions_of
from qlora_tui.memory.settings import Rows, Situation, sample_of_lengths
from qlora_tui.models.folder import shape_of_folder


def situation_of(
    folder: Path, model_config: Any, hardware: Hardware, lengths: Sequence[int], *, packed: bool
) -> Situation:
    """The situation of this process.

    Args:
        folder: The model's files.
        model_config: transformers' configuration of the loaded model.
        hardware: The machine before the model was loaded: what is free then is what the run can have.
        lengths: Tokens of every training row.
    """
    cuda = torch.cuda.is_available()
    tokens = sum(lengths)
    return Situation(
        device=_device(hardware) if cuda else processor(hardware.cpu.name, hardware.memory),
        dimensions=_dimensions(folder),
        varlen=supports_varlen(model_config),
        layer_kernels=cuda and layer_kernels_available(model_config.model_type),
        rows=Rows(
            packed=packed,
            row=round(sum(length * length for length in lengths) / tokens) if packed and tokens else None,
            longest=None if packed else max(lengths, default=None),
            tokens=tokens,
            lengths=() if packed else sample_of_lengths(lengths),
        ),
    )


def _dimensions(folder: Path) -> Dimensions | None:
    """None for a model that cannot be sized: its micro-batches are counted in tokens."""
    try:
        return dimensions_of(shape_of_folder(folder))
    except ModelError:
        return None


def _device(hardware: Hardware) -> Device:
    """This process's card; torch tells what the driver's own library does not."""
    device = this_device(hardware)
    if device.kind == "cuda" and device.free is not None:
        return device
    free, total = torch.cuda.mem_get_info()
    # The context of this process is there already, and so is what it has loaded.
    free += torch.cuda.memory_reserved() + Device("").facts.context
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return replace(Device(name), total=total, free=min(total, free), capability=capability)
