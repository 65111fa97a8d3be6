"""Data sets on the hub: which files hold the rows of a subset's split, fetched when their turn comes.

The card of a data set says which files belong to which subset and split; where it does not, their names do. Rows are
read from the files themselves, as those of a folder are, so that nothing is lost on the way and every error names its
file and line. What is large is read over the network without being kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import httpx2
import yaml
from fsspec.utils import glob_translate
from huggingface_hub import (
    HfApi,
    HfFileSystem,
    constants,
    get_cached_repo_tree,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.repocard import metadata_load

from qlora_tui.data.files import KNOWN, DataFile, file_form
from qlora_tui.data.source import Source, by_split, choose_split, is_data_name, one_form
from qlora_tui.errors import DataError, QloraError
from qlora_tui.models.hub import ask_patiently, can_be_revision, require_space, snapshot
from qlora_tui.models.hub_faults import DATA, explain, reason
from qlora_tui.models.hub_progress import Meter, Progress
from qlora_tui.text import one_line

STREAMED_BYTES = 2 << 30
"""A split of more than this is read over the network and not kept."""

_CARD = "README.md"
_DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set on the hub: its files of one split, its card, and what to know of the way it was found."""

    source: Source
    card: Path | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Repository:
    """One commit of a data set."""

    name: str
    commit: str
    sizes: dict[str, int]
    offline: bool
    progress: Progress | None

    def fetch(self, name: str) -> Path:
        """A file of it, in the hub's cache.

        Raises:
            QloraError: if it cannot be fetched.
        """
        with told(self.name, self.commit):
            known = try_to_load_from_cache(self.name, name, repo_type="dataset", revision=self.commit)
            if isinstance(known, str):
                return Path(known)
            if self.offline:
                raise LocalEntryNotFoundError(name)
            require_space(self.sizes[name], Path(constants.HF_HUB_CACHE), "data set")
            meter = Meter(self.progress, self.sizes[name])
            return snapshot(self.name, self.commit, [name], offline=False, meter=meter, kind="dataset") / name

    def card(self, revision: str | None) -> Path | None:
        """The README. With it comes the listing that finds the files again without a network, so some file has to come.

        Args:
            revision: What was asked for; a branch is remembered with the commit it stands for.
        """
        name = _CARD if _CARD in self.sizes else min(self.sizes, key=lambda each: self.sizes[each], default=None)
        if name is None:
            return None
        with told(self.name, revision):
            path = snapshot(self.name, revision, [name], offline=self.offline, kind="dataset") / name
        return path if name == _CARD and path.is_file() else None

    def open(self, name: str) -> IO[bytes]:
        """A file of it, fetched first."""
        return self.fetch(name).open("rb")

    def stream(self, name: str) -> IO[bytes]:
        """A file of it, read over the network piece by piece."""
        with told(self.name, self.commit):
            system = HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)
            file = system.open(f"datasets/{self.name}@{self.commit}/{name}", "rb")
            return io.BufferedReader(file, 1 << 20)


def hub_data(source: Source, progress: Progress | None = None) -> HubData:
    """The files of a data set on the hub.

    Args:
        source: What the config names; its split may be one that has to be chosen.
        progress: Called with bytes done and bytes in all of each file that is fetched, from any thread.

    Raises:
        DataError: if there is no such data set, revision, subset or split, or it is gated.
        EnvironmentFault: if the hub cannot be reached and the cache does not help.
    """
    repository, notes = _repository(source, progress)
    card = repository.card(source.revision)
    facts = _facts(card)
    splits = _splits(source, repository, facts)
    chosen = choose_split(source.asked, splits, source.name)
    names = splits[chosen.name]
    unread = next((name for name in names if file_form(name) is None), None)
    if unread is not None:
        raise DataError(
            f"The data set {one_line(source.name, 120)} is not read.",
            f"Its file {one_line(unread, 80)!r} is of another kind. Files of rows end in {KNOWN}.",
            "Write its rows into such a file.",
        )
    streamed = not repository.offline and sum(repository.sizes[name] for name in names) > STREAMED_BYTES
    if streamed:
        total = sum(repository.sizes[name] for name in names)
        notes += (f"The data set is large ({total / 1e9:.1f} GB): it is read over the network and not kept.",)
    files = [_file(repository, name, streamed) for name in names]
    found = replace(source, split=chosen, files=one_form(source.name, files), revision=repository.commit)
    return HubData(found, card, notes)


def _file(repository: _Repository, name: str, streamed: bool) -> DataFile:
    form = file_form(name)
    assert form is not None
    reads = repository.stream if streamed else repository.open
    return DataFile(f"{repository.name}/{name}", *form, lambda: reads(name), repository.sizes[name])


def _repository(source: Source, progress: Progress | None) -> tuple[_Repository, tuple[str, ...]]:
    revision = source.revision
    if revision is not None and not can_be_revision(revision):
        why = f"{one_line(revision, 60)!r} cannot be the name of a branch, a tag or a commit."
        hint = "Correct data.revision, or leave it null."
        raise DataError(f"The data set {one_line(source.name, 120)} cannot be used.", why, hint)
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision) and (sizes := _cached(source.name, revision)):
        return _Repository(source.name, revision, sizes, offline=constants.HF_HUB_OFFLINE, progress=progress), ()
    try:
        commit, sizes = ask_patiently(HfApi().dataset_info, source.name, revision)
        return _Repository(source.name, commit or "main", sizes, offline=False, progress=progress), ()
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        fault, why = explain(error, source.name, revision, DATA), reason(error)
    # Outside the handler on purpose: a server's answer may repeat the token it was sent.
    if sizes := _cached(source.name, revision):
        commit = _cached_commit(source.name, revision)
        note = f"The hub was not used ({why}); the data set is commit {commit[:12]} as it lies in the cache."
        return _Repository(source.name, commit, sizes, offline=True, progress=progress), (note,)
    raise fault


def _cached(name: str, revision: str | None) -> dict[str, int]:
    """What the cache knows of a data set's files; empty if nothing."""
    try:
        files = get_cached_repo_tree(name, repo_type="dataset", revision=revision)
        return {file.path: file.size for file in files}
    except CachedRepoTreeNotFoundError:
        return {}


def _cached_commit(name: str, revision: str | None) -> str:
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "refs"
    return (folder / (revision or "main")).read_text(encoding="utf-8").strip()


def _facts(card: Path | None) -> dict[str, Any]:
    """What the card tells machines; nothing if it is not readable."""
    if card is None:
        return {}
    try:
        facts = metadata_load(card)
    except (ValueError, OSError, yaml.YAMLError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _splits(source: Source, repository: _Repository, facts: dict[str, Any]) -> dict[str, list[str]]:
    """The files of each split of the subset asked for.

    Raises:
        DataError: if there is no such subset, or several and none was asked for.
    """
    subsets = {
        str(each["config_name"]): each
        for each in facts.get("configs") or []
        if isinstance(each, dict) and "config_name" in each
    }
    if not subsets:
        return _by_name(source, repository.sizes)
    if source.subset is None and len(subsets) > 1:
        chosen = next((name for name, each in subsets.items() if each.get("default") or name == _DEFAULT), None)
    else:
        chosen = source.subset or next(iter(subsets))
    if chosen not in subsets:
        what = "has several subsets" if chosen is None else f"has no subset {one_line(chosen, 40)!r}"
        raise DataError(
            f"The data set {one_line(source.name, 120)} {what}.",
            f"Its subsets are {', '.join(one_line(name, 40) for name in list(subsets)[:12])}.",
            "Name one of them in data.subset.",
        )
    return _of_subset(source, repository, subsets[chosen])


def _of_subset(source: Source, repository: _Repository, subset: dict[str, Any]) -> dict[str, list[str]]:
    """The files that the card lists for a subset, by split."""
    folder = str(subset.get("data_dir") or "").strip("/")
    listed = subset.get("data_files")
    if listed is None:
        inside = [name for name in repository.sizes if not folder or name.startswith(f"{folder}/")]
        return _by_name(replace(source, subset=None), inside)
    entries = listed if isinstance(listed, list) else [listed]
    splits: dict[str, list[str]] = {}
    for entry in entries:
        split, patterns = ("train", entry) if isinstance(entry, str) else (entry.get("split"), entry.get("path"))
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            found = _matching(f"{folder}/{pattern}" if folder else str(pattern), repository.sizes)
            splits.setdefault(str(split), []).extend(name for name in found if name not in splits.get(str(split), []))
    whole = {split: names for split, names in splits.items() if names}
    if not whole:
        raise DataError(
            f"The data set {one_line(source.name, 120)} has no files.",
            "Its card names files that it does not hold.",
            "Choose another data set, or name its files by hand: download them.",
        )
    return whole


def _matching(pattern: str, names: Collection[str]) -> list[str]:
    regex = re.compile(glob_translate(pattern.removeprefix("./")))
    return sorted(name for name in names if regex.match(name))


def _by_name(source: Source, names: Collection[str]) -> dict[str, list[str]]:
    """Data files by the split that their names tell; a subset that no card knows is a folder."""
    if source.subset is not None:
        names = [name for name in names if source.subset in PurePosixPath(name).parts[:-1]]
    data = sorted(name for name in names if is_data_name(PurePosixPath(name).name) and not _is_hidden(name))
    if not data:
        kinds = sorted({PurePosixPath(name).suffix for name in names if not _is_hidden(name)} - {"", ".md"})
        raise DataError(
            f"The data set {one_line(source.name, 120)} holds no files of rows"
            + (f" in a folder {one_line(source.subset, 40)!r}." if source.subset else "."),
            f"Files of rows end in {KNOWN}; it holds {', '.join(kinds[:12]) or 'none at all'}.",
            "Write its rows into such a file.",
        )
    return by_split({name: name for name in data}, source.name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)


@contextmanager
def told(repository: str, revision: str | None) -> Iterator[None]:
    """Turns what the hub's client raises into sentences."""
    fault: QloraError
    try:
        yield
        return
    except LocalEntryNotFoundError:
        fault = DataError(
            f"The data set {one_line(repository, 120)} is not whole in the cache.",
            "A file of it was never fetched, and the hub cannot be asked now.",
            "Try again when the hub can be reached, with HF_HUB_OFFLINE unset.",
        )
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        fault = explain(error, repository, revision, DATA)
    raise fault from None  # what the hub wrote may repeat the token it was sent
