"""``qlora-tui inspect``: what the data of a config teaches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from qlora_tui.config_file import load_config
from qlora_tui.runs.inspecting import parse_which, run_inspection
from qlora_tui.terminal.inspection_view import inspection_view
from qlora_tui.terminal.replay import with_absolute_paths

_LINE_SECONDS = 10.0
_PLAIN_WIDTH = 100


def inspect(path: Path, row: str | None, *, as_json: bool) -> None:
    """Inspect the data of the config at ``path`` and show what was found.

    Args:
        row: The row to show, as typed; None shows the first.

    Raises:
        QloraError: if the config or its data cannot be used.
        KeyboardInterrupt: after the engine has ended.
    """
    which = parse_which(row) if row is not None else "first"
    config = with_absolute_paths(load_config(path), path)
    with _progress(quiet=as_json) as report:
        inspection = run_inspection(config, which, report)
    if as_json:
        sys.stdout.write(json.dumps(inspection.contract()) + "\n")
        sys.stdout.flush()
        return
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False, width=width)
    console.print(inspection_view(inspection, config, whole_row=row is not None))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int | None, str], None]]:
    """A line on stderr that says how far it is: rewritten on a terminal, rarely repeated elsewhere."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if quiet or not console.is_terminal:
        last = time.monotonic()

        def tell(name: str, done: int, total: int | None, unit: str) -> None:
            nonlocal last
            if not quiet and time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                console.print(Text(describe(name, done, total, unit)), soft_wrap=True)

        yield tell
        return
    with Live(
        console=console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:
        live.update(Text("reading the first rows …"), refresh=True)
        yield lambda name, done, total, unit: live.update(
            Text(describe(name, done, total, unit), no_wrap=True, overflow="ellipsis"), refresh=True
        )


def describe(name: str, done: int, total: int | None, unit: str) -> str:
    """For example ``train rows: 12,000 of 50,000 (24 %)``."""
    if unit == "bytes":
        done, total, unit = done >> 20, None if total is None else total >> 20, "MiB"
    if not total:
        return f"{name} …" if not done else f"{name}: {done:,} {unit}"
    return f"{name}: {done:,} of {total:,} {unit} ({done / total:.0%})"
