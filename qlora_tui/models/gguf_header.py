"""What a .gguf file says of its model, as the fields of a ``config.json``; no weights are read."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from qlora_tui.errors import ModelError
from qlora_tui.models.gguf_file import check_gguf
from qlora_tui.text import one_line

_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct's letters of GGUF's types of numbers."""
_STRING: Final = 8
_ARRAY: Final = 9
_LONGEST_LIST: Final = 4096
"""Lists of more items are vocabularies; they are stepped over."""
_MOST_ITEMS: Final = 50_000_000
_MODEL_TYPES: Final = {
    "command-r": "cohere", "gemma3": "gemma3_text", "gpt-oss": "gpt_oss", "gptneox": "gpt_neox",
    "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe",
}  # fmt: skip
"""GGUF's names of architectures that config.json calls something else."""
_FIELDS: Final = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_ROTATED_WHOLE: Final = frozenset({"llama", "mistral"})
"""Architectures whose heads are rotated in full, so that the rotated part gives their size."""


def gguf_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a ``config.json``, and what an index of the weights would say of their number.

    Raises:
        ModelError: if the file is no GGUF file, or is cut off within its header.
        OSError: if it cannot be read.
    """
    check_gguf(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            metadata, tensors = _Header(data).read()
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise ModelError(
                f"The model file {one_line(str(path))} cannot be used.",
                "Its header is damaged or cut off.",
                "Download the file again.",
            ) from error
    return _config(metadata, tensors), {"metadata": {"total_parameters": sum(map(_elements, tensors.values()))}}


class _Header:
    """Reads the header of a GGUF file from its bytes."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 8

    def read(self) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
        """All metadata but vocabularies, and the shape of every tensor."""
        count, pairs = self._number("Q"), self._number("Q")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._text()
            metadata[key] = self._value(self._number("I"))
        tensors = {}
        for _ in range(count):
            name = self._text()
            dimensions = self._number("I")
            tensors[name] = tuple(self._number("Q") for _ in range(dimensions))
            self._at += 12  # type and offset
        return metadata, tensors

    def _number(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self._data, self._at)
        self._at += struct.calcsize("<" + kind)
        return value

    def _text(self) -> str:
        size = self._number("Q")
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ValueError("a text leads out of the file")
        return self._data[start : self._at].decode("utf-8", errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._list(self._number("I"), self._number("Q"))
        if kind not in _NUMBERS:
            raise ValueError(f"type {kind}")
        return self._number(_NUMBERS[kind])

    def _list(self, kind: int, count: int) -> Any:
        if count > _MOST_ITEMS:
            raise ValueError(f"{count} items")
        if count <= _LONGEST_LIST:
            return [self._value(kind) for _ in range(count)]
        if kind in _NUMBERS:
            self._at += count * struct.calcsize("<" + _NUMBERS[kind])
            return None
        if kind != _STRING:
            raise ValueError(f"{count} items of type {kind}")
        unpack: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        data, at = self._data, self._at
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self._at = at
        return None


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _config(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    architecture = str(metadata.get("general.architecture") or "")
    config: dict[str, Any] = {"model_type": _MODEL_TYPES.get(architecture, architecture)}
    for key, name in _FIELDS.items():
        value = metadata.get(f"{architecture}.{key}")
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if value is not None:
            config[name] = value
    rotated = metadata.get(f"{architecture}.rope.dimension_count")
    if architecture in _ROTATED_WHOLE and rotated:
        config["head_dim"] = rotated
    # A row of the embeddings for each token, whatever the metadata says.
    embeddings = tensors.get("token_embd.weight")
    if embeddings is not None and len(embeddings) == 2:
        config["vocab_size"] = embeddings[1]
    if "num_experts" in config:
        config["num_local_experts"] = config["num_experts"]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    return config
