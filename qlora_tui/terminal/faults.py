"""Whatever ends a command, as sentences on stderr and an exit code. Tracebacks go to a log, never to the terminal."""

from __future__ import annotations

import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from typer import Abort
from typer.exceptions import TyperException

from qlora_tui import __version__
from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.paths import state_directory
from qlora_tui.terminal.narration import write_error
from qlora_tui.text import one_line


def report(error: BaseException) -> int:
    """Tell ``error``; the exit code it leads to."""
    match error:
        case QloraError():
            return _fail(error.exit_code, error.what, error.why, error.hint)
        case TyperException():
            return _fail(ExitCode.USAGE, "This command line does not make sense.", *_usage(error))
        case KeyboardInterrupt() | Abort():
            return _fail(ExitCode.INTERRUPTED, "Interrupted.")
        case _:
            why = f"{type(error).__name__}: {one_line(str(error)) or 'no message'}."
            return _fail(ExitCode.RUN_FAILED, "qlora-tui failed in a way that it should not.", why, _keep(error))


def _usage(error: TyperException) -> tuple[str, str]:
    """Why a command line is refused, and where its help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "qlora-tui"
    message = " ".join(error.format_message().split())
    return message if message.endswith((".", "?")) else message + ".", f"See `{command} --help`."


def _keep(error: BaseException) -> str:
    """Append the traceback of a fault of ours to a log; the sentence that says where."""
    text = f"qlora-tui {__version__}, Python {sys.version.split()[0]}: {' '.join(sys.argv)}\n"
    text += "".join(traceback.format_exception(error)) + "\n"
    for folder in (state_directory(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "crash.log").open("a", encoding="utf-8", errors="replace") as handle:
                handle.write(text)
            return f"The traceback is in {folder / 'crash.log'}."
    return "Its traceback could not be written to a log."


def _fail(code: ExitCode, *sentences: str) -> int:
    with suppress(OSError):
        sys.stdout.flush()
        write_error(*sentences)
    return int(code)
