"""What happens to each line before it is drawn: nothing in it may act on the terminal; all of it in ASCII if wanted."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SAME: Final = {
    "─━═╌┄▁▂▃▔▀╴╶╼╾╸╺": "-",
    "│┃║╎┆▏▕▎▍▌▐╵╷": "|",
    "┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛┣┫┳┻╋╔╗╚╝╠╣╦╩╬": "+",
    "█▇▆▅▄■": "#",
    "▓": "%",
    "▒": "=",
    "░": ":",
    "▚": "&",
    "●◉⬤": "*",
    "○◯•°◌": "o",
    "·⣀": ".",
    "\N{NO-BREAK SPACE}": " ",
    "⟦": "[",
    "✂": "%",
    "⟧": "]",
    "✓": "+",
    "✗✕": "x",
    "≈": "~",
    "…": "~",
    "→⇥▶▸›»⏵◆": ">",
    "←◀◂‹«⏴": "<",
    "▲△↑⏶": "^",
    "▼▽↓⏷": "v",
    "–—−": "-",
    "×": "x",
    "“”„": '"',
    "‘’": "'",
    "␣": "_",
    "↵⏎": "$",
    "⭘": "O",
    "⌃": "^",
}
_TABLE: Final = str.maketrans({character: plain for many, plain in _SAME.items() for character in many})


@lru_cache(maxsize=4096)
def to_ascii(text: str) -> str:
    """``text`` in ASCII, taking as many cells as before."""
    if text.isascii():
        return text
    translated = text.translate(_TABLE)
    return "".join(character if character.isascii() else "?" * cell_len(character) for character in translated)


# C0 and C1 controls and what reorders text: none of them takes a cell, so nothing moves when they go.
_ACTING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class SafeFilter(LineFilter):
    """The last line of defence: foreign text is cleaned where it comes in, and whatever slips through ends here."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(text.isprintable() for text, _, _ in segments):
            return segments
        return [Segment(_ACTING.sub("", text), style, control) for text, style, control in segments]


class AsciiFilter(LineFilter):
    """Rewrites each line that is about to be drawn."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
