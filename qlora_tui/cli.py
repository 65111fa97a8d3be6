"""The console entry: the application at once, or a command; whatever happens becomes sentences and an exit code."""

from __future__ import annotations

import os
import sys

from qlora_tui.errors import ExitCode
from qlora_tui.terminal.presence import has_screen

# pydantic would look for plugins in the metadata of every package there is, and this program has none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def main() -> int:
    """Run what the arguments ask for; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 is no reason to fail
    try:
        if set(sys.argv[1:]) <= {"--ascii"} and has_screen():
            from qlora_tui.tui.app import run_app

            return run_app(ascii_only=len(sys.argv) > 1)
        code = _command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read stdout has seen enough; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.RUN_FAILED
    except (Exception, KeyboardInterrupt) as error:
        from qlora_tui.terminal.faults import report

        return report(error)


def _command() -> int:
    # The application starts faster without a parser of commands.
    import typer

    from qlora_tui.commands import app

    return int(typer.main.get_command(app).main(prog_name="qlora-tui", standalone_mode=False) or ExitCode.OK)
