"""Variants of a model folder's tokenizer files, made in place."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, processors


def change_json(path: Path, **values: object) -> None:
    """Sets keys of a JSON file; None removes a key."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(values)
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def set_template(folder: Path, source: str, special: tuple[str, ...] = (), strips_right: bool = False) -> Path:
    """Replaces the chat template and adds special tokens; ``strips_right`` makes them take white space behind them."""
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, rstrip=strips_right, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def begin_texts_with(folder: Path, token: str) -> Path:
    """Makes ``token`` the bos token, which the tokenizer then puts before every text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    number = tokenizer.token_to_id(token)
    tokenizer.post_processor = processors.TemplateProcessing(f"{token} $A", special_tokens=[(token, number)])
    tokenizer.save(str(folder / "tokenizer.json"))
    change_json(folder / "tokenizer_config.json", bos_token=token)
    return folder
