"""JSON lines between an engine process and whoever started it: events on stdout, and errors as events."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from threading import Lock
from typing import Any

from qlora_tui.errors import InternalFault, OutOfMemory, QloraError
from qlora_tui.text import one_line

Write = Callable[[dict[str, Any]], None]


@contextmanager
def events_on_stdout() -> Iterator[Write]:
    """A function that writes events to stdout, while whatever libraries print goes to stderr, native code included.

    The function may be called from any thread.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    lock = Lock()
    try:
        with os.fdopen(os.dup(stdout), "wb", buffering=0) as stream, redirect_stdout(sys.stderr):

            def write(event: dict[str, Any]) -> None:
                with lock:
                    _write_all(stream, json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

            yield write
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _write_all(stream: Any, content: bytes) -> None:
    """An unbuffered pipe may take only a part of a long line at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) or 0 :]


def error_event(error: Exception, what: str) -> dict[str, Any]:
    """The event that tells ``error``; a fault of ours also leaves its traceback on stderr.

    Args:
        what: What could not be done, for errors that do not say it themselves.
    """
    if not isinstance(error, QloraError):
        traceback.print_exc()
    fault = as_qlora_error(error, what)
    return {
        "event": "error",
        "message": f"{fault.what} {fault.why}",
        "hint": fault.hint,
        "exit_code": int(fault.exit_code),
    }


def as_qlora_error(error: Exception, what: str) -> QloraError:
    """Any exception as an error with its three sentences."""
    if isinstance(error, QloraError):
        return error
    text = one_line(str(error)) or "no message"
    # By name: torch may not even be loaded yet, and this is no reason to load it.
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or re.search("can't allocate memory|out of memory", text):
        return OutOfMemory(
            f"{what} because memory ran out.",
            f"{text}.",
            "End other processes that use this device, or ask something shorter.",
        )
    return InternalFault(
        f"{what} because of an unexpected fault.",
        f"{type(error).__name__}: {text}.",
        "The traceback is in the log; `qlora-tui doctor` checks the installation.",
    )
