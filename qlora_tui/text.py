"""Foreign text made safe to print: file contents, model output, hub names, exception messages."""

from __future__ import annotations

import re

# C0 and C1 controls except newline and tab, plus the bidirectional overrides that reorder what follows them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# CSI and OSC sequences are dropped whole, so that "[31m" does not stay behind as litter.
_ESCAPES = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\-_])")


def printable(text: str, limit: int | None = None) -> str:
    """``text`` without anything that acts on a terminal, cut to ``limit`` characters with an ellipsis."""
    if limit is not None and len(text) > 4 * limit:
        text = text[: 4 * limit]
        cut = True
    else:
        cut = False
    text = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text.replace("\r\n", "\n")))
    if limit is not None and (cut or len(text) > limit):
        text = text[: limit - 1] + "…"
    return text


def one_line(text: str, limit: int = 200) -> str:
    """``text`` as one printable line."""
    return " ".join(printable(text, limit * 2).split())[:limit]


# What draws nothing, or draws over its neighbours: shown by name, for it may hide what a row really says.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\ue000-\uf8ff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_MARKS = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED = re.compile(f"({_MARKS}{{8}}){_MARKS}+")
_JOINERS = "\u200c\u200d"
"""Zero-width joiners stand inside emoji and many scripts, and are harmless there."""


def visible(text: str) -> str:
    """``text`` with every character that cannot be seen shown by its code, so that nothing acts and nothing hides.

    Line breaks and tabs stay. A stack of more than eight combining marks, which would spill over other lines, is cut.
    """
    if text.isascii() and text.isprintable():
        return text
    return _STACKED.sub(r"\1…", _UNSEEN.sub(_named, text.replace("\r\n", "␍\n")))


def _named(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if character in _JOINERS and match.start() > 0 and match.string[match.start() - 1] > "\x7f":
        return character
    return f"⟨U+{code:04X}⟩"
