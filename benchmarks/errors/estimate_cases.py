"""What can be wrong about an estimate: models, recipes, cards and drivers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks.errors.case import OK, USAGE, Case, Prepare
from benchmarks.errors.place import Place
from qlora_tui.models.catalog import find_model

_LLAMA: Final = "meta-llama/Llama-3.1-8B-Instruct"
_NVML: Final = """
class NVMLError(Exception):
    def __init__(self, value):
        super().__init__(message)
        self.value = value
nvmlMemory_v2 = 0
def fails(*_arguments):
    raise NVMLError(code)
def __getattr__(name):
    return answers.get(name, fails)
"""
"""A stand-in for the driver's bindings, found before the real ones."""


def _estimate(*arguments: str) -> Prepare:
    return lambda _place: ["estimate", *arguments, "--json"]


def _of_config(change: Callable[[dict[str, Any]], object] | str) -> Prepare:
    """An estimate of a folder that holds nothing but a changed config.json."""

    def prepare(place: Place) -> Sequence[str]:
        values = dict(find_model(_LLAMA).config)
        text = change if isinstance(change, str) else (change(values), json.dumps(values))[1]
        folder = place.folder / "only-config"
        folder.mkdir()
        (folder / "config.json").write_text(text, encoding="utf-8")
        return ["estimate", "--model", str(folder), "--gpu", "24GiB", "--json"]

    return prepare


def _with(**fields: Any) -> Prepare:
    return _of_config(lambda values: values.update(fields))


def _by_its_weights(place: Place) -> Sequence[str]:
    """An architecture that nobody here knows, with an index that tells its size."""
    arguments = _with(model_type="brandnew")(place)
    index = {"metadata": {"total_size": 20_000_000_000}, "weight_map": {"a": "model.safetensors"}}
    (place.folder / "only-config" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return arguments


def _on_driver(code: int, message: str, answers: str = "{}") -> Prepare:
    """An estimate on a machine whose driver's bindings answer as told, and fail at everything else."""

    def prepare(place: Place) -> Sequence[str]:
        bindings = place.folder / "bindings"
        bindings.mkdir()
        text = f"code, message, answers = {code}, {message!r}, {answers}\n{_NVML}"
        (bindings / "pynvml.py").write_text(text, encoding="utf-8")
        place.variables.update(PYTHONPATH=str(bindings), CUDA_VISIBLE_DEVICES="0")
        return ["estimate", "--model", _LLAMA, "--json"]

    return prepare


_HALF: Final = (
    "{'nvmlInit': lambda: None, 'nvmlShutdown': lambda: None, 'nvmlDeviceGetCount': lambda: 1, "
    "'nvmlDeviceGetHandleByIndex': lambda index: index, 'nvmlDeviceGetName': lambda handle: 'NVIDIA GeForce RTX 3060', "
    "'nvmlDeviceGetCudaComputeCapability': lambda handle: (8, 6)}"
)

ESTIMATE_CASES = (
    Case("estimate: truncated config.json", _of_config('{"model_type": "llama", "hid'), USAGE, ("not valid JSON",)),
    Case("estimate: no layers", _with(num_hidden_layers=0), USAGE, ("num_hidden_layers is 0",)),
    Case("estimate: heads that do not divide", _with(num_attention_heads=7), USAGE, ("7",)),
    Case("estimate: key heads that do not divide", _with(num_key_value_heads=5), USAGE, ("5",)),
    Case("estimate: a negative size", _with(hidden_size=-1), USAGE, ("hidden_size is -1",)),
    Case("estimate: no architecture", _with(model_type=None), USAGE, ("model_type",)),
    Case("estimate: a multimodal model", _with(model_type="qwen2_5_vl"), USAGE, ("images or sound",)),
    Case("estimate: a state-space model", _with(model_type="mamba2"), USAGE, ("no attention",)),
    Case("estimate: an unknown architecture", _by_its_weights, OK, ("not known here", "15 %")),
    Case("estimate: a mixture of experts", _estimate("--model", "Qwen/Qwen3-30B-A3B", "--gpu", "80GiB"), OK,
         ("16 bit",)),
    Case("estimate: an absurd length", _estimate("--model", _LLAMA, "--max-length", "99999999"), USAGE, ("1048576",)),
    Case("estimate: rows beyond the context",
         _estimate("--model", "bundled:smollm2-135m", "--gpu", "T4", "--max-length", "9000"), OK,
         ("longer than the 8,192",)),
    Case("estimate: a rank above every layer",
         _estimate("--model", "bundled:smollm2-135m", "--gpu", "T4", "--rank", "1000"), USAGE, ("at most 576",)),
    Case("estimate: an unknown card", _estimate("--model", _LLAMA, "--gpu", "RTX 9999"), USAGE, ("not known",)),
    Case("estimate: a name of several cards", _estimate("--model", _LLAMA, "--gpu", "h100"), USAGE, ("H100 PCIe",)),
    Case("estimate: no memory at all", _estimate("--model", _LLAMA, "--gpu", "0GiB"), USAGE, ("neither a card",)),
    Case("estimate: no recipe", _estimate(), USAGE, ("neither a config nor a model",)),
    Case("estimate: no driver", _on_driver(12, "NVML Shared Library Not Found"), OK, ("no NVIDIA driver", "--gpu")),
    Case("estimate: a driver that fails half-way", _on_driver(999, "Unknown Error", _HALF), OK,
         ("does not tell its memory", "no verdict")),
    Case("models: no such name", lambda _place: ["models", "nonsense"], USAGE, ("nonsense",)),
)  # fmt: skip
"""Those that end well must say so in the notes of the answer."""
