"""From a config file to a run directory that is ready to start: paths made absolute, names made free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qlora_tui.config import RunConfig
from qlora_tui.config_file import load_config
from qlora_tui.data.files import PACKINGS, SUFFIXES
from qlora_tui.errors import DataError, EnvironmentFault, ModelError, UsageError
from qlora_tui.located import located
from qlora_tui.runs.directory import RunDirectory, create_run, free_name
from qlora_tui.runs.files import write_atomic
from qlora_tui.text import one_line

EXPECTED_LOCK = "expected-lock.json"
"""What the original run met, put into its replay so that the engine can name each difference."""
_DATA_SUFFIXES = (*SUFFIXES, *PACKINGS)


def run_from_config(path: Path, *, name: str | None, overwrite: bool) -> RunDirectory:
    """The new run that the config file at ``path`` describes.

    A run's own ``config.yaml`` makes a replay: it gets a name that is free, and the lock of the original.

    Args:
        path: The config file.
        name: Name of the run instead of the config's.
        overwrite: Replace a finished run of that name.

    Raises:
        QloraError: if the config, its paths or the name cannot be used, or the run cannot be created.
    """
    config = with_absolute_paths(load_config(path), path)
    expected = _lock_beside(path)
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = name
    elif expected is not None:
        changes["name"] = free_name(config)
    if overwrite or expected is not None:
        # That the original was allowed to replace something says nothing about its replay.
        changes["output"] = config.output.model_dump() | {"overwrite": overwrite}
    try:
        config = RunConfig.model_validate(config.model_dump() | changes)
    except ValidationError as error:
        reason = one_line(str(error.errors(include_url=False)[0].get("ctx", {}).get("error", error)))
        raise UsageError(
            f"The name {one_line(name or '', 80)!r} cannot be used.", f"{reason}.", "Change --name."
        ) from None
    run = create_run(config)
    if expected is not None:
        _hand_over(run, expected)
    return run


def _lock_beside(path: Path) -> str | None:
    """The lock of the run whose own config ``path`` is, or None for any other file."""
    lock = path.resolve().with_name("lock.json")
    if path.resolve().name != "config.yaml" or not lock.is_file():
        return None
    try:
        return lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFault(
            f"Cannot replay {path}.",
            f"What the original run met, in {lock}, cannot be read: {one_line(str(error))}.",
            "Copy the config to another folder to start from it without the comparison.",
        ) from error


def _hand_over(run: RunDirectory, lock: str) -> None:
    try:
        write_atomic(run.path / EXPECTED_LOCK, lock)
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot prepare the run {run.name}.",
            f"The system says: {error.strerror or error}.",
            f"Free space and check the permissions of {run.path}.",
        ) from error


def with_absolute_paths(config: RunConfig, path: Path) -> RunConfig:
    """``config`` with every path absolute, because the run's process and a later replay work in other folders."""
    folder = path.absolute().parent
    data: dict[str, Any] = {"source": located(config.data.source, folder, DataError, _DATA_SUFFIXES)}
    if config.data.evaluation.source is not None:
        source = located(config.data.evaluation.source, folder, DataError, _DATA_SUFFIXES)
        data["evaluation"] = config.data.evaluation.model_dump() | {"source": source}
    sections: dict[str, dict[str, Any]] = {
        "data": data,
        "model": {"source": located(config.model.source, folder, ModelError, ())},
    }
    if config.output.directory is not None:
        sections["output"] = {"directory": str(Path(config.output.directory).expanduser().absolute())}
    return config.changed(**sections)
