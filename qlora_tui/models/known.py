"""What a model is made of, from what is on this machine: a folder, a GGUF file, the hub's cache, the catalog.

Nothing is downloaded as long as any of these knows the model, and no hub library is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qlora_tui.config import ModelSection
from qlora_tui.errors import EnvironmentFault
from qlora_tui.models.folder import CONFIGURATION, shape_of_folder
from qlora_tui.models.gguf_header import gguf_config
from qlora_tui.models.shape import ModelShape, shape_from_config
from qlora_tui.models.sources import bundled_model, refuse_missing_path, resolve_model, user_path
from qlora_tui.paths import downloads_directory
from qlora_tui.text import one_line

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model and its shape.

    Attributes:
        id: Its source, as the config names it.
        folder: Where its configuration lies; None where it comes from the catalog or a GGUF file.
        config: The fields of its configuration, where there is no folder.
        notes: What the user should know of where the figures come from.
    """

    id: str
    shape: ModelShape
    folder: Path | None = None
    config: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def known_model(section: ModelSection) -> KnownModel:
    """The model that a config names.

    Raises:
        ModelError: if there is no such model, or its configuration cannot be used.
        EnvironmentFault: if it would have to be asked of the hub, and the hub cannot be reached.
    """
    source = section.source.strip()
    path = user_path(source)
    try:
        if os.path.exists(path):
            if not path.is_dir():
                return _from_gguf(source, path)
            return KnownModel(source, shape_of_folder(path), path)
        if (bundled := bundled_model(source)) is not None:
            if bundled.path is not None:
                return _from_gguf(source, bundled.path)
            note = f"It is not installed yet: `{bundled.install_command}`."
            return replace(_from_catalog(bundled.hub_id), id=source, notes=(note,))
        refuse_missing_path(source)
        if (folder := cached_folder(source, section.revision)) is not None:
            return KnownModel(source, shape_of_folder(folder), folder)
    except OSError as error:
        raise EnvironmentFault(
            f"The model {one_line(source)} cannot be read.",
            f"{one_line(error.strerror or str(error))}: {one_line(str(error.filename or source))}.",
            "Check that the path is right and that you may read it.",
        ) from error
    try:
        return _from_catalog(source)
    except KeyError:
        return _from_hub(section)


def cached_folder(repository: str, revision: str | None = None) -> Path | None:
    """Where the hub's client has put a repository's configuration; None if it has not."""
    root = downloads_directory() / ("models--" + repository.replace("/", "--"))
    commit = revision if revision is not None and _COMMIT.fullmatch(revision) else _commit(root, revision or "main")
    if commit is None:
        return None
    folder = root / "snapshots" / commit
    return folder if (folder / CONFIGURATION).is_file() else None


def cached_repositories() -> Iterator[tuple[str, Path]]:
    """Every repository in the hub's cache whose configuration is there, and where it lies."""
    try:
        names = sorted(entry.name for entry in downloads_directory().iterdir() if entry.name.startswith("models--"))
    except OSError:
        return
    for name in names:
        repository = name.removeprefix("models--").replace("--", "/")
        if (folder := cached_folder(repository)) is not None:
            yield repository, folder


def _commit(root: Path, reference: str) -> str | None:
    if ".." in reference.split("/"):
        return None
    try:
        commit = (root / "refs" / reference).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _from_gguf(source: str, path: Path) -> KnownModel:
    config, index = gguf_config(path)
    return KnownModel(source, shape_from_config(config, index=index), config=config)


def _from_catalog(model_id: str) -> KnownModel:
    """The catalog's model of this id.

    Raises:
        KeyError: if it is not listed.
    """
    # Imported here: models on this machine do not need it.
    from qlora_tui.models.catalog import catalog_entry

    entry = catalog_entry(model_id)
    if entry is None:
        raise KeyError(model_id)
    return KnownModel(model_id, entry.shape(), config=entry.config)


def _from_hub(section: ModelSection) -> KnownModel:
    """Ask the hub for the configuration alone."""
    files = resolve_model(section, weights=False)
    return KnownModel(section.source, shape_of_folder(files.folder), files.folder, notes=files.notes)
