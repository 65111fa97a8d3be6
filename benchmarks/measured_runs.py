"""The measured runs in ``benchmarks/data`` as inputs of the estimate."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast

from qlora_tui.memory.dimensions import Dimensions, gated_decoder
from qlora_tui.memory.recipe import (
    GIB,
    LORA_ON_SIXTEEN_BIT,
    MIB,
    PREPARED,
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
T4_CONTEXT: Final = round(140.9 * MIB)

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
    "llama1b": gated_decoder(
        hidden=2048, layers=16, intermediate=8192, heads=32, kv_heads=8, head_dim=64, vocab=128_256, tied=True
    ),
    "llama8b": gated_decoder(hidden=4096, layers=32, intermediate=14_336, heads=32, kv_heads=8, vocab=128_256),
    "qwen3_4b": gated_decoder(
        hidden=2560,
        layers=36,
        intermediate=9728,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab=151_936,
        tied=True,
        query_key_norm=True,
    ),
    "qwen25_7b": gated_decoder(
        hidden=3584, layers=28, intermediate=18_944, heads=28, kv_heads=4, vocab=152_064, attention_bias=True
    ),
    "mistral7b": gated_decoder(
        hidden=4096, layers=32, intermediate=14_336, heads=32, kv_heads=8, vocab=32_768, window=4096
    ),
}

_QWEN_1_5B: Final = gated_decoder(
    hidden=1536, layers=28, intermediate=8960, heads=12, kv_heads=2, vocab=151_936, tied=True, attention_bias=True
)
THIRD_PARTY_SHAPES: Final = {
    "Qwen/Qwen2.5-7B-Instruct": SHAPES["qwen25_7b"],
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_1_5B,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": _QWEN_1_5B,
    "mistralai/Mistral-7B-Instruct-v0.3": gated_decoder(
        hidden=4096, layers=32, intermediate=14_336, heads=32, kv_heads=8, vocab=32_768
    ),
    "deepseek-ai/deepseek-coder-1.3b-instruct": gated_decoder(
        hidden=2048, layers=24, intermediate=5504, heads=16, kv_heads=16, vocab=32_256
    ),
    "meta-llama/Llama-3.2-3B-Instruct": gated_decoder(
        hidden=3072, layers=28, intermediate=8192, heads=24, kv_heads=8, head_dim=128, vocab=128_256, tied=True
    ),
    "meta-llama/Llama-3.2-1B-Instruct": SHAPES["llama1b"],
    "HuggingFaceTB/SmolLM2-1.7B": gated_decoder(
        hidden=2048, layers=24, intermediate=8192, heads=32, kv_heads=32, vocab=49_152, tied=True
    ),
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


def third_party_recipe(row: Mapping[str, str]) -> Recipe:
    """The regime of a quality-A row: peft's preparation in fp32, fp16 arithmetic, full logits kept."""
    return Recipe(
        micro_batch=int(row["batch"]),
        sequence=int(row["seq"]),
        rank=int(row["rank"]),
        targets=frozenset(row["targets"].split()),
        double_quant=row["double_quant"] == "yes",
        attention="eager" if row["attn"] == "eager" else "sdpa",
        optimizer="adamw",
        loss="full_kept",
        regime=PREPARED,
    )
