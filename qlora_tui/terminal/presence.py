"""Whether somebody is there."""

from __future__ import annotations

import os
import sys


def has_screen() -> bool:
    """Whether there is a person before a terminal that can be drawn on."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
