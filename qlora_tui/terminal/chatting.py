"""One prompt to a trained adapter, its base, or both: the engine answers in a child process, this shows its stream."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from qlora_tui.errors import EnvironmentFault, ExitCode, QloraError
from qlora_tui.paths import state_directory
from qlora_tui.runs.launch import engine_environment
from qlora_tui.text import one_line, printable

LEAVE_SECONDS = 3.0
"""How long the child may take to end once it is asked to; then it is killed."""


class ChatFailed(QloraError):
    """The engine could not answer, or ended before it had."""

    kind = "chat"

    def __init__(self, what: str, why: str, hint: str, exit_code: Any = ExitCode.RUN_FAILED) -> None:
        super().__init__(what, why, hint)
        with suppress(ValueError, TypeError):
            self.exit_code = ExitCode(exit_code)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the engine is asked. None leaves the choice to the run: its system prompt, its seed."""

    prompt: str
    system: str | None
    compare: bool
    max_tokens: int
    temperature: float
    seed: int | None


def chat(target: Path, base: str | None, request: ChatRequest, *, as_json: bool) -> None:
    """Answer one prompt: the reply to stdout, loading messages and timings to stderr.

    Raises:
        KeyboardInterrupt: after the engine has ended, if the user stops the answer.
        QloraError: if there is no answer.
    """
    command = [sys.executable, "-m", "qlora_tui.engine", "chat", "--target", str(target), "--prompt-file", "-"]
    command += ["--base", base] if base else []
    log = _log_path()
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    process = _start(command, log)
    replies = Replies(show=not as_json, compare=request.compare)
    try:
        _send(process, request)
        for event in _events(process):
            replies.take(event)
        _check_ended(process, replies, log)
    finally:
        _end(process)
        replies.end_line()
        signal.signal(signal.SIGTERM, previous)
    if as_json:
        sys.stdout.write(json.dumps({"prompt": request.prompt, "target": str(target), **replies.as_values()}) + "\n")
        sys.stdout.flush()


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _log_path() -> Path | None:
    """Where the engine's own messages go, or None where nothing can be written."""
    path = state_directory() / "chat.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        return None
    return path


def _start(command: list[str], log: Path | None) -> subprocess.Popen[bytes]:
    """The engine, in a session of its own: a Ctrl-C is ours to pass on, once there is nothing half written."""
    errors: IO[bytes] | int = log.open("wb") if log is not None else subprocess.DEVNULL
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=engine_environment(),
        )
    except OSError as error:
        raise EnvironmentFault(
            "Cannot start the chat process.",
            f"The system says: {error.strerror or error}.",
            "Check the free memory and the process limits of this machine.",
        ) from error
    finally:
        if not isinstance(errors, int):
            errors.close()


def _send(process: subprocess.Popen[bytes], request: ChatRequest) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # a child that is gone already is noticed when its answer is missing
            process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            process.stdin.close()


def _events(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """The engine's events; what libraries print in between is passed over."""
    for line in process.stdout or ():
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


def _check_ended(process: subprocess.Popen[bytes], replies: Replies, log: Path | None) -> None:
    status = process.wait()
    if not replies.finished:
        where = f"Read {log}; `qlora-tui doctor` checks the installation." if log else "Check the free memory."
        why = f"The chat process ended with status {status} before it had answered."
        raise ChatFailed("There is no answer.", why, where)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Replies:
    """The replies as they come in: one side is shown at a time, the other one kept until it is its turn."""

    def __init__(self, *, show: bool, compare: bool) -> None:
        self._show = show
        self._compare = compare
        self._texts: dict[str, list[str]] = {}
        self._totals: dict[str, tuple[int, float]] = {}
        self._shown: dict[str, int] = {}
        self._told: set[str] = set()
        self._line_open = False

    @property
    def finished(self) -> bool:
        """Whether every side that was asked has ended."""
        return len(self._totals) >= (2 if self._compare else 1)

    def take(self, event: dict[str, Any]) -> None:
        """Take in one event of the engine.

        Raises:
            ChatFailed: if the engine reports an error.
        """
        side = one_line(str(event.get("side", "adapter")), 20)
        match event.get("event"):
            case "token":
                self._texts.setdefault(side, []).append(str(event.get("text", "")))
                self._write()
            case "done":
                self._texts.setdefault(side, [])
                self._totals[side] = (int(_number(event.get("tokens"))), _number(event.get("seconds")))
                self._write()
            case "progress" if self._show:
                self._talk(one_line(str(event.get("message", ""))))
            case "error":
                message, hint = str(event.get("message", "")), str(event.get("hint", ""))
                raise ChatFailed(message, "", hint, event.get("exit_code"))
            case _:
                pass

    def _write(self) -> None:
        """Show what can be shown: every side up to the first that is not done."""
        for side, pieces in self._texts.items() if self._show else ():
            if side in self._told:
                continue
            if side not in self._shown and self._compare:
                sys.stdout.write(f"--- {side} ---\n")
            text = printable("".join(pieces[self._shown.get(side, 0) :]))
            self._shown[side] = len(pieces)
            if text:
                self._line_open = not text.endswith("\n")  # first, because an interrupt may come out of the writing
                sys.stdout.write(text)
            sys.stdout.flush()
            if side not in self._totals:
                return
            self._told.add(side)
            self.end_line()
            self._talk("{}: {:,} tokens in {:.1f} s".format(side, *self._totals[side]))

    def end_line(self) -> None:
        """Leave the output at the beginning of a line."""
        if self._line_open:
            self._line_open = False
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _talk(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def as_values(self) -> dict[str, Any]:
        """The replies for JSON."""
        return {
            "replies": {side: "".join(pieces) for side, pieces in self._texts.items()},
            "tokens": {side: tokens for side, (tokens, _) in self._totals.items()},
            "seconds": {side: seconds for side, (_, seconds) in self._totals.items()},
        }


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
