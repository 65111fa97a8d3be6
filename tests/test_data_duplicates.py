"""Rows that say the same, exactly or almost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from qlora_tui.data import duplicates
from qlora_tui.data.duplicates import Hashes, Sketches, repeats

WORDS = [f"w{number}" for number in range(2000)]


def texts(count: int, length: int = 60, seed: int = 1) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=length)) for _ in range(count)]


def edited(text: str, seed: int = 2) -> str:
    words = text.split()
    words[random.Random(seed).randrange(len(words))] = "other"
    return " ".join(words)


def near(sketches: Sketches) -> list[tuple[int, int]]:
    groups = sketches.groups()
    return [(int(place), int(groups[place])) for place in np.flatnonzero(groups != np.arange(len(groups)))]


def test_exact_repeats() -> None:
    hashes = Hashes()
    for content in (b"a", b"b", b"a", b"c", b"b", b"a"):
        hashes.add(content)
    assert repeats(hashes.values()).tolist() == [2, 4, 5]


def test_almost_equal_texts_meet_and_others_do_not() -> None:
    rows = texts(400)
    sketches = Sketches()
    sketches.add(rows)
    sketches.add([edited(rows[7]), rows[9].upper(), texts(1, seed=9)[0], edited(edited(rows[7]), 3)])
    assert near(sketches) == [(400, 7), (401, 9), (403, 7)]


def test_a_common_instruction_makes_nobody_alike() -> None:
    instruction = " ".join(WORDS[:80])
    sketches = Sketches()
    sketches.add([f"{instruction} {text}" for text in texts(100, 20)])
    assert near(sketches) == []


def test_many_copies_are_found_although_they_are_common() -> None:
    text = texts(1)[0]
    sketches = Sketches()
    sketches.add([text] * 30 + texts(30, seed=5))
    assert near(sketches) == [(place, 0) for place in range(1, 30)]


def test_short_and_empty_texts_meet_nobody() -> None:
    sketches = Sketches()
    sketches.add(["", "a", "a b", "", "yes", "yes"])
    assert near(sketches) == []
    assert Sketches().groups().tolist() == []


def test_texts_without_spaces_are_compared_by_characters() -> None:
    dice = random.Random(4)
    text = "".join(chr(dice.randrange(0x4E00, 0x9000)) for _ in range(200))
    other = "".join(chr(dice.randrange(0x4E00, 0x9000)) for _ in range(200))
    sketches = Sketches()
    sketches.add([text, other, text[:100] + "的" + text[100:]])
    assert near(sketches) == [(2, 0)]


def test_blocks_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 16)
    sketches = Sketches()
    rows = texts(50)
    for start in range(0, 50, 7):
        sketches.add(rows[start : start + 7])
    sketches.add([edited(rows[3]), edited(rows[49])])
    assert near(sketches) == [(50, 3), (51, 49)]
