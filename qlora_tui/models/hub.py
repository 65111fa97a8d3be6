"""Models from the hub: which files of a repository are needed, fetched once, and found again without a network.

The hub's own client downloads, resumes and caches. Around it stand a first question with a time limit (the client's
own has none), a choice of files that leaves pickles and duplicates where they are, and refusal before the long
download instead of after it.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)

from qlora_tui.errors import EnvironmentFault, ModelError
from qlora_tui.models import folder as model_folder
from qlora_tui.models.hub_faults import BAD_TOKEN, explain, reason
from qlora_tui.models.hub_progress import Meter, Progress, bar_class
from qlora_tui.text import one_line

logger = logging.getLogger(__name__)

_COMMIT = re.compile("[0-9a-f]{40}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]*")
_RETRY_WAITS = (1.0, 2.0)
_BUSY = {408, 429, 500, 502, 503, 504}
_SMALL_FILES = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
}
# What code of a model's own may open besides the usual files.
_CODE_FILES = (".py", ".json", ".tiktoken", ".model")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a repository, as far as it was asked for, in the hub's cache."""

    folder: Path
    commit: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    repository: str
    revision: str | None
    trust_remote_code: bool
    weights: bool
    progress: Progress | None


def fetch(
    repository: str,
    revision: str | None,
    *,
    trust_remote_code: bool,
    weights: bool,
    progress: Progress | None = None,
) -> Snapshot:
    """Bring a model's files into the hub's cache.

    A pinned commit that is in the cache needs no network at all; a branch whose hub cannot be asked is taken from the
    cache as it was last seen, and the snapshot's note says so.

    Raises:
        ModelError: if there is no such model or revision, it is gated, or it must not or cannot be used.
        EnvironmentFault: if the hub cannot be reached and the cache does not help, or the disk is full.
    """
    if revision is not None and not can_be_revision(revision):
        why = f"{one_line(revision, 60)!r} cannot be the name of a branch, a tag or a commit."
        raise ModelError(f"The model {repository} cannot be used.", why, "Correct model.revision, or leave it null.")
    request = _Request(repository, revision, trust_remote_code, weights, progress)
    if revision is not None and _COMMIT.fullmatch(revision) and (snapshot := _from_cache(request)):
        return snapshot
    try:
        return _collect(request, _ask(request), offline=False)
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        fault, why = explain(error, repository, revision), reason(error)
        gone = isinstance(error, RevisionNotFoundError)
    # Outside the handler on purpose: a server's answer may repeat the token it was sent, so it must not become the
    # context of what is raised here and thereby part of a logged traceback.
    if not gone and (snapshot := _from_cache(request)):
        note = f"The hub was not used ({why}); the model is commit {snapshot.commit[:12]} as it lies in the cache."
        logger.warning(note)
        return Snapshot(snapshot.folder, snapshot.commit, note)
    raise fault


def can_be_revision(name: str) -> bool:
    """Whether a branch, a tag or a commit can have this name."""
    return _REVISION.fullmatch(name) is not None and ".." not in name


def _ask(request: _Request) -> dict[str, int]:
    """The repository's files and sizes."""
    return ask_patiently(HfApi().model_info, request.repository, request.revision)[1]


def ask_patiently(
    question: Callable[..., Any], repository: str, revision: str | None
) -> tuple[str | None, dict[str, int]]:
    """A repository's commit, and its files with their sizes; asked with a time limit, and again if the hub is busy.

    Args:
        question: The client's question for what a repository is.

    Raises:
        HfHubHTTPError, httpx2.HTTPError, OSError: if there is no answer.
    """
    waits = iter(_RETRY_WAITS)
    while True:
        try:
            information = question(
                repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
            )
            return information.sha, {file.rfilename: file.size or 0 for file in information.siblings or []}
        except HfHubHTTPError as error:
            wait = next(waits, None)
            if wait is None or error.response.status_code not in _BUSY:
                raise
            time.sleep(wait)
        except UnicodeEncodeError:
            raise OSError(BAD_TOKEN) from None
        except (ValueError, KeyError, TypeError) as error:
            raise OSError("the answer is not a hub's, perhaps a login page of the network") from error


def _from_cache(request: _Request) -> Snapshot | None:
    """The model from the cache alone, or None if it is not there or not whole."""
    sizes = _cached_files(request)
    try:
        return _collect(request, sizes, offline=True)
    except (LocalEntryNotFoundError, model_folder.MissingFiles):
        return None


def _cached_files(request: _Request) -> dict[str, int]:
    """What the cache knows of the repository's files: the whole listing, or else what happens to be there."""
    try:
        files = get_cached_repo_tree(request.repository, revision=request.revision)
        return {file.path: file.size for file in files}
    except CachedRepoTreeNotFoundError:
        # Put there file by file, by another program.
        path = try_to_load_from_cache(request.repository, "config.json", revision=request.revision)
        entries = Path(path).parent.iterdir() if isinstance(path, str) else ()
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def _collect(request: _Request, sizes: dict[str, int], *, offline: bool) -> Snapshot:
    """Small files first: they can rule the model out before gigabytes are fetched."""
    model_folder.check_names(sizes, f"The model {request.repository}", weights=request.weights)
    names = small_files(sizes, code=request.trust_remote_code, weights=request.weights)
    folder = snapshot(request.repository, request.revision, names, offline=offline)
    model_folder.needs_remote_code(folder, request.trust_remote_code)
    if request.weights:
        names = model_folder.weight_files(folder, sizes)
        missing = sum(sizes[name] for name in names if not (folder / name).exists())
        if not offline:
            require_space(missing, folder)
        meter = Meter(request.progress, missing)
        # The commit, so that a branch that moves meanwhile does not mix two versions.
        snapshot(request.repository, folder.name, names, offline=offline, meter=meter)
    return Snapshot(folder, folder.name)


def small_files(names: Collection[str], *, code: bool, weights: bool) -> list[str]:
    """The files of a model besides its weights; anything a folder down belongs to other formats and is left out."""
    chosen = {name for name in names if name in _SMALL_FILES or name.upper().startswith(("LICENSE", "NOTICE"))}
    if code:
        chosen |= {name for name in names if name.endswith(_CODE_FILES) and not name.endswith(".index.json")}
    if weights and model_folder.WEIGHTS not in names:
        chosen |= {model_folder.INDEX}
    if "tokenizer.json" not in names:
        chosen |= {name for name in names if name.endswith(".model")}
    return sorted(name for name in chosen if "/" not in name and "\\" not in name)


def require_space(size: int, folder: Path, wanted: str = "model") -> None:
    """Raise now rather than in the middle of the download.

    Raises:
        EnvironmentFault: if the disk of ``folder`` has less than ``size`` bytes free.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise EnvironmentFault(
            f"The {wanted} is not downloaded.",
            f"It needs {size / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are left on the disk of "
            f"{one_line(constants.HF_HUB_CACHE)}.",
            "Free some space, or move the hub's cache with HF_HOME.",
        )


def snapshot(
    repository: str,
    revision: str | None,
    names: list[str],
    *,
    offline: bool,
    meter: Meter | None = None,
    kind: str = "model",
) -> Path:
    """The folder of a commit in the hub's cache, with some of its files, and the listing of all of them.

    Raises:
        HfHubHTTPError, httpx2.HTTPError, OSError: if the hub's client cannot fetch them.
    """
    folder = snapshot_download(
        repository,
        repo_type=kind,
        revision=revision,
        allow_patterns=[escape(name) for name in names],
        local_files_only=offline,
        tqdm_class=bar_class(meter),
    )
    return Path(folder)
