"""A model folder, checked before anything is loaded from it.

A base model is data: configuration, tokenizer and weights in safetensors. What could run code (pickled weights, Python
files) is refused here, and so is what would fail late or, worse, train quietly on wrong weights: a file that was cut
off, a missing shard, a tensor that the index promises and no file holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from qlora_tui.errors import ModelError
from qlora_tui.models.families import FAMILIES
from qlora_tui.models.shape import ModelShape, shape_from_config
from qlora_tui.text import one_line, printable

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIGURATION = "config.json"
# Each entry is a set of files that together make a tokenizer.
_TOKENIZERS = (
    {"tokenizer.json"},
    {"tokenizer.model"},
    {"spiece.model"},
    {"sentencepiece.bpe.model"},
    {"vocab.json", "merges.txt"},
    {"vocab.txt"},
)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_JSON_LIMIT = 64 * 1024 * 1024
_README_LIMIT = 256 * 1024


class MissingFiles(ModelError):
    """Not all the files of a model are there; another copy of the same model may have them."""


def check_folder(folder: Path, trust_remote_code: bool, *, weights: bool = True) -> None:
    """Check that ``folder`` holds a whole model that is safe to load.

    Without ``weights`` only the configuration is checked, which is all that an estimate needs.

    Raises:
        ModelError: if a file is missing, damaged, or could run code that was not allowed.
    """
    where = f"The model folder {one_line(str(folder))}"
    if not folder.is_dir():
        raise ModelError(f"{where} cannot be used.", "There is no such folder.", "Check the path in model.source.")
    check_names({entry.name for entry in folder.iterdir()}, where, weights=weights)
    needs_remote_code(folder, trust_remote_code)
    if weights:
        _check_weights(folder)


def check_names(names: Collection[str], where: str, *, weights: bool = True) -> None:
    """Check by its file names whether a folder or repository can be a model; ``where`` starts the message.

    Raises:
        ModelError: if the configuration, the weights or the tokenizer is missing, or the weights are pickled.
    """
    if CONFIGURATION not in names:
        raise MissingFiles(f"{where} cannot be used.", f"It holds no {CONFIGURATION}.", _what_else(names))
    if not weights:
        return
    if WEIGHTS not in names and INDEX not in names:
        _refuse_weights(names, where)
    if not any(files <= set(names) for files in _TOKENIZERS):
        raise MissingFiles(
            f"{where} cannot be used.",
            "It holds no tokenizer: neither tokenizer.json nor the files of an older kind.",
            "Copy the tokenizer files of the original model beside the weights.",
        )


def _what_else(names: Collection[str]) -> str:
    if "adapter_config.json" in names:
        return "This is an adapter, not a base model: give the model it was trained on."
    if any(name.endswith(".gguf") for name in names):
        return "Give one of its .gguf files itself as model.source (download it first if it is on the hub)."
    return "Give the folder or repository that holds config.json, the tokenizer and *.safetensors."


def _refuse_weights(names: Collection[str], where: str) -> None:
    if any(name.endswith(_PICKLES) for name in names):
        raise ModelError(
            f"{where} cannot be used.",
            "Its weights are pickle files (.bin, .pt), which can run any code when they are opened.",
            "Look for a copy in safetensors (on the hub often another revision or repository), or convert it where "
            "you trust it: AutoModelForCausalLM.from_pretrained(old).save_pretrained(new).",
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        raise ModelError(
            f"{where} cannot be used.",
            f"It holds {one_line(others[0], 80)}, but neither {WEIGHTS} nor {INDEX}, which says what belongs together.",
            f"Copy {INDEX} beside the shards, or rename a single file to {WEIGHTS}.",
        )
    why = f"It holds no weights: no {WEIGHTS} and no {INDEX}."
    raise MissingFiles(f"{where} cannot be used.", why, _what_else(names))


def needs_remote_code(folder: Path, trust_remote_code: bool) -> bool:
    """Whether the model needs to run Python code of its own.

    A family that transformers has built in does not, whatever its files offer: the built-in code is loaded.

    Raises:
        ModelError: if it does and ``trust_remote_code`` is off, or a configuration file is not valid JSON.
    """
    for name in (CONFIGURATION, "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        settings = read_json(folder / name)
        mapping = settings.get("auto_map")
        built_in = name == CONFIGURATION and str(settings.get("model_type")) in FAMILIES
        if not mapping or (built_in and not trust_remote_code):
            continue
        if not trust_remote_code:
            raise ModelError(
                f"The model in {one_line(str(folder))} is not loaded.",
                f"Its {name} asks to run Python code that comes with the model (auto_map: "
                f"{one_line(json.dumps(mapping), 120)}); such code can do on this machine whatever you can.",
                "Choose a model without code of its own, or read that code and set model.trust_remote_code: true.",
            )
        return True
    return False


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a model's file.

    Raises:
        ModelError: if the file is no JSON object, or unreasonably large.
    """
    what = f"The model file {one_line(str(path))} cannot be read."
    hint = "Copy or download the file again."
    if path.stat().st_size > _JSON_LIMIT:
        raise ModelError(what, f"It is larger than {_JSON_LIMIT // 2**20} MiB.", hint)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(what, f"It is not valid JSON: {one_line(str(error))}.", hint) from error
    if not isinstance(value, dict):
        raise ModelError(what, f"It holds a {type(value).__name__} where an object belongs.", hint)
    return value


def shape_of_folder(folder: Path) -> ModelShape:
    """What the model in ``folder`` is made of, by its configuration and, where there is one, the index of its weights.

    Raises:
        ModelError: if the configuration is missing, damaged, contradicts itself, or is of a kind not trained here.
    """
    check_names({entry.name for entry in folder.iterdir()}, f"The model folder {one_line(str(folder))}", weights=False)
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else None
    return shape_from_config(read_json(folder / CONFIGURATION), index=index)


def weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """The names of the files that hold the weights, out of ``names``; the index is read from ``folder``.

    Raises:
        ModelError: if the index is damaged, leads out of the folder, or names a file that is not there.
    """
    if WEIGHTS in names:
        return [WEIGHTS]
    return sorted(_shards(folder, names))


def _shards(folder: Path, names: Collection[str]) -> dict[str, set[str]]:
    """Shard -> the tensors the index expects in it."""
    what = f"The model in {one_line(str(folder))} cannot be used."
    hint = f"Copy or download {INDEX} and every shard it names again."
    mapping = read_json(folder / INDEX).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(shard, str) for shard in mapping.values()):
        raise ModelError(what, f"{INDEX} has no weight_map from tensors to files.", hint)
    shards: dict[str, set[str]] = {}
    for tensor, shard in mapping.items():
        shards.setdefault(shard, set()).add(tensor)
    for shard in shards:
        # Only a plain name: a path could make the loader read any file of this machine.
        if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelError(
                what,
                f"{INDEX} names the shard {one_line(shard, 80)!r}, which is no .safetensors file beside it.",
                "Get the model from a source you trust; its own tools write plain file names.",
            )
    missing = sorted(shards.keys() - set(names))
    if missing:
        raise MissingFiles(
            what,
            f"{len(missing)} of {len(shards)} weight files are missing, the first is {one_line(missing[0], 80)}.",
            "Copy or download the missing files; nothing else has to be fetched again.",
        )
    return shards


def _check_weights(folder: Path) -> None:
    names = {entry.name for entry in folder.iterdir()}
    if WEIGHTS in names:
        _tensor_names(folder / WEIGHTS)
        return
    for shard, expected in _shards(folder, names).items():
        missing = sorted(expected - _tensor_names(folder / shard))
        if missing:
            raise ModelError(
                f"The model in {one_line(str(folder))} cannot be used.",
                f"{one_line(shard, 80)} lacks {len(missing)} tensors that {INDEX} expects in it, such as "
                f"{one_line(missing[0], 80)}; they would start as random numbers.",
                "Index and weights belong to different models: download both again.",
            )


def _tensor_names(path: Path) -> set[str]:
    """The tensors in one safetensors file, whose header is checked against its size; no weights are read."""
    # Imported here: where only the configuration counts, this takes longer than all else.
    from safetensors import SafetensorError, safe_open

    what = f"The weight file {one_line(str(path))} cannot be used."
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise ModelError(
                what,
                "It is a Git LFS pointer, a few lines of text that stand for the real file.",
                "Run `git lfs pull` in the model's folder.",
            )
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except SafetensorError as error:
        raise ModelError(
            what,
            f"It is damaged or was cut off at {path.stat().st_size} bytes: "
            f"{one_line(str(error).removeprefix('Error while deserializing header: '))}.",
            "Delete it and copy or download it again.",
        ) from error


def licence_of(folder: Path) -> str | None:
    """The licence named in the front matter of the model's README, if it has one."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_README_LIMIT)
        _, front, _ = text.split("---\n", 2) if text.startswith("---\n") else ("", "", "")
        values = yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(values, dict):
        return None
    # "other" is the hub's word for a licence of the publisher's own, whose name stands in a field beside it.
    licence = values.get("license_name") if values.get("license") == "other" else None
    licence = licence or values.get("license")
    return printable(licence, 80) if isinstance(licence, str) else None
