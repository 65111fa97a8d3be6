"""What was trained, found again: the folder that a run's name or a path means, its config, and its base."""

from __future__ import annotations

from pathlib import Path

from qlora_tui.config import DataSection, ModelSection, RunConfig
from qlora_tui.errors import QloraError, RunError
from qlora_tui.models.sources import resolve_model
from qlora_tui.runs.directory import RunDirectory, find_run
from qlora_tui.runs.merges import merge_folder

ADAPTER_FILE = "adapter_model.safetensors"


def find_adapter(reference: str) -> Path:
    """The run directory, adapter or checkpoint folder that ``reference`` means.

    Raises:
        RunError: if there is none, or the run has saved nothing yet.
    """
    path = Path(reference).expanduser()
    if (path / "adapter_config.json").is_file():
        return path.absolute()
    if path.is_dir() and not (path / "config.yaml").is_file():
        raise RunError(
            f"Cannot use {path}.",
            "The folder has no adapter_config.json, so it is no adapter, and it is no run.",
            "Give a run, its adapter folder or a checkpoint; `qlora-tui runs` lists the runs.",
        )
    run = find_run(reference)
    saved = (run.adapter, *(run.checkpoints.iterdir() if run.checkpoints.is_dir() else ()))
    if not any((folder / "adapter_config.json").is_file() for folder in saved):
        raise RunError(
            f"Cannot use the run {run.name}.",
            f"It has no adapter and no checkpoint yet ({run.status()}).",
            f"See how far it is with `qlora-tui attach {run.name}`.",
        )
    return run.path


def run_of(target: Path) -> RunDirectory | None:
    """The run that ``target`` is or lies in."""
    for path in (target, target.parent, target.parent.parent):
        run = RunDirectory(path)
        if run.config.is_file() and run.control.is_dir():
            return run
    return None


def adapter_of(target: Path) -> Path:
    """The adapter's folder: the run's best one, or else its newest checkpoint, or the folder itself."""
    run = run_of(target)
    if run is None or run.path != target:
        return target
    if (run.adapter / ADAPTER_FILE).is_file():
        return run.adapter
    found = [path for path in run.checkpoints.glob("checkpoint-*") if (path / ADAPTER_FILE).is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=run.adapter)


def saved_adapters(run: RunDirectory) -> list[tuple[str, Path]]:
    """Everything of a run that can be asked, by a name for people: the best adapter, then checkpoints, newest first."""
    found = [("the best adapter", run.path)] if (run.adapter / ADAPTER_FILE).is_file() else []
    folders = [path for path in run.checkpoints.glob("checkpoint-*") if (path / ADAPTER_FILE).is_file()]
    newest_first = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    return found + [(path.name.replace("-", " "), path) for path in newest_first]


def config_of(target: Path) -> RunConfig:
    """The run's config, or defaults for an adapter from elsewhere.

    Raises:
        ConfigError: if the run's config is damaged.
    """
    run = run_of(target)
    if run is not None:
        return run.read_config()
    return RunConfig(name="adapter", model=ModelSection(), data=DataSection(source="none"))


def merged_folders(run: RunDirectory) -> list[Path]:
    """The merged models of a run, the exact one first."""
    folders = (merge_folder(run, "exact"), merge_folder(run, "standard"))
    return [folder for folder in folders if (folder / "config.json").is_file()]


def loadable_base(config: RunConfig) -> str:
    """The base by a name or folder that another program can load it by."""
    try:
        files = resolve_model(config.model, weights=False)
    except QloraError:
        return config.model.source
    return config.model.source if files.kind == "hub" else str(files.folder)
