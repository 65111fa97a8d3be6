"""``python -m qlora_tui.engine inspect``: an inspection as JSON lines, for whoever started this process.

stdin takes one line: ``config`` (the settings) and ``which`` (the row to show). stdout gives one object a line, by
``event``: ``glance`` (what the first rows tell), ``progress``, ``done`` (the inspection, with the row in ``samples``)
or ``error``. The process ends when its reader is gone, or by SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from typing import IO, Any

from qlora_tui.config import RunConfig
from qlora_tui.data.inspection import to_json
from qlora_tui.engine.inspection import Inspector, Stage
from qlora_tui.errors import ExitCode, InternalFault, OutOfMemory, QloraError
from qlora_tui.text import one_line

PROGRESS_SECONDS = 0.1


def main() -> int:
    """Answer one request; the exit status."""
    output = sys.stdout
    with redirect_stdout(sys.stderr):  # libraries may greet; stdout carries the answer alone
        try:
            _answer(json.loads(sys.stdin.readline()), output)
        except BrokenPipeError:
            # The interpreter's own flush at exit must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
            return ExitCode.INTERRUPTED
        except Exception as error:
            traceback.print_exc()
            fault = _as_qlora_error(error)
            told = {"error": fault.kind, "what": fault.what, "why": fault.why, "hint": fault.hint}
            _write(output, "error", **told, exit_code=int(fault.exit_code))
            return fault.exit_code
    return ExitCode.OK


def _answer(request: dict[str, Any], output: IO[str]) -> None:
    last = 0.0

    def report(stage: Stage) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS or stage.done == stage.total:
            last = now
            _write(output, "progress", **asdict(stage))

    inspector = Inspector(RunConfig.model_validate(request["config"]), report)
    which = request.get("which", "first")
    _write(output, "glance", glance=json.loads(to_json(inspector.glance(which))))
    inspection = inspector.inspect()
    inspection = replace(inspection, samples=(inspector.preview(which),))
    _write(output, "done", inspection=json.loads(to_json(inspection)))


def _write(output: IO[str], event: str, **values: Any) -> None:
    output.write(json.dumps({"event": event, **values}) + "\n")
    output.flush()


def _as_qlora_error(error: Exception) -> QloraError:
    if isinstance(error, QloraError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory(
            "The data could not be inspected because memory ran out.",
            "The system has no memory left.",
            "End other programs, or inspect a part of the data: data.split: train[:10000].",
        )
    return InternalFault(
        "The data could not be inspected because of an unexpected fault.",
        f"{type(error).__name__}: {one_line(str(error)) or 'no message'}.",
        "The traceback is in the log; `qlora-tui doctor` checks the installation.",
    )
