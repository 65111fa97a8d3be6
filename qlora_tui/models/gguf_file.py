"""A GGUF file before its conversion: is it one, which one is it, and where does its conversion go."""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from qlora_tui.errors import ModelError
from qlora_tui.paths import cache_directory
from qlora_tui.text import one_line

_SPLIT_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)


def check_gguf(path: Path) -> None:
    """Check that a file is one whole model in GGUF.

    Raises:
        ModelError: if it is something else, of another version, or one part of several.
        OSError: if it cannot be read.
    """
    what = f"The model file {one_line(str(path))} cannot be used."
    with path.open("rb") as file:
        header = file.read(8)
    if header[:4] != b"GGUF":
        if path.suffix.lower() == ".gguf":
            hint = "Download the file again; an interrupted download or an error page often looks like this."
            raise ModelError(what, "It does not start like a GGUF file.", hint)
        raise ModelError(what, "A single file can only be a .gguf file.", "Give the folder that holds config.json.")
    version = int.from_bytes(header[4:8], "little")
    if version not in (2, 3):
        why = f"Its GGUF version is {version}, or its bytes are in the other order; versions 2 and 3 can be read."
        raise ModelError(what, why, "Look for a newer export of the model.")
    if _SPLIT_GGUF.search(path.name):
        hint = "Join the parts with `llama-gguf-split --merge` and give the joined file."
        raise ModelError(what, "It is one part of a model that was split over several files.", hint)


def remembered_sha256(path: Path) -> str:
    """The file's SHA-256, not computed again while its size and time of change stay the same."""
    memory = cache_directory() / "models" / "digests.json"
    key, status = str(path.resolve()), path.stat()
    known: dict[str, dict[str, object]] = {}
    with suppress(OSError, ValueError):
        loaded = json.loads(memory.read_bytes())
        known = loaded if isinstance(loaded, dict) else {}
    entry = known.get(key)
    if isinstance(entry, dict) and (entry.get("size"), entry.get("mtime")) == (status.st_size, status.st_mtime_ns):
        digest = entry.get("sha256")
        if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest):
            return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known[key] = {"size": status.st_size, "mtime": status.st_mtime_ns, "sha256": digest}
    # Only a saving of time, so a cache that cannot be written is no reason to fail.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        draft = memory.with_name(f"digests.{os.getpid()}.tmp")
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
        draft.replace(memory)
    return digest


def conversion_folder(path: Path, digest: str) -> Path:
    """The cache folder of the file's conversion: named for the reader, told apart by content."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")[:64] or "model"
    return cache_directory() / "models" / f"{stem}-{digest[:16]}"
