"""The other end of the serving process: requests sent, events taken in, from an asyncio loop that never waits.

The process is started when it is first needed, restarted after it has died, and ended when the session is closed, which
gives its memory back. It holds a model in memory, so whoever asks after a crash has to load one again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from qlora_tui.errors import EnvironmentFault, ExitCode, QloraError
from qlora_tui.paths import state_directory
from qlora_tui.runs.launch import engine_environment

MAX_LINE_BYTES = 8 << 20
LEAVE_SECONDS = 2.0
"""How long the process may take to end once it is asked to; then it is killed."""

Event = dict[str, Any]


class SessionFailed(QloraError):
    """The engine could not do what it was asked, or died over it."""

    kind = "session"

    def __init__(self, what: str, why: str, hint: str, exit_code: Any = ExitCode.RUN_FAILED) -> None:
        super().__init__(what, why, hint)
        with suppress(ValueError, TypeError):
            self.exit_code = ExitCode(exit_code)


class Session:
    """One serving process at a time.

    Args:
        command: What to start instead of the engine; for tests.
        log: Where the engine's own messages go; None means ``session.log`` in the state folder.
    """

    def __init__(self, command: list[str] | None = None, log: Path | None = None) -> None:
        self._command = command or [sys.executable, "-m", "qlora_tui.engine", "serve"]
        self.log = log or state_directory() / "session.log"
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Queue[Event | None]] = {}
        self._number = 0
        self.lives = 0
        """How many processes were started; a model that an earlier one had loaded is gone."""

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The process id, or None."""
        return self._process.pid if self._process is not None and self.alive else None

    async def request(self, do: str, **values: Any) -> AsyncIterator[Event]:
        """Ask for something; its events as they come, ``done`` the last of them.

        Leaving the iteration early does not end what was asked for: that is what :meth:`stop` does.

        Raises:
            SessionFailed: if the engine reports an error, or dies.
            EnvironmentFault: if it cannot be started.
        """
        await self._start()
        self._number += 1
        number = self._number
        queue = self._waiting[number] = asyncio.Queue()
        try:
            await self._send({"id": number, "do": do, **values})
            while True:
                event = await queue.get()
                if event is None:
                    raise await self._died()
                if event["event"] == "error":
                    hint, code = str(event.get("hint", "")), event.get("exit_code")
                    raise SessionFailed(str(event.get("message", "")), "", hint, code)
                yield event
                if event["event"] == "done":
                    return
        finally:
            self._waiting.pop(number, None)

    async def ask(self, do: str, **values: Any) -> Event:
        """Ask for something and wait for its end.

        Raises:
            SessionFailed, EnvironmentFault: as :meth:`request`.
        """
        last: Event = {}
        async for event in self.request(do, **values):
            last = event
        return last

    async def stop(self) -> None:
        """End what the engine is doing, after its present token or stage."""
        if self.alive:
            await self._send({"do": "stop"})

    async def close(self) -> None:
        """End the process; its memory is free when this returns."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            for end in (None, process.terminate, process.kill):
                if end is not None:
                    with suppress(ProcessLookupError):
                        end()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), LEAVE_SECONDS / 4 if end is None else LEAVE_SECONDS)
                    break
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None

    async def _start(self) -> None:
        if self.alive:
            return
        await self.close()
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as errors:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    env=engine_environment(),
                    limit=MAX_LINE_BYTES,
                )
        except OSError as error:
            raise EnvironmentFault(
                "The engine's process cannot be started.",
                f"The system says: {error.strerror or error}.",
                "Check the free memory, the process limits and the free space of this machine.",
            ) from error
        self.lives += 1
        self._reader = asyncio.create_task(self._read(self._process))

    async def _send(self, request: Event) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with suppress(ConnectionError):  # a process that is gone is noticed where its answer is missing
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while True:
                try:
                    line = await process.stdout.readuntil(b"\n")
                except asyncio.IncompleteReadError:
                    break
                except asyncio.LimitOverrunError as error:
                    await process.stdout.readexactly(error.consumed)  # no event is that long
                    continue
                self._take(line)
            await process.wait()
        finally:
            for queue in list(self._waiting.values()):
                queue.put_nowait(None)

    def _take(self, line: bytes) -> None:
        """Hand an event to whoever waits for it; anything else on the line is passed over."""
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                number = event.get("id")
                queue = self._waiting.get(number) if isinstance(number, int) else None
                if queue is not None:
                    queue.put_nowait(event)

    async def _died(self) -> SessionFailed:
        status = self._process.returncode if self._process is not None else None
        how = f"It ended with status {status}."
        if status is not None and status < 0:
            how = f"It was ended by signal {-status}."
        if status == -9:
            how = "It was killed (SIGKILL); the system does that when main memory runs out."
        return SessionFailed(
            "The engine's process is gone.", how, f"Its log is {self.log}. Try again: a new one is started."
        )
