"""``python -m qlora_tui.engine serve``: what is heavy and yet interactive, asked and answered in JSON lines.

Requests come on stdin, one JSON object a line with an ``id`` and what to ``do``; they are answered one after the other.
Every event on stdout carries the ``id`` of its request, and ``done`` or ``error`` is the last one of each. ``stop`` is
obeyed at once: it ends what is being done after its present token or stage. The process ends with its stdin.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from qlora_tui.data.formats import Turn
from qlora_tui.engine.requests import REQUESTS, Generate, Load, Merge, Push, Request, Rows, Unload
from qlora_tui.engine.wire import Write, error_event, events_on_stdout
from qlora_tui.errors import ExitCode, UsageError
from qlora_tui.text import one_line

if TYPE_CHECKING:
    from qlora_tui.engine.chat_session import ChatSession
    from qlora_tui.engine.stream import Reply

MAX_REQUEST_BYTES = 16 << 20
LEAVE_SECONDS = 3.0
"""How long the present stage may take to end once stdin has ended."""
_WHAT = {
    "load": "The model cannot be loaded",
    "generate": "There is no answer",
    "rows": "The held-out rows cannot be read",
    "merge": "The adapter cannot be merged",
    "push": "Nothing was pushed",
}


def main() -> int:
    """Serve until stdin ends; the exit status."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    with events_on_stdout() as write:
        try:
            Server(write).run(sys.stdin.buffer)
        except (KeyboardInterrupt, BrokenPipeError):
            return ExitCode.INTERRUPTED
    return ExitCode.OK


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Server:
    """Answers requests in their order; only ``stop`` overtakes.

    Args:
        write: Takes each event.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._session: ChatSession | None = None
        self._reply: Reply | None = None
        self._number = 0
        """Of the request that is being answered: 1, 2, 3 …"""
        self._asked = 0
        """How many requests were asked so far."""
        self._stopped_through = 0
        """Every request up to this number is to be ended."""
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._ended = Event()

    def run(self, requests: BinaryIO) -> None:
        """Answer what comes on ``requests`` until it ends."""
        Thread(target=self._read, args=(requests,), name="requests", daemon=True).start()
        try:
            while (request := self._queue.get()) is not None:
                self._number += 1
                self._answer(request)
        finally:
            self._ended.set()

    def _read(self, requests: BinaryIO) -> None:
        while line := requests.readline(MAX_REQUEST_BYTES + 1):
            try:
                request = _parse(line)
            except UsageError as error:
                self._write({"id": None, **error_event(error, "")})
                if len(line) > MAX_REQUEST_BYTES:
                    break  # the rest of an endless line is no request either
                continue
            if request is None:
                self._stop()
            else:
                self._asked += 1
                self._queue.put(request)
        self._stop()
        self._queue.put(None)
        # Nobody is left to answer to, so nothing may go on for long, such as the loading of a large model.
        self._ended.wait(LEAVE_SECONDS)
        if not self._ended.is_set():
            os._exit(ExitCode.INTERRUPTED)

    def _stop(self) -> None:
        self._stopped_through = self._asked
        if (reply := self._reply) is not None:
            reply.cancel()

    def _is_stopped(self) -> bool:
        return self._number <= self._stopped_through

    def _answer(self, request: Request) -> None:
        def tell(event: dict[str, Any]) -> None:
            self._write({"id": request.id, **event})

        handlers: dict[str, Callable[[Any, Write], dict[str, Any]]] = {
            "load": self._load,
            "generate": self._generate,
            "rows": self._rows,
            "unload": self._unload,
            "merge": self._merge,
            "push": self._push,
        }
        try:
            tell({"event": "done", **handlers[request.do](request, tell)})
        except Exception as error:
            tell(error_event(error, _WHAT.get(request.do, "It cannot be done")))

    def _load(self, request: Load, tell: Write) -> dict[str, Any]:
        tell({"event": "progress", "message": "starting torch"})
        from qlora_tui.engine.chat_session import ChatSession, find_target

        self._forget()
        target = find_target(Path(request.target), request.base)
        self._session = ChatSession.load(target, lambda message: tell({"event": "progress", "message": message}))
        config = self._session.config
        return {
            "adapter": str(target.adapter),
            "base": config.model.source,
            "quantization": config.quantization.type,
            "system": config.data.system_prompt,
            "seed": config.training.seed,
        }

    def _loaded(self) -> ChatSession:
        if self._session is None:
            raise UsageError("There is no answer.", "No model is loaded.", "Load one first.")
        return self._session

    def _generate(self, request: Generate, tell: Write) -> dict[str, Any]:
        from qlora_tui.engine.stream import Sampling

        session = self._loaded()
        seed = session.config.training.seed if request.seed is None else request.seed
        sampling = Sampling(request.max_tokens, request.temperature, request.top_p, seed)
        turns = session.conversation([Turn(turn.role, turn.content) for turn in request.turns], request.system)
        self._reply = reply = session.reply(turns, request.side, sampling)
        try:
            if self._is_stopped():
                reply.cancel()
            for text in reply:
                tell({"event": "token", "text": text})
        finally:
            self._reply = None
        return {"tokens": reply.tokens, "seconds": round(reply.seconds, 3), "stopped_by": reply.stopped_by}

    def _rows(self, request: Rows, tell: Write) -> dict[str, Any]:
        from qlora_tui.engine.held_out_rows import spot_rows

        return {"rows": spot_rows(self._loaded().config, request.count)}

    def _unload(self, _request: Unload, _tell: Write) -> dict[str, Any]:
        self._forget()
        return {}

    def _forget(self) -> None:
        if self._session is None:
            return
        import torch

        self._session = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _merge(self, request: Merge, tell: Write) -> dict[str, Any]:
        tell({"event": "progress", "message": "starting torch"})
        from qlora_tui.engine.chat_session import find_target
        from qlora_tui.engine.merge import merge

        self._forget()
        report = merge(
            find_target(Path(request.target), request.base),
            Path(request.output),
            exact=request.exact,
            overwrite=request.overwrite,
            progress=lambda message: tell({"event": "progress", "message": message}),
            stopped=self._is_stopped,
        )
        return {"report": report.model_dump(mode="json")}

    def _push(self, request: Push, tell: Write) -> dict[str, Any]:
        from qlora_tui.engine.push import push

        pushed = push(
            Path(request.folder),
            request.repository,
            private=request.private,
            token=request.token.get_secret_value() if request.token else None,
            progress=lambda message: tell({"event": "progress", "message": message}),
        )
        return {"address": pushed}


def _parse(line: bytes) -> Request | None:
    """The request of one line; None for a stop.

    Raises:
        UsageError: if it is none.
    """
    hint = f"Send one JSON object a line with id, do ({', '.join(_WHAT)}, unload, stop) and its values."
    if len(line) > MAX_REQUEST_BYTES:
        raise UsageError("The request cannot be used.", f"It is longer than {MAX_REQUEST_BYTES >> 20} MiB.", hint)
    try:
        request = REQUESTS.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        raise UsageError("The request cannot be used.", f"{one_line(where, 60)}: {first['msg']}.", hint) from error
    return None if request.do == "stop" else request
