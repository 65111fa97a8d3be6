"""The first phases of a run: the model's files and the rows. Nothing heavy is loaded yet, so mistakes show at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import huggingface_hub.constants

from qlora_tui import hardware
from qlora_tui.config import RunConfig
from qlora_tui.engine.control import Control
from qlora_tui.engine.installed import check_installed
from qlora_tui.engine.report import EventLog
from qlora_tui.engine.rows import RunRows, load_rows
from qlora_tui.errors import ModelError
from qlora_tui.hardware import Hardware
from qlora_tui.memory.answer import check_rank
from qlora_tui.models.folder import shape_of_folder
from qlora_tui.models.sources import ModelFiles, resolve_model
from qlora_tui.runs.events import PhaseName


@dataclass(frozen=True, slots=True)
class Inputs:
    """What training starts from."""

    files: ModelFiles
    rows: RunRows
    hardware: Hardware
    """The machine before the model is loaded."""


def prepare_inputs(config: RunConfig, log: EventLog, control: Control) -> Inputs:
    """Find or fetch the model's files, convert a GGUF, read and encode the rows.

    Raises:
        ConfigError, ModelError, DataError, EnvironmentFault: for what a user can mend.
        StopRequested: if a stop was asked for on the way.
    """
    check_installed(config)
    files = _model_files(config, log, control)
    with suppress(ModelError):  # a model that cannot be sized here may be trained all the same
        check_rank(shape_of_folder(files.folder), config)
    _go_offline()
    return Inputs(files, _rows(config, files, log, control), hardware.snapshot())


def _reporter(log: EventLog, control: Control, phase: PhaseName, unit: str) -> Callable[[int, int | None], None]:
    def report(done: int, total: int | None) -> None:
        control.raise_if_stopped()
        log.progress(phase, done, total, unit)

    return report


def _model_files(config: RunConfig, log: EventLog, control: Control) -> ModelFiles:
    with log.phase("prepare") as details:
        files = resolve_model(config.model, _reporter(log, control, "prepare", "bytes"))
        for note in files.notes:
            log.warn("model", note)
        if files.remote_code:
            log.warn(
                "remote_code",
                f"Python code that comes with {files.source} runs in this process with your rights, "
                "because model.trust_remote_code is true.",
            )
        if files.gguf and not files.converted:
            from qlora_tui.engine.convert import convert_gguf

            convert_gguf(files, lambda done, total, what: log.progress("prepare", done, total, "stages", what))
        details["model"] = files.source
        details["revision"] = files.revision or "local"
    return files


def _go_offline() -> None:
    """Everything is on this machine now: libraries that look for kernels or updates on the hub need not try."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = True


def _rows(config: RunConfig, files: ModelFiles, log: EventLog, control: Control) -> RunRows:
    report_rows = _reporter(log, control, "encode", "rows")
    with log.phase("encode") as details:
        fetched = _reporter(log, control, "encode", "bytes")
        rows = load_rows(config, files.folder, lambda done: report_rows(done, None), fetched)
        report = rows.report
        details |= {"rows": report.rows, "kept": report.kept, "truncated": report.truncated}
        details |= {"train_rows": len(rows.train), "test_rows": len(rows.test)}
        details |= {"tokens": report.tokens.total, "trained_tokens": report.tokens.trained}
        if config.data.redact:
            details |= {"redacted": sum(rows.redacted.values())}
            details |= {f"redacted_{kind}": count for kind, count in rows.redacted.items()}
    for warning in rows.warnings:
        log.warn("data", warning)
    if rows.selection_is_test:
        log.warn(
            "evaluation",
            "The rows that choose the best adapter also measure it, because there are too few held-out rows for "
            "both; the result may be slightly flattering.",
        )
    return rows
