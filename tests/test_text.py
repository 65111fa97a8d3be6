"""Foreign text made safe to print, and made visible."""

from __future__ import annotations

import unicodedata

import pytest

from qlora_tui.text import one_line, printable, visible

HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x1b\\",
    "a\rb",
    "a\x08\x08b",
    "\x9b31m",
    "safe\u202edesrever",
    "\u2066isolated\u2069",
    "tag\U000e0041\U000e0042",
    "bell\x07nul\x00del\x7f",
    "zero\u200bwidth\ufeff",
    "line\u2028break",
    "half\ud800pair",
)


def acts(character: str) -> bool:
    """Whether a terminal or a reader could be misled by the character."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and character not in "\n\t"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_is_left(text: str) -> None:
    assert not any(acts(character) for character in visible(text))
    assert "\x1b" not in printable(text) + one_line(text)


def test_what_is_hidden_is_named() -> None:
    assert visible("a\x1b[31mb") == "a␛[31mb"
    assert visible("a\u202eb\x7f\x00") == "a⟨U+202E⟩b␡␀"
    assert visible("a\r\nb") == "a␍\nb"


def test_ordinary_text_stays() -> None:
    for text in ("plain", "line\nline\ttab", "naïve café", "日本語", "👩‍👩‍👧 family", "नमस्ते", "مرحبا", "e\u0301"):
        assert visible(text) == text


def test_a_stack_of_marks_is_cut() -> None:
    assert len(visible("z" + "\u0301" * 500)) < 20
