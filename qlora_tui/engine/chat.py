"""``python -m qlora_tui.engine chat``: one question to an adapter, its base, or both.

The process takes a JSON request on stdin and gives JSON lines on stdout.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qlora_tui.engine.chat_session import ChatSession, find_target
from qlora_tui.engine.requests import Side
from qlora_tui.engine.stream import Sampling
from qlora_tui.engine.wire import Write, error_event, events_on_stdout
from qlora_tui.errors import ExitCode, UsageError
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
    with events_on_stdout() as write:
        try:
            request = parse_request(_read_request())
            target = find_target(arguments.target, arguments.base)
            session = ChatSession.load(target, lambda message: write({"event": "progress", "message": message}))
            _answer(session, request, write)
        except (KeyboardInterrupt, BrokenPipeError):
            return ExitCode.INTERRUPTED
        except Exception as error:
            event = error_event(error, "There is no answer")
            write(event)
            return int(event["exit_code"])
    return ExitCode.OK


def _read_request() -> bytes:
    content = sys.stdin.buffer.readline(MAX_REQUEST_BYTES + 1)
    if len(content) > MAX_REQUEST_BYTES:
        limit = f"It is longer than {MAX_REQUEST_BYTES >> 20} MiB."
        raise UsageError("The chat request cannot be used.", limit, "Ask something shorter.")
    return content


def _answer(session: ChatSession, request: ChatRequest, write: Write) -> None:
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
