"""Models that are not whole, not safe, not there, or not supported."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from safetensors.numpy import load, save

from benchmarks.errors.case import ENVIRONMENT, USAGE, Case, Prepare, with_sections
from benchmarks.errors.place import Place, write_files
from benchmarks.errors.small_model import model_files

CLOSED_PORT = "http://127.0.0.1:9"


def with_model(change: Callable[[dict[str, bytes]], object], **sections: Any) -> Prepare:
    """The model's files are changed before they are written; the config differs in these fields."""

    def prepare(place: Place) -> Sequence[str]:
        files = model_files()
        change(files)
        write_files(place.folder / "model", files)
        return place.config(**sections)

    return prepare


def without(*names: str) -> Prepare:
    """The model's folder lacks these files."""
    return with_model(lambda files: [files.pop(name) for name in names])


def with_file(name: str, content: bytes) -> Prepare:
    """The model's folder holds this file."""
    return with_model(lambda files: files.update({name: content}))


def with_settings(settings: dict[str, Any], **sections: Any) -> Prepare:
    """The model's config.json says something else."""

    def change(files: dict[str, bytes]) -> None:
        files["config.json"] = json.dumps(json.loads(files["config.json"]) | settings).encode()

    return with_model(change, **sections)


def truncated_weights(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = files["model.safetensors"][:-1000]


def pickled_weights(files: dict[str, bytes]) -> None:
    files["pytorch_model.bin"] = files.pop("model.safetensors")


def lacks_tensor(name: str, **sections: Any) -> Prepare:
    """The weights are whole but for one tensor, which the loader would fill with random numbers."""

    def change(files: dict[str, bytes]) -> None:
        weights = load(files["model.safetensors"])
        del weights[name]
        files["model.safetensors"] = save(weights, metadata={"format": "pt"})

    return with_model(change, **sections)


def not_a_gguf(place: Place) -> Sequence[str]:
    (place.folder / "model.gguf").write_bytes(b"<!doctype html><title>Sign in</title>")
    return place.config(model={"source": "model.gguf"})


def cut_gguf(place: Place) -> Sequence[str]:
    (place.folder / "model.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(40))
    return place.config(model={"source": "model.gguf"})


def unreachable_hub(place: Place) -> Sequence[str]:
    place.variables.update(HF_HUB_OFFLINE="0", HF_ENDPOINT=CLOSED_PORT)
    return place.config(model={"source": "owner/model"})


def offline(place: Place) -> Sequence[str]:
    return place.config(model={"source": "owner/model"})


def on_a_hub(name: str) -> Prepare:
    """The model is asked from a hub that has a gated model and no other."""

    def prepare(place: Place) -> Sequence[str]:
        from hub_server import running_hub

        hub = place.undo.enter_context(running_hub())
        hub.add("owner/gated", model_files(), gated=True)
        place.variables.update(HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.address)
        return place.config(model={"source": name})

    return prepare


MODEL_CASES = (
    Case("model: no such folder", with_sections(model={"source": "./nowhere"}), USAGE, ("nowhere", "check the path")),
    Case("model: no config.json", without("config.json"), USAGE, ("config.json",)),
    Case("model: config.json is no JSON", with_file("config.json", b"{"), USAGE, ("config.json", "not valid JSON")),
    Case("model: no weights", without("model.safetensors"), USAGE, ("no weights",)),
    Case("model: damaged weights", with_file("model.safetensors", b"\xff" * 4096), USAGE,
         ("model.safetensors", "damaged")),
    Case("model: truncated weights", with_model(truncated_weights), USAGE, ("model.safetensors", "cut off")),
    Case("model: a Git LFS pointer",
         with_file("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), USAGE, ("git lfs pull",)),
    Case("model: pickled weights only", with_model(pickled_weights), USAGE, ("pickle", "safetensors")),
    Case("model: no tokenizer", without("tokenizer.json", "tokenizer_config.json"), USAGE, ("no tokenizer",)),
    Case("model: damaged tokenizer", with_file("tokenizer.json", b"{}"), USAGE, ("tokenizer.json", "cannot be read")),
    Case("model: damaged chat template", with_file("chat_template.jinja", b"{% for %}"), USAGE,
         ("chat_template.jinja",)),
    Case("model: code of its own", with_settings({"model_type": "own", "auto_map": {"AutoModel": "own.Model"}}), USAGE,
         ("Python code", "trust_remote_code")),
    Case("model: an adapter",
         with_model(lambda files: files.update({"adapter_config.json": files.pop("config.json")})), USAGE,
         ("this is an adapter",)),
    Case("model: a GGUF that is none", not_a_gguf, USAGE, ("model.gguf", "GGUF")),
    Case("model: a GGUF cut off", cut_gguf, USAGE, ("model.gguf",), full=True),
    Case("model: hub unreachable", unreachable_hub, ENVIRONMENT, ("owner/model", "127.0.0.1:9", "network")),
    Case("model: hub switched off", offline, ENVIRONMENT, ("owner/model", "HF_HUB_OFFLINE")),
    Case("model: gated", on_a_hub("owner/gated"), USAGE, ("owner/gated", "gated", "HF_TOKEN")),
    Case("model: not on the hub", on_a_hub("owner/none"), USAGE, ("owner/none", "no such model", "spelling")),
    Case("model: neither template nor end token", with_file("tokenizer_config.json", b"{}"), USAGE,
         ("chat template", "eos_token")),
    Case("model: unknown architecture", with_settings({"model_type": "own"}), USAGE, ("own",), full=True),
    Case("model: weights of another shape", with_settings({"intermediate_size": 256}), USAGE, ("mlp",), full=True),
    Case("model: weights of another shape, 16 bits",
         with_settings({"intermediate_size": 256}, quantization={"type": "none"}), USAGE, ("mlp",), full=True),
    Case("model: a projection is missing", lacks_tensor("model.layers.1.mlp.up_proj.weight"), USAGE, ("up_proj",),
         full=True),
    Case("model: a projection is missing, 16 bits",
         lacks_tensor("model.layers.1.mlp.up_proj.weight", quantization={"type": "none"}), USAGE, ("up_proj",),
         full=True),
    Case("model: a norm is missing", lacks_tensor("model.norm.weight"), USAGE, ("model.norm",), full=True),
    Case("model: more tokens than embeddings", with_settings({"vocab_size": 200}), USAGE, ("embed_tokens",),
         full=True),
)  # fmt: skip
