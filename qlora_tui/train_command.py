"""The commands that train: start what a config describes or go on with a run, and stay with it to its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qlora_tui.errors import ExitCode, QloraError, RunError
from qlora_tui.headless import Interruptions, Style, Summary, follow
from qlora_tui.runs import launch
from qlora_tui.runs.directory import RunDirectory, find_run
from qlora_tui.runs.feed import last_event
from qlora_tui.runs.telling import run_reference
from qlora_tui.terminal.replay import run_from_config


def style_for(*, as_json: bool, quiet: bool) -> Style:
    """How to show a run on what stderr is."""
    if as_json:
        return "json"
    if quiet:
        return "quiet"
    return "rich" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"


def train(config: Path, *, name: str | None, overwrite: bool, detach: bool, as_json: bool, quiet: bool) -> int:
    """Start the run of a config file and follow it to its end, or leave it to itself; the exit code.

    Raises:
        QloraError: if it cannot be started; with ``as_json`` the summary says so too.
    """
    run: RunDirectory | None = None
    try:
        # Caught from the beginning: a Ctrl-C while the process comes up must not leave a run that nobody watches.
        with Interruptions() as interruptions:
            run = run_from_config(config, name=name, overwrite=overwrite)
            process = launch.start(run)
            if not detach:
                style = style_for(as_json=as_json, quiet=quiet)
                return follow(run, style=style, process=process, from_start=True, interruptions=interruptions).exit_code
            if interruptions.stops:
                launch.request_stop(run)
                raise KeyboardInterrupt
    except QloraError as error:
        if as_json:
            _write(Summary.of_error(error, run.path if run else None).to_json())
        raise
    if not (quiet or as_json):
        sys.stderr.write(f"{run.name} is training. Watch it with `qlora-tui attach {run_reference(run)}`.\n")
    _write(Summary(run.path, "running", ExitCode.OK).to_json() if as_json else str(run.path))
    return ExitCode.OK


def go_on(reference: str, *, as_json: bool) -> int:
    """Start another life of a run and follow it to its end; the exit code.

    Raises:
        QloraError: if it cannot be gone on with; with ``as_json`` the summary says so too.
    """
    run: RunDirectory | None = None
    try:
        run = find_run(reference)
        _refuse_if_over(run)
        begun = run.status() != "created"
        last = last_event(run.events)
        with Interruptions() as interruptions:
            process = launch.start(run, resume=begun)
            return follow(
                run,
                style=style_for(as_json=as_json, quiet=False),
                process=process,
                from_start=False,
                after=last.seq if last else 0,
                interruptions=interruptions,
            ).exit_code
    except QloraError as error:
        if as_json:
            _write(Summary.of_error(error, run.path if run else None).to_json())
        raise


def _refuse_if_over(run: RunDirectory) -> None:
    status = run.status()
    if status in ("completed", "early_stopped"):
        ended = "It is completed" if status == "completed" else "It ended early, as its evaluation no longer improved"
        raise RunError(
            f"Cannot resume the run {run.name}.",
            f"{ended}: nothing is left to do.",
            f"Ask it with `qlora-tui chat {run.name} --prompt '…'`; repeat it with `qlora-tui --config {run.config}`.",
        )
    if status == "running":
        raise RunError(
            f"Cannot resume the run {run.name}.",
            f"It is training right now (process {run.owner()}).",
            f"Watch it with `qlora-tui attach {run.name}`.",
        )


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
