"""Text that was damaged on its way into the data, or hides something: what is wrong with it, by kind."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Literal, get_args

Trouble = Literal[
    "mojibake", "replacement_character", "control_character", "hidden_character", "mixed_script", "markup"
]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)

_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f]")
_HIDDEN = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]")
_ENTITIES = re.compile(
    r"&(?:amp|lt|gt|quot|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,5});|<(?:br|/p|/div|/span|/li) ?/?>", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_LOOKALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK"})
"""Scripts whose letters are taken for each other's; others stand side by side in one word with good reason."""


def troubles(text: str) -> Iterator[Trouble]:
    """Each kind of trouble with ``text`` once.

    Text that was decoded in the wrong encoding is recognised by ftfy's measure.
    """
    if _CONTROL.search(text) is not None:
        yield "control_character"
    # One may be what the row is about; several are a page that was not cleaned.
    if any(mark in text for mark in ("&", "</", "<b", "<B")) and len(_ENTITIES.findall(text)) >= 3:
        yield "markup"
    if text.isascii():
        return
    if "\N{REPLACEMENT CHARACTER}" in text:
        yield "replacement_character"
    if _HIDDEN.search(text.removeprefix("\ufeff")) is not None:
        yield "hidden_character"
    if _is_mojibake(text):
        yield "mojibake"
    if any(_mixes(word) for word in _WORD.findall(text) if not word.isascii()):
        yield "mixed_script"


def _is_mojibake(text: str) -> bool:
    from ftfy.badness import is_bad

    return bool(is_bad(text))


def _mixes(word: str) -> bool:
    found = {script_of(character) for character in word}
    return len(found & _LOOKALIKE) > 1


def main_script(text: str) -> str | None:
    """The script that most letters of ``text`` are of, such as ``LATIN``; None without letters."""
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else None
    scripts = Counter(script for character in text[:2000] if (script := script_of(character)) is not None)
    return scripts.most_common(1)[0][0] if scripts else None


@functools.lru_cache(maxsize=65_536)
def script_of(character: str) -> str | None:
    """The script of a letter by its Unicode name; None for what is no letter."""
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0]
    return {"FULLWIDTH": "LATIN", "HALFWIDTH": "KATAKANA", "HIRAGANA": "JAPANESE", "KATAKANA": "JAPANESE"}.get(
        name, name
    )
