"""A run's directory: its names, how it is created and opened, and what state it is in.

Configs and events need pydantic, which takes longer to load than a list of no runs: they are imported where they are
used.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from qlora_tui.errors import EnvironmentFault, RunError
from qlora_tui.paths import runs_directory
from qlora_tui.runs.files import write_atomic

if TYPE_CHECKING:
    from qlora_tui.config import RunConfig

RunStatus = Literal["created", "running", "completed", "early_stopped", "stopped", "failed", "interrupted"]

MARKER = "events.jsonl"
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run. Nothing is read or written until asked."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def lock(self) -> Path:
        return self.path / "lock.json"

    @property
    def events(self) -> Path:
        return self.path / MARKER

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def process(self) -> Path:
        return self.path / "process.json"

    @property
    def gpu(self) -> Path:
        """Holds the uuid of the GPU that was chosen for the run, if one was."""
        return self.path / "gpu"

    def read_config(self) -> RunConfig:
        """The run's config.

        Raises:
            ConfigError: if the file is missing or damaged.
        """
        from qlora_tui.config_file import load_config

        return load_config(self.config)

    def claim(self) -> None:
        """Record the calling process as the one that owns this run."""
        me = psutil.Process()
        write_atomic(self.process, json.dumps({"pid": me.pid, "created": me.create_time()}))

    def owner(self) -> int | None:
        """The process id of the live owner, or None: a run is alive if its process is, whatever its log says."""
        try:
            record = json.loads(self.process.read_text(encoding="utf-8"))
            process = psutil.Process(int(record["pid"]))
            # A process id is used again after a reboot or a long while; its start time tells the two apart.
            alive = abs(process.create_time() - float(record["created"])) < 1.0
            return process.pid if alive and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None

    def status(self) -> RunStatus:
        """What the run is doing, or how it ended."""
        if self.owner() is not None:
            return "running"
        from qlora_tui.runs.events import RunFinished
        from qlora_tui.runs.feed import last_event

        last = last_event(self.events)
        if last is None:
            return "created"
        return last.event.status if isinstance(last.event, RunFinished) else "interrupted"


def directory_of(config: RunConfig) -> RunDirectory:
    """Where the run of a config is, or would be."""
    parent = Path(config.output.directory).expanduser() if config.output.directory else runs_directory()
    return RunDirectory((parent / config.name).absolute())


def free_name(config: RunConfig) -> str:
    """The config's name, with -2, -3 … if a run of that name is there."""
    parent, name, count = directory_of(config).path.parent, config.name, 1
    while (parent / name).exists():
        count += 1
        suffix = f"-{count}"
        name = config.name[: LONGEST_NAME - len(suffix)] + suffix
    return name


def refusal(config: RunConfig) -> RunError | None:
    """Why :func:`create_run` would not make a run of this name; None if it would."""
    run = directory_of(config)
    try:
        if run.path.exists():
            _check_room(run, overwrite=config.output.overwrite)
    except RunError as error:
        return error
    return None


def create_run(config: RunConfig) -> RunDirectory:
    """Make the directory of a new run and put the config into it.

    Raises:
        RunError: if a run of that name exists and may not be replaced, or is alive.
        EnvironmentFault: if the folder cannot be written.
    """
    from qlora_tui.config_file import dump_config

    run = directory_of(config)
    if run.path.exists():
        _check_room(run, overwrite=config.output.overwrite)
        shutil.rmtree(run.path)
    try:
        for folder in (run.path, run.control, run.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomic(run.config, dump_config(config))
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot create the run directory {run.path}.",
            f"The system says: {error.strerror or error}.",
            "Choose another folder with output.directory in the config, or free space and check the permissions.",
        ) from error
    return run


def _check_room(run: RunDirectory, *, overwrite: bool) -> None:
    if not run.path.is_dir() or not _is_run(run.path):
        raise RunError(
            f"Cannot create the run {run.name}.",
            f"{run.path} exists and is not a run of qlora-tui, so it is left alone.",
            "Choose another name or another output.directory in the config.",
        )
    if run.owner() is not None:
        raise RunError(
            f"Cannot create the run {run.name}.",
            f"A run of that name is training right now (process {run.owner()}).",
            f"Watch it with `qlora-tui attach {run.name}`, or choose another name.",
        )
    if not overwrite and not _never_trained(run):
        raise RunError(
            f"Cannot create the run {run.name}.",
            f"A run of that name exists in {run.path.parent} ({run.status()}).",
            f"Go on with `qlora-tui resume {run.name}`, choose another name, or set output.overwrite: true.",
        )


def _never_trained(run: RunDirectory) -> bool:
    """Whether the run ended before it had anything to lose, such as one whose data file was mistyped."""
    from qlora_tui.runs.feed import last_step

    over = run.status() in ("failed", "stopped", "interrupted")
    kept = run.adapter.exists() or any(run.checkpoints.glob("checkpoint-*"))
    return over and not kept and last_step(run.events) == 0


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / "control").is_dir()


def find_run(reference: str) -> RunDirectory:
    """The run that a name or a path means.

    Raises:
        RunError: if there is none.
    """
    for path in (runs_directory() / reference, Path(reference).expanduser()):
        if os.sep not in reference and path.parent != runs_directory() and not path.is_dir():
            continue
        if path.is_dir() and _is_run(path):
            return RunDirectory(path.absolute())
    known = [run.name for run in list_runs()]
    raise RunError(
        f"There is no run {reference}.",
        f"Neither {runs_directory()} nor the current folder holds one of that name.",
        f"Known runs: {', '.join(known[:8])}." if known else "Start one with `qlora-tui --config run.yaml`.",
    )


def running_run() -> RunDirectory:
    """The run that trains now.

    Raises:
        RunError: if there is none, or more than one.
    """
    running = [run for run in list_runs() if run.status() == "running"]
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(run.name for run in running[:8])
        raise RunError(
            "More than one run trains now.",
            f"They are {names}.",
            f"Say which, for example `qlora-tui attach {running[0].name}`.",
        )
    raise RunError(
        "No run trains now.",
        f"None of those in {runs_directory()} has a process.",
        "Look at one that has ended with `qlora-tui attach RUN`; `qlora-tui runs` lists them.",
    )


def list_runs(parent: Path | None = None) -> Iterator[RunDirectory]:
    """Every run below ``parent`` (default: the runs directory), newest first."""
    parent = parent or runs_directory()
    if not parent.is_dir():
        return
    found = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".") and _is_run(path)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        yield RunDirectory(path)
