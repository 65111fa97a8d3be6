"""Questions kept for spot checks, and conversations kept as files."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from qlora_tui.paths import state_directory
from qlora_tui.runs.files import write_atomic
from qlora_tui.runs.serving import served_name
from qlora_tui.tui.conversation import Spot

MOST = 200


def prompts_file() -> Path:
    """Where own questions are kept."""
    return state_directory() / "prompts.json"


def kept_prompts() -> list[str]:
    """The questions kept so far, the newest first; whatever cannot be read is left out."""
    with suppress(OSError, ValueError, RecursionError):
        values = json.loads(prompts_file().read_text(encoding="utf-8"))
        if isinstance(values, list):
            return [value for value in values if isinstance(value, str) and value.strip()][:MOST]
    return []


def keep_prompt(prompt: str) -> bool:
    """Keep a question; whether that could be done."""
    prompts = [prompt, *(each for each in kept_prompts() if each != prompt)][:MOST]
    try:
        prompts_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(prompts_file(), json.dumps(prompts, ensure_ascii=False, indent=1) + "\n")
    except OSError:
        return False
    return True


def own_spots() -> list[Spot]:
    """The kept questions as spot checks."""
    return [Spot(prompt) for prompt in kept_prompts()]


def save_transcript(name: str, text: str) -> Path:
    """Write a conversation to a file of its own; its path.

    Raises:
        OSError: if it cannot be written.
    """
    folder = state_directory() / "transcripts"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{served_name(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = folder / f"{stem}.md", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}.md"
    write_atomic(path, text)
    return path
