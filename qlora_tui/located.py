"""Paths in a config: relative ones are looked for in the current folder, then beside the config."""

from __future__ import annotations

from pathlib import Path

from qlora_tui.errors import QloraError
from qlora_tui.text import one_line

_BEGINNINGS = ("/", "./", "../", "~")


def located(source: str, folder: Path, error: type[QloraError], suffixes: tuple[str, ...]) -> str:
    """``source`` as an absolute path if it names something on this machine, else as it is.

    Raises:
        QloraError: (``error``) if it can only be meant as a path, and there is nothing.
    """
    places = list(dict.fromkeys((Path.cwd(), folder)))
    for place in places:
        try:
            candidate = place / Path(source).expanduser()
            if candidate.exists():
                return str(candidate.absolute())
        except (OSError, ValueError, RuntimeError):
            continue  # too long, or with characters or a home folder that no path has
    if source.startswith(_BEGINNINGS) or source.lower().endswith(suffixes or ("\0",)):
        raise error(
            f"Cannot find {one_line(source, 200)}.",
            f"It is neither there as named nor in {' or '.join(map(str, places))}.",
            "Check the path in the config; a relative one is looked for in the current folder, then beside the config.",
        )
    return source
