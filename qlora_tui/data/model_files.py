"""The small files of a model folder that say how text becomes tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.text import one_line

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MAX_FILE_BYTES = 64 * 1024 * 1024


def named_special_tokens(folder: Path) -> dict[str, str]:
    """Named special tokens of a model folder as text, such as ``{"eos_token": "</s>"}``.

    They stand in ``tokenizer_config.json``. Where that carries no ``added_tokens_decoder`` (older folders), the values
    of ``special_tokens_map.json`` come first, as in transformers.

    Raises:
        ModelError: if a file is not valid JSON.
    """
    values = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in values:
        values.update(read_json(folder / "special_tokens_map.json"))
    tokens: dict[str, str] = {}
    for name in _NAMED_TOKENS:
        value = values.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty if there is no such file.

    Raises:
        ModelError: if the file cannot be read or holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"It is not valid JSON: {one_line(str(error))}.") from error
    if not isinstance(value, dict):
        raise _unreadable(path, "It does not hold a JSON object.")
    return value


def read_text(path: Path) -> str:
    """The UTF-8 text in ``path``.

    Raises:
        ModelError: if the file cannot be read, is larger than 64 MiB, or is not UTF-8.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise _unreadable(path, f"It is larger than {_MAX_FILE_BYTES // 1024**2} MiB.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(path, "It is not UTF-8 text.") from error
    except OSError as error:
        raise _unreadable(path, f"The system says: {error.strerror}.") from error


def _unreadable(path: Path, why: str) -> ModelError:
    return ModelError(f"The model file {one_line(str(path), 160)!r} cannot be read.", why, "Download the model again.")
