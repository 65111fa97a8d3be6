"""Asking a child process whether 4-bit training works here, so that whatever breaks there breaks nothing here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qlora_tui.text import one_line

COMMAND = (sys.executable, "-m", "qlora_tui.engine", "selftest")
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Selftest:
    """What the child reported; the keys of ``report`` are listed in ``engine/selftest.py``."""

    report: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    """Why there is no report, as a sentence."""

    @property
    def ok(self) -> bool:
        return self.report.get("ok") is True

    def text(self, key: str) -> str | None:
        """A value as a printable line; None if the report does not have it."""
        value = self.report.get(key)
        return None if value is None else one_line(str(value), 300)


def run_selftest(command: Sequence[str] = COMMAND, timeout: float = TIMEOUT_SECONDS) -> Selftest:
    """Run the child and read its report; a crash, a hang or nonsense is told in words.

    Args:
        command: What to run; its last line of stdout that is a JSON object is the report.
        timeout: Seconds after which it is killed.
    """
    from qlora_tui.runs.launch import engine_environment

    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=engine_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Selftest(problem=f"It gave no answer within {timeout:g} seconds.")
    except OSError as error:
        return Selftest(problem=f"It could not be started ({one_line(error.strerror or str(error))}).")
    for line in reversed(done.stdout.decode("utf-8", errors="replace").splitlines()):
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict):
            return Selftest(report)
    return Selftest(problem=_how_it_ended(done.returncode, done.stderr))


def _how_it_ended(code: int, stderr: bytes) -> str:
    lines = stderr[-4000:].decode("utf-8", errors="replace").strip().splitlines()
    last = f" Its last words: {one_line(lines[-1], 160)}" if lines else ""
    if code >= 0:
        return f"It ended with exit code {code} and no report.{last}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"It was ended by {name} without a report.{last}"
