"""The serving process and its client: order, stopping, crashes, endless lines; the engine itself is stood in for."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from qlora_tui.engine import serve
from qlora_tui.engine.serve import Server
from qlora_tui.errors import ExitCode, ModelError
from qlora_tui.runs.session import Session, SessionFailed

# A stand-in for the engine that a test can make do anything.
SCRIPT = """
import json, os, signal, sys, time
stopped = False
for line in sys.stdin:
    request = json.loads(line)
    tell = lambda **event: print(json.dumps({"id": request.get("id"), **event}), flush=True)
    match request["do"]:
        case "count":
            for number in range(request["to"]):
                tell(event="token", text=str(number))
            tell(event="done", total=request["to"])
        case "noise":
            print("a library prints this"); print("{not json"); print("[1]"); print('{"event": 7, "id": 1}')
            tell(event="done")
        case "endless":
            print("x" * request["size"], flush=True)
            tell(event="done")
        case "refuse":
            tell(event="error", message="It cannot be.", hint="Do otherwise.", exit_code=3)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            sys.exit(5)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            tell(event="done")
            while True:
                time.sleep(1)
        case "pid":
            tell(event="done", pid=os.getpid())
"""


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "engine.py").write_text(SCRIPT)
    return Session([sys.executable, str(tmp_path / "engine.py")], tmp_path / "state" / "session.log")


# --- the client


def test_events_come_in_order_and_end_with_done(session: Session) -> None:
    async def story() -> list[dict[str, Any]]:
        try:
            return [event async for event in session.request("count", to=1000)]
        finally:
            await session.close()

    events = run(story())
    assert [event.get("text") for event in events[:-1]] == [str(number) for number in range(1000)]
    assert (events[-1]["event"], events[-1]["total"]) == ("done", 1000)


def test_noise_and_endless_lines_are_passed_over(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlora_tui.runs.session.MAX_LINE_BYTES", 1 << 16)

    async def story() -> None:
        assert (await session.ask("noise"))["event"] == "done"
        assert (await session.ask("endless", size=10 << 20))["event"] == "done"
        assert (await session.ask("count", to=2))["total"] == 2
        assert session.lives == 1
        await session.close()

    run(story())


def test_an_error_event_is_raised_with_its_hint_and_code(session: Session) -> None:
    async def story() -> None:
        with pytest.raises(SessionFailed, match="It cannot be") as caught:
            await session.ask("refuse")
        assert caught.value.hint == "Do otherwise."
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert (await session.ask("count", to=1))["total"] == 1
        await session.close()

    run(story())


@pytest.mark.parametrize(("how", "told"), [("die", "SIGKILL"), ("leave", "status 5")])
def test_a_crash_is_told_and_the_next_request_starts_anew(session: Session, how: str, told: str) -> None:
    async def story() -> None:
        with pytest.raises(SessionFailed, match=told):
            await session.ask(how)
        assert not session.alive
        assert (await session.ask("count", to=1))["total"] == 1
        assert session.lives == 2
        await session.close()

    run(story())


def test_closing_ends_the_process_even_a_deaf_one(session: Session) -> None:
    async def story() -> int:
        await session.ask("deaf")
        pid = session.pid
        assert pid is not None
        start = time.monotonic()
        await session.close()
        assert time.monotonic() - start < 8
        return pid

    assert not psutil.pid_exists(run(story()))


def test_a_process_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(Exception, match="cannot be started"):
            await Session([str(tmp_path / "missing")], tmp_path / "log").ask("count", to=1)

    run(story())


# --- the server


class FakeReply:
    """Words one after the other, until they are stopped."""

    def __init__(self, words: list[str], pause: float) -> None:
        self._words, self._pause = words, pause
        self._cancelled = threading.Event()
        self.tokens, self.seconds = 0, 0.0
        self.stopped_by: str | None = None

    def cancel(self) -> None:
        self._cancelled.set()

    def __iter__(self) -> Any:
        for word in self._words:
            if self._cancelled.wait(self._pause):
                self.stopped_by = "cancelled"
                return
            self.tokens += 1
            yield word
        self.stopped_by = "end_of_turn"


class FakeChat:
    """Answers each question with its own words."""

    config = SimpleNamespace(training=SimpleNamespace(seed=7))

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self.asked: list[Any] = []

    def conversation(self, turns: Any, system: str | None) -> Any:
        return [system, *turns]

    def reply(self, turns: Any, side: str, sampling: Any) -> FakeReply:
        self.asked.append((turns, side, sampling))
        return FakeReply(turns[-1].content.split(), self._pause)


class Pipe(io.RawIOBase):
    """Lines that a test feeds while the server reads."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._ready = threading.Condition()
        self._ended = False

    def feed(self, **request: Any) -> None:
        with self._ready:
            self._lines.append(json.dumps(request).encode() + b"\n")
            self._ready.notify()

    def end(self) -> None:
        with self._ready:
            self._ended = True
            self._ready.notify()

    def readline(self, _size: int | None = -1) -> bytes:
        with self._ready:
            self._ready.wait_for(lambda: self._lines or self._ended)
            return self._lines.pop(0) if self._lines else b""


def served(chat: FakeChat | None, *lines: bytes) -> list[dict[str, Any]]:
    """The events that a server writes for lines that are all there already."""
    events: list[dict[str, Any]] = []
    server = Server(events.append)
    server._session = chat  # type: ignore[assignment]
    server.run(io.BytesIO(b"".join(lines)))
    return events


def line(**request: Any) -> bytes:
    return json.dumps(request).encode() + b"\n"


def test_requests_are_answered_in_order() -> None:
    pipe = Pipe()
    events: list[dict[str, Any]] = []
    server = Server(events.append)
    server._session = FakeChat()  # type: ignore[assignment]
    for number, text in ((1, "a b"), (2, "c")):
        pipe.feed(id=number, do="generate", turns=[{"role": "user", "content": text}])
    thread = threading.Thread(target=server.run, args=(pipe,))
    thread.start()
    _wait(lambda: sum(event["event"] == "done" for event in events) == 2)
    pipe.end()
    thread.join(10)
    assert [(event["id"], event.get("text", event["event"])) for event in events] == [
        (1, "a"),
        (1, "b"),
        (1, "done"),
        (2, "c"),
        (2, "done"),
    ]


def test_a_stop_overtakes_and_spares_what_comes_later() -> None:
    pipe = Pipe()
    events: list[dict[str, Any]] = []
    server = Server(events.append)
    server._session = FakeChat(pause=0.01)  # type: ignore[assignment]
    thread = threading.Thread(target=server.run, args=(pipe,))
    thread.start()
    pipe.feed(id=1, do="generate", turns=[{"role": "user", "content": "word " * 10_000}])
    pipe.feed(id=2, do="generate", turns=[{"role": "user", "content": "word " * 10_000}])
    _wait(lambda: any(event["event"] == "token" for event in events))
    pipe.feed(do="stop")
    _wait(lambda: sum(event["event"] == "done" for event in events) == 2)
    pipe.feed(id=3, do="generate", turns=[{"role": "user", "content": "all of it"}])
    _wait(lambda: sum(event["event"] == "done" for event in events) == 3)
    pipe.end()
    thread.join(10)
    done = [event for event in events if event["event"] == "done"]
    assert [event["stopped_by"] for event in done] == ["cancelled", "cancelled", "end_of_turn"]
    assert done[1]["tokens"] == 0


def test_the_end_of_stdin_ends_what_is_being_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LEAVE_SECONDS", 30.0)
    start = time.monotonic()
    events = served(FakeChat(pause=0.05), line(id=1, do="generate", turns=[{"role": "user", "content": "w " * 9000}]))
    assert time.monotonic() - start < 10
    assert events[-1]["stopped_by"] == "cancelled"


def test_the_run_chooses_seed_and_system_unless_it_is_told() -> None:
    chat = FakeChat()
    pipe = Pipe()
    events: list[dict[str, Any]] = []
    server = Server(events.append)
    server._session = chat  # type: ignore[assignment]
    turns = [{"role": "user", "content": "x"}]
    pipe.feed(id=1, do="generate", turns=turns)
    pipe.feed(
        id=2, do="generate", turns=turns, side="base", system="S", seed=1, temperature=0.5, top_p=0.9, max_tokens=3
    )
    thread = threading.Thread(target=server.run, args=(pipe,))
    thread.start()
    _wait(lambda: sum(event["event"] == "done" for event in events) == 2)
    pipe.end()
    thread.join(10)
    (first, second) = chat.asked
    assert (first[0][0], first[1], first[2].seed) == (None, "adapter", 7)
    assert (second[0][0], second[1], second[2].seed, second[2].max_tokens) == ("S", "base", 1, 3)


@pytest.mark.parametrize(
    ("request_line", "named"),
    [
        (b"nonsense\n", "request"),
        (b"[]\n", "request"),
        (line(id=1, do="dance"), "request"),
        (line(id=1, do="generate", turns=[]), "turns"),
        (line(id=1, do="generate", turns=[{"role": "system", "content": "x"}]), "role"),
        (line(id=1, do="generate", turns=[{"role": "user", "content": "x"}], temperature=-1), "temperature"),
        (line(id=1, do="load"), "target"),
        (line(id=1, do="push", folder="x", repository="y", tokens="z"), "tokens"),
    ],
)
def test_a_bad_request_names_the_field_and_the_server_goes_on(request_line: bytes, named: str) -> None:
    events = served(None, request_line, line(id=2, do="unload"))
    assert events[0]["event"] == "error"
    assert named in events[0]["message"]
    assert events[-1] in ({"id": 2, "event": "done"},)


def test_nothing_can_be_generated_before_a_model_is_loaded() -> None:
    (event,) = served(None, line(id=1, do="generate", turns=[{"role": "user", "content": "x"}]))
    assert (event["id"], event["event"], event["exit_code"]) == (1, "error", 2)


def test_a_failing_request_is_an_error_with_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ModelError("It has no head.", "It is lost.", "Find it.")

    monkeypatch.setattr(Server, "_unload", refuse)
    (event,) = served(None, line(id=9, do="unload"))
    assert event == {
        "id": 9,
        "event": "error",
        "message": "It has no head. It is lost.",
        "hint": "Find it.",
        "exit_code": 2,
    }


def test_a_secret_in_a_bad_request_is_not_repeated() -> None:
    events = served(None, line(id=1, do="push", folder="x", repository=3, token="hf_secret"))
    assert "hf_secret" not in json.dumps(events)


def _wait(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)
