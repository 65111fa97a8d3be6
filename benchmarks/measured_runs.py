"""The measured runs in ``benchmarks/data`` as inputs of the estimate."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast

from benchmarks.base_models import dimensions_of_model
from qlora_tui.memory.dimensions import Dimensions
from qlora_tui.memory.recipe import (
    GIB,
    LORA_ON_SIXTEEN_BIT,
    MIB,
    SIXTEEN_BIT,
    Checkpointing,
    DeviceFacts,
    Optimizer,
    Recipe,
)
from qlora_tui.memory.speed import CardRates

DATA: Final = Path(__file__).resolve().parent / "data"

H100_CONTEXT: Final = 759 * MIB
"""The driver's figure for the process less reserved memory, in every row."""
H100_RATES: Final = CardRates(matrix_rate=989, bandwidth=3350)

# Tokens of the longest row in each padded batch, in the order the trainer's sampler draws them with its seed.
PADDED_TO: Final = (303, 1238, 192, 1154, 519, 580, 937, 261, 503, 917, 327, 324)
PADDED_TO_OF_EIGHT: Final = (
    1215, 831, 768, 1154, 1487, 378, 1491, 754, 396, 818, 1062, 678, 693, 775, 806,
    800, 1747, 462, 897, 407, 299, 396, 454, 569, 352, 1111, 671, 999, 587, 1379,
)  # fmt: skip
PACKED_ROW: Final = 640
"""Mean of the squares over the mean of the row lengths that were packed: log-normal, mean log 5.5, deviation 0.8."""

_CAPPED_AT: Final = {"b4 s2048": 9.401, "b1 s8192": 9.404, "mixed padded": 7.93}
"""Measured peaks in GiB that the capped rows' factors multiply."""

SHAPES: Final = {
    name: dimensions_of_model(name) for name in ("llama1b", "llama8b", "qwen3_4b", "qwen25_7b", "mistral7b")
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run on the H100. Sizes in bytes; None where the run failed.

    Attributes:
        lengths: Longest row of each padded batch; empty for rows of one length.
        cap: What the allocator was allowed, None without a cap; ``cap_factor`` is its share of the measured peak.
        seconds: Of one update. tokens: In one update, padding not counted.
    """

    shape: str
    case: str
    dimensions: Dimensions
    recipe: Recipe
    device: DeviceFacts
    lengths: tuple[int, ...]
    cap: int | None
    cap_factor: float | None
    allocated: int | None
    process: int | None
    seconds: float | None
    tokens: int | None

    @property
    def name(self) -> str:
        """Shape, case and whatever tells rows of one name apart."""
        recipe = self.recipe
        parts = [f"{recipe.micro_batch}×{recipe.sequence}", f"r{recipe.rank}"]
        parts += [f"×{recipe.accumulation}"] if recipe.accumulation > 1 else []
        parts += [recipe.attention] if recipe.attention != "sdpa" else []
        parts += ["liger"] if recipe.layer_kernels == "liger" else []
        parts += [] if self.device.expandable_segments else ["plain segments"]
        return f"{self.shape} {self.case} ({', '.join(parts)})"

    @property
    def timed(self) -> bool:
        """Whether the row was run to measure speed: its case begins with a capital letter."""
        return self.case[0].isupper()


def read(name: str) -> list[dict[str, str]]:
    """Rows of a file in ``benchmarks/data``."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def h100_runs() -> Sequence[Measured]:
    """Every row of ``measured_h100.csv``."""
    return [_run(row) for row in read("measured_h100.csv")]


def _run(row: Mapping[str, str]) -> Measured:
    case = row["case"]
    lengths: tuple[int, ...] = ()
    if "padded" in case:
        lengths = PADDED_TO_OF_EIGHT if row["micro_batch"] == "8" else PADDED_TO
    name, _, factor = case.partition(" cap x")
    cap = round(_CAPPED_AT[name] * GIB * float(factor)) if factor else None
    free = None if cap is None else cap + H100_CONTEXT
    segments = row["expandable_segments"] == "True"
    return Measured(
        shape=row["shape"],
        case=case,
        dimensions=SHAPES[row["shape"]],
        recipe=_recipe(row, max(lengths, default=int(row["sequence"])), padded=bool(lengths)),
        device=DeviceFacts(free, H100_CONTEXT, DeviceFacts.workspace_of((9, 0)), segments),
        lengths=lengths,
        cap=cap,
        cap_factor=float(factor) if factor else None,
        allocated=_integer(row["max_allocated"]),
        process=_integer(row["nvml_process"]),
        seconds=float(row["seconds_per_update"]) if row["seconds_per_update"] else None,
        tokens=_integer(row["tokens_per_update"]),
    )


def _recipe(row: Mapping[str, str], sequence: int, *, padded: bool) -> Recipe:
    known = row["checkpointing"] in ("full", "none")
    quantised = row["base"] == "nf4"
    optimizer = "adamw" if row["optimizer"] == "adamw_torch_fused" else row["optimizer"]
    return Recipe(
        micro_batch=int(row["micro_batch"]),
        sequence=sequence,
        rank=int(row["rank"]),
        accumulation=int(row["accumulation"]),
        packed=row["packing"] == "True",
        # The probe trained one model in case after case; what checkpoints need of the embeddings stayed switched on.
        embedding_gradient=True,
        padded=padded,
        dropout=float(row["dropout"]),
        quantization="nf4" if quantised else "none",
        checkpointing=cast("Checkpointing", row["checkpointing"]) if known else "every-2",
        attention="sdpa" if row["attention"] == "sdpa" else "varlen",
        layer_kernels="liger" if row["liger_layers"] == "True" else "none",
        optimizer=cast("Optimizer", optimizer),
        regime=SIXTEEN_BIT if quantised else LORA_ON_SIXTEEN_BIT,
    )


def _integer(text: str) -> int | None:
    return int(text) if text else None
