"""What ships: the adapter folder, complete with its model card."""

from __future__ import annotations

from qlora_tui.config import RunConfig
from qlora_tui.engine.rows import RunRows
from qlora_tui.engine.trainer import Standing
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Comparison


def finish_adapter_folder(
    run: RunDirectory,
    config: RunConfig,
    files: ModelFiles,
    rows: RunRows,
    comparison: dict[str, Comparison],
    standing: Standing,
) -> None:
    """Put the model card beside the adapter."""
