"""The demo data set: complete, balanced, masked, and the one that its note describes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TRAIN, HELDOUT, NOTE = EXAMPLES / "spam.jsonl", EXAMPLES / "spam-heldout.jsonl", EXAMPLES / "SPAM-DATA.md"
ROWS = {TRAIN: 400, HELDOUT: 260}
FILES = pytest.mark.parametrize("path", list(ROWS), ids=lambda path: path.stem)

EMAIL = re.compile(r"\w@|@\w+\.\w")
PHONE = re.compile(r"\d{6,}|\(\d{3}\)|\+\d{2,}|\b\d{3}[-. ]\d{3,4}[-. ]\d{4}\b|\b\d{3}[-.]\d{4}\b")
URL_WITH_PATH = re.compile(r"(?:://|\bwww\.)[^\s/]+/\S")


def pairs(path: Path) -> list[tuple[str, str]]:
    """The user's text and the answer of each row; fails on a row of another form."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        first, second = json.loads(line)["messages"]
        assert [first["role"], second["role"]] == ["user", "assistant"]
        found.append((first["content"], second["content"]))
    return found


def normalised(text: str) -> str:
    return re.sub(r"[^a-z]+", " ", text.lower()).strip()


def subject_of(user: str) -> str:
    return normalised(user.split("\n\n")[1].removeprefix("Subject: "))


@FILES
def test_rows_are_complete_and_balanced(path: Path) -> None:
    rows = pairs(path)
    assert len(rows) == ROWS[path]
    assert Counter(answer for _, answer in rows) == {"spam": ROWS[path] // 2, "ham": ROWS[path] // 2}
    for user, _ in rows:
        instruction, subject, body = user.split("\n\n")
        assert instruction == "Is this e-mail spam or ham? Answer with one word."
        assert subject.startswith("Subject: ")
        assert subject_of(user)
        assert 50 <= len(body) <= 220


@FILES
def test_classes_are_mixed_in_the_order_of_rows(path: Path) -> None:
    answers = [answer for _, answer in pairs(path)]
    halves = answers[: len(answers) // 2].count("spam") / (len(answers) // 2)
    assert 0.4 < halves < 0.6


def test_no_mail_is_there_twice() -> None:
    users = [user for path in ROWS for user, _ in pairs(path)]
    assert len({normalised(user) for user in users}) == len(users)
    assert len({subject_of(user) for user in users}) == len(users)
    assert len({normalised(user.split("\n\n")[2]) for user in users}) == len(users)


@FILES
def test_personal_data_is_masked(path: Path) -> None:
    for user, _ in pairs(path):
        for pattern in (EMAIL, PHONE, URL_WITH_PATH):
            assert not pattern.search(user), user


@FILES
def test_text_is_printable(path: Path) -> None:
    for user, _ in pairs(path):
        assert "\ufffd" not in user
        assert all(ch.isprintable() or ch == "\n" for ch in user)


def test_note_names_the_files_as_they_are() -> None:
    note = NOTE.read_text(encoding="utf-8")
    for path in ROWS:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in note
    assert sum(path.stat().st_size for path in ROWS) <= 400_000
