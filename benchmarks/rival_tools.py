"""Other estimators of fine-tuning memory, each in an environment of its own and told a case by its own options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from platformdirs import user_cache_path

from qlora_tui.memory.recipe import GIB, MIB, Recipe

_REVISION: Final = "0" * 40


@dataclass(frozen=True, slots=True)
class Question:
    """What an estimator is asked: a model of the hub cache, a recipe, a card by name and its bytes."""

    model: str
    recipe: Recipe
    card: str
    memory: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What it says, in bytes: tensors as torch counts them, and the whole process."""

    allocated: int
    process: int


class Rival(Protocol):
    """An estimator with a command line."""

    package: str
    version: str

    def arguments(self, question: Question) -> list[str]:
        """Its command line for a question, the program first."""

    def read(self, output: Mapping[str, Any]) -> Answer:
        """Its JSON."""


class Fitcheck:
    """fitcheck-llm. It prices peft's preparation in fp32 and full logits; no option says otherwise."""

    package, version = "fitcheck-llm", "0.3.1"

    def arguments(self, question: Question) -> list[str]:
        recipe = question.recipe
        quantised = recipe.quantization != "none"
        names = ("full",) if recipe.targets is None else sorted(name.partition("_")[0] for name in recipe.targets)
        switches = {
            "--double-quant": quantised and recipe.double_quant,
            "--grad-checkpoint": recipe.checkpointing != "none",
            "--flash-attn": recipe.attention != "eager",
        }
        return [
            "fitcheck",
            question.model,
            *("--quant", "nf4" if quantised else "none"),
            *("--precision", "fp16" if question.card == "t4" else "bf16"),
            *("--lora-r", str(recipe.rank), "--lora-targets", ",".join(names)),
            *("--batch-size", str(recipe.micro_batch), "--seq-len", str(recipe.sequence)),
            *("--optimizer", "adamw" if recipe.optimizer == "adamw" else "adam8bit"),
            *("--grad-accum", str(recipe.accumulation)),
            *("--gpu", question.card, "--json"),
            *(name for name, wanted in switches.items() if wanted),
        ]

    def read(self, output: Mapping[str, Any]) -> Answer:
        sizes = output["memory_mib"]
        return Answer(round((sizes["total"] - sizes["overhead"]) * MIB), round(sizes["total"] * MIB))


class Canifinetune:
    """canifinetune. Its safety margin, which it reports apart, is left out of the process."""

    package, version = "canifinetune", "0.4.1"

    def arguments(self, question: Question) -> list[str]:
        recipe = question.recipe
        quantised = recipe.quantization != "none"
        adamw = "adamw_torch" if question.card == "t4" else "adamw_torch_fused"
        attention = {"eager": "eager", "sdpa": "sdpa"}.get(recipe.attention, "flash_attention_2")
        return [
            "canifinetune",
            *("estimate", "--offline", "--json", "--model", question.model),
            *("--gpu-vram-gb", f"{question.memory / GIB:.2f}"),
            *("--method", "qlora" if quantised else "lora"),
            *("--quantization", "nf4_double_quant" if recipe.double_quant else "nf4"),
            *("--base-dtype", "fp16" if question.card == "t4" else "bf16"),
            *("--seq-len", str(recipe.sequence), "--micro-batch-size", str(recipe.micro_batch)),
            *("--lora-rank", str(recipe.rank), "--target-scope", _scope(recipe.targets)),
            *("--optimizer", adamw if recipe.optimizer == "adamw" else recipe.optimizer),
            "--no-gradient-checkpointing" if recipe.checkpointing == "none" else "--gradient-checkpointing",
            *("--attn", attention),
            *("--loss-backend", "liger" if recipe.loss == "fused" else "stock"),
        ]

    def read(self, output: Mapping[str, Any]) -> Answer:
        sizes = output["memory"]
        total, margin = sizes["total_estimated_gb"], sizes["safety_margin_gb"]
        return Answer(round((total - margin - sizes["cuda_overhead_gb"]) * GIB), round((total - margin) * GIB))


def _scope(targets: frozenset[str] | None) -> str:
    if targets is None:
        return "all_linear"
    return "attention" if "o_proj" in targets else "conservative"


RIVALS: Final[tuple[Rival, ...]] = (Fitcheck(), Canifinetune())


def installed(rival: Rival) -> Path:
    """The folder of its programs, in an environment that holds it and nothing else; made on first use."""
    folder = user_cache_path("qlora-tui") / "benchmarks" / f"{rival.package}-{rival.version}"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    done = folder / ".installed"
    if not done.exists():
        print(f"Installing {rival.package} {rival.version} into {folder} ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{rival.package}=={rival.version}"], check=True)
        done.touch()
    return programs


def hub_cache(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> Path:
    """A hub cache that holds nothing but ``config.json`` files, by model id. Returns what ``HF_HOME`` should be."""
    for model, config in configs.items():
        repository = folder / "hub" / f"models--{model.replace('/', '--')}"
        snapshot = repository / "snapshots" / _REVISION
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        snapshot.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(_REVISION, encoding="utf-8")
        (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def offline(home: Path) -> dict[str, str]:
    """Environment in which a program sees that hub cache and no network."""
    return {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def ask(rival: Rival, question: Question, home: Path) -> Answer | str:
    """The rival's answer, or the last line of its refusal."""
    program, *arguments = rival.arguments(question)
    command = [str(installed(rival) / program), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, env=offline(home), check=False)
    try:
        return rival.read(json.loads(finished.stdout))
    except (json.JSONDecodeError, KeyError):
        said = (finished.stderr or finished.stdout).strip().splitlines()
        return said[-1] if said else f"exit code {finished.returncode}"
