"""Peak memory of the engine's own runs against the estimate, over families, sizes and settings."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.gpu import Bench
from benchmarks.gpu_runs import Model, config_of, measured_run

_VARLEN: Final = {"packing": True, "attention": "varlen", "mixed": True}
_LIGER: Final = {"layer_kernels": "liger"}
_KEPT: Final = {"gradient_checkpointing": "none"}
_EVERY_2: Final = {"gradient_checkpointing": "every-2"}

CASES: Final[dict[str, list[dict[str, Any]]]] = {
    "llama 1B": [
        {"rows": 4, "length": 2048},
        {"rows": 8, "length": 1024, **_KEPT},
        {"rows": 4, "length": 2048, **_EVERY_2},
        {"rows": 8, "length": 2048, "mixed": True, "rank": 64},
        {"rows": 4, "length": 2048, **_VARLEN, **_LIGER},
        {"rows": 4, "length": 2048, **_LIGER, **_KEPT, "accumulation": 2},
    ],
    "llama 8B": [
        {"rows": 1, "length": 2048},
        {"rows": 2, "length": 4096, "rank": 64, "accumulation": 2},
        {"rows": 4, "length": 2048, **_VARLEN},
        {"rows": 1, "length": 2048, "dropout": 0.05},
        {"rows": 8, "length": 2048, **_VARLEN, **_LIGER, "rank": 64},
        {"rows": 4, "length": 2048, **_VARLEN, **_LIGER, **_KEPT},
        {"rows": 4, "length": 2048, **_VARLEN, **_LIGER, **_EVERY_2},
    ],
    "gemma3 1B": [
        {"rows": 2, "length": 2048},
        {"rows": 4, "length": 512, **_KEPT, "optimizer": "adamw"},
        {"rows": 2, "length": 2048, **_LIGER},
    ],
    "gemma3 4B": [{"rows": 1, "length": 2048}, {"rows": 2, "length": 2048, **_LIGER}],
    "qwen3 4B": [
        {"rows": 2, "length": 2048, "optimizer": "adamw_8bit"},
        {"rows": 4, "length": 2048, **_VARLEN, **_LIGER},
    ],
    "qwen2.5 7B": [
        {"rows": 1, "length": 4096},
        {"rows": 2, "length": 2048, **_VARLEN, **_LIGER, **_KEPT},
    ],
    "phi3 mini": [{"rows": 2, "length": 2048}, {"rows": 4, "length": 1024, **_KEPT, **_LIGER}],
    "phi4 14B": [{"rows": 1, "length": 2048}, {"rows": 4, "length": 2048, **_VARLEN, **_LIGER}],
    "mistral 7B": [
        {"rows": 2, "length": 2048},
        {"rows": 2, "length": 2048, "packing": True, "mixed": True},
        {"rows": 4, "length": 2048, **_VARLEN, **_LIGER},
    ],
    "qwen2.5 32B": [{"rows": 1, "length": 2048}, {"rows": 2, "length": 2048, **_VARLEN, **_LIGER}],
    "llama 3B": [{"rows": 4, "length": 1024, "optimizer": "adamw_8bit"}],
}


def main(bench: Bench) -> None:
    """All cases that are not done yet, those of one model together."""
    for name, cases in CASES.items():
        named = {case_name(name, case): case for case in cases}
        if not {each for each in named if bench.only in each} - bench.done():
            continue
        model: Model | None = None
        for title, case in named.items():
            model = model or Model(bench, name)
            config = config_of(bench, model, **case)
            if not bench.run(title, lambda model=model, config=config: measured_run(model, config)):  # type: ignore[misc]
                return
        if model is not None:
            model.close()


def case_name(name: str, case: dict[str, Any]) -> str:
    """The model and every setting, in words."""
    parts = [f"{case['rows']}×{case['length']}", f"rank {case.get('rank', 16)}"]
    parts += [f"{case['accumulation']} micro-batches"] if "accumulation" in case else []
    parts += [f"checkpointing {case['gradient_checkpointing']}"] if "gradient_checkpointing" in case else []
    parts += [f"dropout {case['dropout']}"] if "dropout" in case else []
    parts += [case["optimizer"]] if "optimizer" in case else []
    parts += ["packed" if case.get("packing") else "padded"] if case.get("mixed") else []
    parts += [case["attention"]] if "attention" in case else []
    parts += [case["layer_kernels"]] if "layer_kernels" in case else []
    return f"{name}: {', '.join(parts)}"
