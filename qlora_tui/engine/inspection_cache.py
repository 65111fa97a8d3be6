"""Inspections remembered: what was found stays true while data, settings, tokenizer and this program are the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from qlora_tui import data as data_package
from qlora_tui.config import RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.inspection import Inspection, from_json, to_json
from qlora_tui.models.sources import ModelFiles
from qlora_tui.paths import cache_directory
from qlora_tui.runs.files import write_atomic

_LIBRARIES = ("tokenizers", "jinja2", "rensa", "ftfy", "phonenumbers", "python-stdnum")
KEPT = 64
"""Inspections remembered; the one that was not used for longest goes first."""


def key(config: RunConfig, fingerprints: dict[str, str], encoder: Encoder, model: ModelFiles) -> str:
    """What an inspection depends on, as one hash.

    Args:
        fingerprints: SHA-256 of each part's bytes.
    """
    settings = config.data.model_dump(mode="json")
    del settings["packing"], settings["evaluation"]["fraction"]
    depends = {
        "data": settings,
        "fingerprints": fingerprints,
        "template": encoder.template_fingerprint,
        "tokenizer": encoder.tokenizer_fingerprint,
        "licence": model.licence,
        "code": _code(),
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    """SHA-256 of what makes an inspection, libraries included: another version of it may find other things."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in [*sorted(Path(next(iter(data_package.__path__))).glob("*.py")), here / "inspection.py"]:
        digest.update(path.read_bytes())
    for name in _LIBRARIES:
        digest.update(f"{name}={importlib.metadata.version(name)}".encode())
    return digest.hexdigest()


def _folder() -> Path:
    return cache_directory() / "inspections"


def read(name: str) -> Inspection | None:
    """The remembered inspection; None if there is none, or it is damaged."""
    path = _folder() / f"{name}.json"
    try:
        found = from_json(Inspection, path.read_bytes())
    except (OSError, ValueError):
        return None
    with suppress(OSError):
        os.utime(path)
    return replace(found, cached=True)


def write(name: str, inspection: Inspection) -> None:
    """Remember an inspection, if the cache can be written; else it is made again next time."""
    folder = _folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it holds short excerpts of rows
        write_atomic(folder / f"{name}.json", to_json(inspection))
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[KEPT:]:
            path.unlink()
