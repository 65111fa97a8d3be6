"""What a data source string names: a file, a folder of files, a bundled sample or a data set on the hub, checked.

What it means does not depend on the network: an existing path wins, then ``bundled:NAME``, then whatever looks like a
path (a missing one is an error, never a hub id), and only a plain ``owner/name`` is a data set on the hub.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qlora_tui.config import DataSection
from qlora_tui.data.files import KNOWN, DataFile, file_form, local_file
from qlora_tui.data.slices import Split, parse_split, split_in_name
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

BUNDLED = "bundled:"
SAMPLES = Path(__file__).parent / "samples"
"""The bundled samples, one file each."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_NOT_DATA = re.compile(r"(readme|licen[cs]e|notice|changelog|dataset_infos?|dataset_dict|state)\b.*", re.IGNORECASE)
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_MOST_FILES = 10_000
_SUPPORTED = f"Files of rows end in {KNOWN}."


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was read: ``values`` maps column to value.

    ``number`` is the row's line, counted from 1, or its place where rows have no lines or come from several files;
    ``place`` then says where it stands. ``size`` is roughly its length in bytes.
    """

    number: int
    values: dict[str, Any]
    place: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows of a run come from: the files of one split, on this machine or on the hub.

    ``asked`` is the split as it was asked for, ``split`` the one that was found. For a data set on the hub ``files`` is
    None until the hub has been asked for them; ``revision`` is then what was asked for, and later the commit.
    """

    name: str
    asked: str | None
    split: Split
    files: tuple[DataFile, ...] | None
    subset: str | None = None
    revision: str | None = None

    @property
    def is_light(self) -> bool:
        """Whether the standard library can read it, without the network: quickly and in any process."""
        return self.files is not None and all(file.is_light for file in self.files)

    @property
    def card(self) -> Path | None:
        """Where a README of the data would lie."""
        path = self.files[0].path if self.files else None
        return None if path is None else path.parent / "README.md"


def find_source(
    source: str, split: str | None = "train", subset: str | None = None, revision: str | None = None
) -> Source:
    """What ``source`` names.

    Args:
        split: A split's name, or a slice of it such as ``train[:2%]``; None is the one made for evaluation, or the
            only one.
        subset: Configuration of a data set on the hub that has several.
        revision: Branch, tag or commit of a data set on the hub.

    Raises:
        DataError: if there is no such file, folder or split, or no such data set can be.
    """
    if source.startswith(BUNDLED):
        path = _bundled(source.removeprefix(BUNDLED))
        return _of_files(source, [path], path.parent, split, subset, revision)
    try:
        path = Path(source).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"The data source {one_line(source, 120)!r} is not a usable path.", f"{one_line(str(error))}.", _SUPPORTED
        ) from error
    if is_file:
        if local_file(path) is None:
            is_sheet = path.suffix.lower() in _SPREADSHEETS
            raise DataError(
                f"The file {_shown(source)} is not read.",
                f"{'It is a spreadsheet' if is_sheet else 'Its name does not say what it holds'}. {_SUPPORTED}",
                "Save it as CSV in UTF-8, with the names of the columns in the first line."
                if is_sheet
                else "Name it by what it holds; for other kinds of files, write JSON lines (.jsonl).",
            )
        return _of_files(source, [path], path.parent, split, subset, revision)
    if is_folder:
        return _of_files(source, _data_files(path), path, split, subset, revision)
    if path.exists():
        raise DataError(f"The data source {_shown(source)} is neither a file nor a folder.", _SUPPORTED, "Name a file.")
    _refuse_missing_path(source, path)
    return Source(source, split, parse_split(split or "test"), None, subset, revision)


def training_source(section: DataSection) -> Source:
    """The rows to train on.

    Raises:
        DataError: as :func:`find_source`.
    """
    return find_source(section.source, section.split, section.subset, section.revision)


def evaluation_source(section: DataSection) -> Source | None:
    """The rows to measure with; None if a share of the training rows is held out instead.

    Raises:
        DataError: as :func:`find_source`.
    """
    evaluation = section.evaluation
    if evaluation.source is None and evaluation.split is None:
        return None
    if evaluation.source in (None, section.source):
        return find_source(section.source, evaluation.split, section.subset, section.revision)
    return find_source(str(evaluation.source), evaluation.split)


def sample_names() -> list[str]:
    """The bundled samples."""
    return sorted(path.stem for path in SAMPLES.glob("*.jsonl"))


def _bundled(name: str) -> Path:
    if name not in sample_names():
        raise DataError(
            f"There is no bundled sample {one_line(name, 60)!r}.",
            f"There are {', '.join(BUNDLED + known for known in sample_names())}.",
            "Use one of them, or give a file, a folder or a data set on the hub.",
        )
    return SAMPLES / f"{name}.jsonl"


def _refuse_missing_path(source: str, path: Path) -> None:
    """Raise unless ``source`` is a hub id."""
    looks_like_path = source.startswith(("/", ".", "~")) or "\\" in source or source.endswith("/")
    if source.startswith(("http://", "https://", "hf://")):
        raise DataError(
            f"The data source {_shown(source)} is an address.",
            "Addresses are not read.",
            "Give a data set on the hub as owner/name, the last two parts of its page's address; download other files.",
        )
    if looks_like_path or file_form(source) or not _HUB_ID.fullmatch(source) or ".." in source or "--" in source:
        raise DataError(
            f"The data file {_shown(source)} does not exist.",
            f"Looked in {one_line(str(path.absolute().parent))}.",
            _nearest_file(path),
        )


def _nearest_file(path: Path) -> str:
    try:
        names = [entry.name for entry in islice(path.absolute().parent.iterdir(), 1000)]
    except OSError:
        return "Check the folder's name."
    near = difflib.get_close_matches(path.name, names, n=1)
    return (
        f"Did you mean {one_line(near[0], 80)!r}?" if near else "Check the path; it is relative to the current folder."
    )


def is_data_name(name: str) -> bool:
    """Whether a file of that name in a folder is one of rows."""
    return not _is_hidden(name) and not _NOT_DATA.fullmatch(name) and file_form(name) is not None


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _data_files(folder: Path) -> list[Path]:
    """The data files in a folder and below, in the order of their names."""
    found = []
    try:
        for path in islice(folder.rglob("*"), 10 * _MOST_FILES):
            *folders, name = path.relative_to(folder).parts
            if is_data_name(name) and not any(map(_is_hidden, folders)) and path.is_file():
                found.append(path)
    except OSError as error:
        raise DataError(
            f"The folder {_shown(str(folder))} cannot be read.",
            f"The system says: {error.strerror or type(error).__name__}.",
            "Check its permissions.",
        ) from error
    if not found or len(found) > _MOST_FILES:
        count = "no data file" if not found else f"more than {_MOST_FILES:,} data files"
        raise DataError(f"The folder {_shown(str(folder))} holds {count}.", _SUPPORTED, "Name a file, or its folder.")
    return sorted(found)


def _of_files(
    source: str, paths: Sequence[Path], folder: Path, split: str | None, subset: str | None, revision: str | None
) -> Source:
    for name, value in (("subset", subset), ("revision", revision)):
        if value:
            raise DataError(
                f"There is no {name} {one_line(value, 40)!r}.",
                f"Files have none; only data sets on the hub have a {name}.",
                f"Remove data.{name} from the config.",
            )
    several = len(paths) > 1
    names = {str(path): path.relative_to(folder).as_posix() for path in paths}
    splits = by_split(names, source) if several else {"train": [str(paths[0])]}
    chosen = choose_split(split, splits, source)
    files = [local_file(Path(path)) for path in splits[chosen.name]]
    return Source(source, split, chosen, one_form(source, [file for file in files if file is not None]))


def by_split(names: dict[str, str], source: str) -> dict[str, list[str]]:
    """Files by the split that their names tell; all are for training if none tells one.

    Args:
        names: A file -> its name below the folder that was given.

    Raises:
        DataError: if some tell a split and others do not.
    """
    splits: dict[str, list[str]] = {}
    untold = []
    for path, name in names.items():
        split = split_in_name(name)
        if split is None:
            untold.append(path)
        else:
            splits.setdefault(split, []).append(path)
    if not splits:
        return {"train": untold}
    if untold:
        told = splits[next(iter(splits))][0]
        raise DataError(
            f"It is not clear which files of {_shown(source)} are for training.",
            f"The name {one_line(names[told], 80)!r} tells a split, the name {one_line(names[untold[0]], 80)!r} none.",
            "Name one file in data.source, or put train, validation or test into the name of each.",
        )
    return splits


def choose_split(split: str | None, splits: Collection[str], source: str) -> Split:
    """The split asked for, of those there are.

    Args:
        split: As for :func:`find_source`.

    Raises:
        DataError: if there is no such split.
    """
    if split is None:
        return Split(next((name for name in ("test", "validation") if name in splits), next(iter(splits))))
    chosen = parse_split(split)
    if chosen.name not in splits:
        known = ", ".join(one_line(name, 40) for name in list(splits)[:12])
        raise DataError(
            f"{one_line(source, 120)!r} has no split {chosen.name!r}.",
            f"It has {known}.",
            f"Set data.split to {next(iter(splits))}, or to a slice such as {next(iter(splits))}[:100].",
        )
    return chosen


def one_form(source: str, files: Sequence[DataFile]) -> tuple[DataFile, ...]:
    """The files, which must all be of one form: columns of different ones seldom fit.

    Raises:
        DataError: if they are not.
    """
    other = next((file for file in files if file.form != files[0].form), None)
    if other is not None:
        raise DataError(
            f"The files of {_shown(source)} are of different kinds.",
            f"{files[0].shown} is {files[0].form}, {other.shown} is {other.form}.",
            "Name one file in data.source, or keep one kind in the folder.",
        )
    return tuple(files)


def combined(prints: Iterable[tuple[str, str]]) -> str:
    """One fingerprint for several files: that of the only one, or one over all names and fingerprints."""
    pairs = list(prints)
    if len(pairs) == 1:
        return pairs[0][1]
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in pairs).encode()).hexdigest()


def _shown(source: str) -> str:
    return repr(one_line(source, 160))
