"""A case: how it is prepared and run, and what its end must be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.errors.place import NAME, Place
from benchmarks.runs import events
from qlora_tui.config import RunConfig
from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.runs.directory import create_run
from qlora_tui.runs.events import Phase, Step, Warned

USAGE, ENVIRONMENT, OK = ExitCode.USAGE, ExitCode.ENVIRONMENT, ExitCode.OK


Prepare = Callable[[Place], Sequence[str]]
"""Writes what is needed into a place; the arguments of the console script."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to get wrong.

    Attributes:
        prepare: Writes what is needed into a place; the arguments of the console script.
        exit_code: How it must end.
        words: What the error must say, or for a run that ends well, its warnings.
        details: What the phase that encodes the rows must have counted.
        full: Whether the engine loads a model for it, which takes its libraries many seconds.
        again: Whether a corrected config must be able to take the same name at once.
    """

    name: str
    prepare: Prepare
    exit_code: ExitCode
    words: tuple[str, ...]
    details: Mapping[str, int] = field(default_factory=dict)
    full: bool = False
    again: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the console script did."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    warnings: tuple[str, ...]
    details: Mapping[str, Any]
    in_the_way: str
    """What keeps a corrected config from using the same name; empty if nothing does."""

    @property
    def sentences(self) -> list[str]:
        """The sentences of the error on stderr, without the line that names the log."""
        _, _, told = self.stderr.partition("error: ")
        lines = [line.strip() for line in told.splitlines() if not line.strip().startswith("Log: ")]
        return [each for line in lines for each in re.split(r"(?<=[.!?])\s+", line) if each]

    def faults(self, case: Case) -> list[str]:
        """Everything in which this differs from what ``case`` asks for."""
        found = [] if self.exit_code == case.exit_code else [f"exit code {self.exit_code}, not {int(case.exit_code)}"]
        found += ["a traceback on the terminal"] if "Traceback" in self.stdout + self.stderr else []
        found += ["control characters"] if re.search(r"[^\t\n -~\u00a0-\U0010ffff]", self.stdout + self.stderr) else []
        told = " ".join(self.sentences if case.exit_code else self.warnings)
        found += [f"{word!r} is not said" for word in case.words if word.lower() not in told.lower()]
        found += [
            f"{name} is {self.details.get(name)}, not {count}"
            for name, count in case.details.items()
            if self.details.get(name) != count
        ]
        if case.exit_code:
            found += [] if len(self.sentences) >= 3 else [f"{len(self.sentences)} sentences, not three"]
            found += self._json_faults() if self.stdout else []
        found += [f"the next try is blocked: {self.in_the_way}"] if self.in_the_way else []
        return found

    def _json_faults(self) -> list[str]:
        """What is wrong with the summary that ``--json`` writes."""
        try:
            summary = json.loads(self.stdout)
        except ValueError:
            return ["stdout is not one JSON object"]
        error = summary.get("error") or {}
        complete = len(re.split(r"(?<=[.!?])\s+", error.get("message", ""))) >= 2 and error.get("hint")
        found = [] if complete else ["the summary's error lacks what, why or what to do"]
        return found if summary.get("exit_code") == self.exit_code else [*found, "the summary has another exit code"]


def run_case(case: Case, folder: Path) -> Outcome:
    """Prepare a case in an empty folder, run it, and undo what it needed.

    Raises:
        CannotStage: if this machine cannot prepare it.
    """
    with ExitStack() as undo:
        place = Place(folder, undo)
        arguments = case.prepare(place)
        started = time.monotonic()
        finished = console(place, *arguments)
        seconds = time.monotonic() - started
        run = place.runs / NAME
        if (named := _summary(finished.stdout).get("run")) is not None:
            run = Path(named)
        seen = [record.event for record in events(run)] if (run / "events.jsonl").is_file() else []
        details = [each.details for each in seen if isinstance(each, Phase) and each.phase == "encode"]
        trained = any(isinstance(each, Step) for each in seen)
        return Outcome(
            finished.returncode,
            finished.stdout,
            finished.stderr,
            seconds,
            tuple(each.message for each in seen if isinstance(each, Warned)) or _notes(finished.stdout),
            details[-1] if details else {},
            _in_the_way(place, run) if case.again and case.exit_code and not trained and run.exists() else "",
        )


def console(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The console script in a process of its own."""
    command = [str(Path(sys.executable).with_name("qlora-tui")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=place.environment, cwd=place.folder, check=False
    )


def _in_the_way(place: Place, run: Path) -> str:
    """Why a corrected config could not take the name of ``run``; empty if it can."""
    values = place.values(output={"directory": str(run.parent)})
    try:
        create_run(RunConfig.model_validate(values))
    except QloraError as error:
        return str(error)
    return ""


def _summary(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(text)
        return value if isinstance(value, dict) else {}
    return {}


def _notes(text: str) -> tuple[str, ...]:
    """What an estimate says besides its figures."""
    return tuple(_summary(text).get("notes", ()))


def with_sections(**sections: Any) -> Prepare:
    """The config differs from a good one in these fields."""
    return lambda place: place.config(**sections)


def command(*arguments: str) -> Prepare:
    """A command where there is nothing yet."""
    return lambda _place: arguments
