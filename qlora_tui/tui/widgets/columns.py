"""Aligned columns in lines of text."""

from __future__ import annotations


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in exactly ``width`` characters, the last one a space; what is cut ends in an ellipsis."""
    room = max(1, width - 1)
    shown = text if len(text) <= room else text[: room - 1] + "…"
    return (shown.rjust(room) if right else shown.ljust(room)) + " "
