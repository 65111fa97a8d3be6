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
