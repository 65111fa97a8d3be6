"""``python -m qlora_tui.engine chat``: one question to an adapter, its base, or both.

The process takes a JSON request on stdin and gives JSON lines on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlora_tui.engine.chat_session import ChatSession, Side, find_target
from qlora_tui.engine.stream import Sampling
from qlora_tui.errors import ExitCode, InternalFault, OutOfMemory, QloraError, UsageError
from qlora_tui.text import one_line

MAX_REQUEST_BYTES = 16 << 20


class ChatRequest(BaseModel):
    """One question. None leaves the choice to the run: its system prompt, its seed; an empty system prompt is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1)]
    system: str | None = None
    compare: bool = False
    """Ask both sides, whatever ``sides`` says."""
    sides: Annotated[tuple[Side, ...], Field(min_length=1)] = ("adapter",)
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 256
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @property
    def asked_sides(self) -> tuple[Side, ...]:
        """The sides to ask, each once, in order."""
        return tuple(dict.fromkeys((*self.sides, "adapter", "base") if self.compare else self.sides))


def parse_request(content: bytes) -> ChatRequest:
    """The request in one JSON object.

    Raises:
        UsageError: if it is none, or holds a value that is not allowed.
    """
    try:
        return ChatRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        why = f"{one_line(where, 60)}: {one_line(first['msg'])}."
        hint = "Send one JSON object with prompt and, if wanted, system, compare, max_tokens, temperature, top_p, seed."
        raise UsageError("The chat request cannot be used.", why, hint) from error


@dataclass(frozen=True, slots=True)
class ChatArguments:
    """The arguments of one chat process."""

    target: Path
    base: str | None = None


def main(arguments: list[str]) -> int:
    """``python -m qlora_tui.engine chat``; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine chat")
    parser.add_argument("--target", type=Path, required=True, help="run directory, adapter or checkpoint folder")
    parser.add_argument("--base", help="base model instead of the recorded one")
    parser.add_argument("--prompt-file", choices=["-"], default="-", help="the request comes on standard input")
    values = parser.parse_args(arguments)
    return run_chat(ChatArguments(values.target, values.base))


def run_chat(arguments: ChatArguments) -> int:
    """Answer the one JSON request on stdin with JSON lines on stdout; the exit status.

    Events: ``progress`` (message), ``token`` (side, text), ``done`` (side, tokens, seconds, stopped_by), ``error``
    (message, hint, exit_code). Everything else goes to stderr.
    """
    with _events_on_stdout() as write:
        try:
            request = parse_request(_read_request())
            target = find_target(arguments.target, arguments.base)
            session = ChatSession.load(target, lambda message: write({"event": "progress", "message": message}))
            _answer(session, request, write)
        except (KeyboardInterrupt, BrokenPipeError):
            return ExitCode.INTERRUPTED
        except Exception as error:
            if not isinstance(error, QloraError):
                traceback.print_exc()
            fault = _as_qlora_error(error)
            message = f"{fault.what} {fault.why}"
            write({"event": "error", "message": message, "hint": fault.hint, "exit_code": int(fault.exit_code)})
            return int(fault.exit_code)
    return ExitCode.OK


def _read_request() -> bytes:
    content = sys.stdin.buffer.readline(MAX_REQUEST_BYTES + 1)
    if len(content) > MAX_REQUEST_BYTES:
        limit = f"It is longer than {MAX_REQUEST_BYTES >> 20} MiB."
        raise UsageError("The chat request cannot be used.", limit, "Ask something shorter.")
    return content


def _answer(session: ChatSession, request: ChatRequest, write: Callable[[dict[str, Any]], None]) -> None:
    seed = session.config.training.seed if request.seed is None else request.seed
    sampling = Sampling(request.max_tokens, request.temperature, request.top_p, seed)
    turns = session.turns(request.prompt, request.system)
    for side in request.asked_sides:
        reply = session.reply(turns, side, sampling)
        for text in reply:
            write({"event": "token", "side": side, "text": text})
        write(
            {
                "event": "done",
                "side": side,
                "tokens": reply.tokens,
                "seconds": round(reply.seconds, 3),
                "stopped_by": reply.stopped_by,
            }
        )


@contextmanager
def _events_on_stdout() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes events to stdout, while whatever libraries print goes to stderr, native code included."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(stdout), "wb", buffering=0) as stream, redirect_stdout(sys.stderr):

            def write(event: dict[str, Any]) -> None:
                stream.write(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

            yield write
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _as_qlora_error(error: Exception) -> QloraError:
    if isinstance(error, QloraError):
        return error
    text = one_line(str(error)) or "no message"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or re.search(
        "can't allocate memory|out of memory", text
    ):
        return OutOfMemory(
            "There is no answer because memory ran out.",
            f"{text}.",
            "End other processes that use this device, or ask something shorter.",
        )
    return InternalFault(
        "There is no answer because of an unexpected fault.",
        f"{type(error).__name__}: {text}.",
        "The traceback is in the log; `qlora-tui doctor` checks the installation.",
    )
