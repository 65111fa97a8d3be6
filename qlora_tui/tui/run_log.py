"""A line of a run's log as text with its time and a colour; never as markup."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.text import Text

from qlora_tui.runs.view import LogLine

_COLOURS = {"good": "success", "notice": "warning", "bad": "error"}


def log_text(line: LogLine, colours: Mapping[str, str]) -> Text:
    """For a ``RichLog``, in the colours of the theme."""
    clock = time.strftime("%H:%M:%S", time.localtime(line.time))
    return Text.assemble((f"{clock} ", "dim"), (line.text, colours.get(_COLOURS.get(line.tone, ""), "")))
