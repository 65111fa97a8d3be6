"""Everything on the screen in ASCII, for terminals and fonts that lack more."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SAME: Final = {
    "─━═╌┄▁▂▔▀╴╶╼╾": "-",
    "│┃║╎┆▏▕▎▍▌▐╵╷": "|",
    "┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛┣┫┳┻╋╔╗╚╝╠╣╦╩╬": "+",
    "█▇▆▅▄■": "#",
    "▓": "%",
    "▒": "=",
    "░": ".",
    "▚": "&",
    "●◉⬤": "*",
    "○◯·•": "o",
    "✓": "v",
    "✗✕": "x",
    "≈": "~",
    "…": "~",
    "→▶▸›»⏵": ">",
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


class AsciiFilter(LineFilter):
    """Rewrites each line that is about to be drawn."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
