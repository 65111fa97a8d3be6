"""How a run is repeated without the application."""

from __future__ import annotations

import shlex
from pathlib import Path


def replay_command(config: Path) -> str:
    """The command that repeats a run from its config."""
    return f"qlora-tui --config {shlex.quote(str(config))}"
