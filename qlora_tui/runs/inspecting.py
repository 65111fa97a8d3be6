"""An inspection asked of the engine in a child process, with progress while it takes its time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
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
    with Inspector(config, which) as inspector:
        for event in inspector.events():
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
        raise inspector.died()


class Inspector:
    """The engine's process with its request; it is ended in any case, also from another thread.

    Raises:
        EnvironmentFault: if it cannot be started.
    """

    def __init__(self, config: RunConfig, which: Which) -> None:
        self.log = _log_path()
        self._process = _started(self.log)
        request = json.dumps({"config": config.model_dump(mode="json"), "which": which}).encode() + b"\n"
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # a child that is gone already is noticed when its answer is missing
                self._process.stdin.write(request)
                self._process.stdin.close()

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def events(self) -> Iterator[dict[str, Any]]:
        """What it says, one object after the other, until it ends."""
        for line in self._process.stdout or ():
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event

    def cancel(self) -> None:
        """End the process, and so its events."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def died(self) -> EnvironmentFault:
        """The error of a process that has ended without an answer."""
        log = self.log
        return EnvironmentFault(
            "The data could not be inspected.",
            f"The process ended with status {self._process.wait()} without an answer.",
            f"Read {log}; `qlora-tui doctor` checks the installation." if log else "Check the free memory.",
        )


def _started(log: Path | None) -> subprocess.Popen[bytes]:
    errors: IO[bytes] | int = log.open("wb") if log is not None else subprocess.DEVNULL
    try:
        return subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=engine_environment(torch=False),
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


def _log_path() -> Path | None:
    path = state_directory() / "inspect.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        return None
    return path
