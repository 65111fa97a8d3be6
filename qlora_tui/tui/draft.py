"""Unfinished answers, saved at every change.

The draft is one file, whole or not there, so that a crash of anything costs nothing that was answered.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qlora_tui.paths import state_directory
from qlora_tui.runs.files import write_atomic

if TYPE_CHECKING:
    from qlora_tui.tui.answers import Answers

_VERSION: Final = 1
_MOST_BYTES: Final = 1_000_000


def draft_file() -> Path:
    """Where unfinished answers are kept."""
    return state_directory() / "draft.json"


def save_draft(answers: Answers, path: Path | None = None) -> None:
    """Keep the answers.

    Raises:
        OSError: if the state folder cannot be written.
    """
    path = path or draft_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "version": _VERSION,
        "config": answers.config.model_dump(),
        "model_chosen": answers.model_chosen,
        "licence_accepted": answers.licence_accepted,
        "card": answers.card,
        "gpu": answers.gpu,
        "name_chosen": answers.name_chosen,
        "unusable": dict(answers.unusable),
        "step": answers.step,
    }
    write_atomic(path, json.dumps(values, indent=1) + "\n")


def load_draft(path: Path | None = None) -> Answers | None:
    """The kept answers; None if there are none that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        path = path or draft_file()
        if path.stat().st_size > _MOST_BYTES:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != _VERSION:
            return None
        from qlora_tui.config import RunConfig
        from qlora_tui.tui.answers import Answers

        return Answers(
            config=RunConfig.model_validate(values["config"]),
            model_chosen=values["model_chosen"] is True,
            licence_accepted=_text(values["licence_accepted"]),
            card=_text(values["card"]),
            gpu=int(values["gpu"]),
            name_chosen=values["name_chosen"] is True,
            unusable={str(key): str(text) for key, text in values["unusable"].items()},
            step=min(5, max(1, int(values["step"]))),
        )
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def drop_draft(path: Path | None = None) -> None:
    """Forget them: they have become a run, or a person starts anew."""
    with suppress(OSError):
        (path or draft_file()).unlink(missing_ok=True)
