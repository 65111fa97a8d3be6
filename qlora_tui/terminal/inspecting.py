"""An inspection asked of the engine in a child process, with progress while it takes its time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from qlora_tui.config import RunConfig
from qlora_tui.data.inspection import Glance, Inspection, from_values
from qlora_tui.data.preview import Which
from qlora_tui.errors import EnvironmentFault, ExitCode, QloraError, UsageError
from qlora_tui.paths import state_directory
from qlora_tui.runs.launch import engine_environment
from qlora_tui.text import one_line

LEAVE_SECONDS = 3.0
COMMAND = (sys.executable, "-m", "qlora_tui.engine", "inspect")
_WORDS: tuple[Which, ...] = ("first", "longest", "shortest", "random")


class InspectionFailed(QloraError):
    """The engine could not inspect the data; what it said."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(*(str(values.get(name, "")) for name in ("what", "why", "hint")))
        self.kind = one_line(str(values.get("error", "failed")), 40)
        with suppress(ValueError, TypeError):
            self.exit_code = ExitCode(values.get("exit_code", ExitCode.RUN_FAILED))


def parse_which(text: str) -> Which:
    """The value of ``--row``.

    Raises:
        UsageError: if it is neither a number from 1 nor one of the words.
    """
    for word in _WORDS:
        if text == word:
            return word
    if text.isascii() and text.isdecimal() and int(text[:20]) > 0:
        return int(text[:20])
    raise UsageError(
        f"The row {one_line(text, 40)!r} cannot be shown.",
        "A row is named by its number, counted from 1, or as longest, shortest or random.",
        "Try `--row longest`.",
    )


def run_inspection(
    config: RunConfig,
    which: Which,
    on_progress: Callable[[str, int, int | None, str], None],
    on_glance: Callable[[Glance], None] = lambda _glance: None,
) -> Inspection:
    """The inspection of the data of ``config``, with the row ``which`` as its sample.

    Args:
        on_progress: Called with what is done now, how far, of how much (or None), and the unit.
        on_glance: Called once, as soon as the first rows are known.

    Raises:
        InspectionFailed: with the engine's own sentences.
        EnvironmentFault: if the process cannot be started, or ends without an answer.
    """
    with _engine(config, which) as (process, log):
        for event in _events(process):
            match event.get("event"):
                case "glance":
                    on_glance(from_values(Glance, event.get("glance")))
                case "progress":
                    on_progress(
                        str(event.get("name", "")), event.get("done", 0), event.get("total"), str(event.get("unit", ""))
                    )
                case "done":
                    return from_values(Inspection, event.get("inspection"))
                case "error":
                    raise InspectionFailed(event)
                case _:
                    pass
        where = f"Read {log}; `qlora-tui doctor` checks the installation." if log else "Check the free memory."
        raise EnvironmentFault(
            "The data could not be inspected.",
            f"The process ended with status {process.wait()} without an answer.",
            where,
        )


@contextmanager
def _engine(config: RunConfig, which: Which) -> Iterator[tuple[subprocess.Popen[bytes], Path | None]]:
    """The engine with its request; it is ended in any case."""
    log = _log_path()
    errors: IO[bytes] | int = log.open("wb") if log is not None else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=engine_environment(),
        )
    except OSError as error:
        raise EnvironmentFault(
            "Cannot start the process that inspects data.",
            f"The system says: {error.strerror or error}.",
            "Check the free memory and the process limits of this machine.",
        ) from error
    finally:
        if not isinstance(errors, int):
            errors.close()
    try:
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # a child that is gone already is noticed when its answer is missing
                process.stdin.write(
                    json.dumps({"config": config.model_dump(mode="json"), "which": which}).encode() + b"\n"
                )
                process.stdin.close()
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _log_path() -> Path | None:
    path = state_directory() / "inspect.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        return None
    return path


def _events(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    for line in process.stdout or ():
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event
