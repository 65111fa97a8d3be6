"""Private data and secrets: found, not invented, masked, and replaced consistently."""

from __future__ import annotations

import pytest

from qlora_tui.data.privacy import Redactor, masked, scan

FOUND = [
    ("email", "write to Bob.Smith+x@mail.example.co.uk.", "Bob.Smith+x@mail.example.co.uk"),
    ("email", "<anna@müller.de>", "anna@müller.de"),
    ("phone", "at (415) 555-2671 x33 now", "(415) 555-2671 x33"),
    ("phone", "or +44 20 7946 0958", "+44 20 7946 0958"),
    ("phone", "0049 89 636 48018", "0049 89 636 48018"),
    ("phone", "Telefon: 030 12345678.", "030 12345678"),
    ("phone", "415-555-2671", "415-555-2671"),
    ("card", "visa 4111 1111 1111 1111", "4111 1111 1111 1111"),
    ("card", "378282246310005", "378282246310005"),
    ("iban", "IBAN DE89 3704 0044 0532 0130 00 THANKS", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432", "GB82WEST12345698765432"),
    ("ip", "from 8.8.8.8:53", "8.8.8.8"),
    ("ip", "2001:4860:4860::8888", "2001:4860:4860::8888"),
    ("ssn", "ssn 536-22-8726", "536-22-8726"),
    ("secret", "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("secret", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    ("secret", 'password = "hunter2222"', "hunter2222"),
    ("secret", "postgres://me:pa55word@db.example.com/x", "postgres://me:pa55word@db.example.com"),
    ("secret", "api_key: 9f8a7B6c5D4e3F2a", "9f8a7B6c5D4e3F2a"),
]
INNOCENT = [
    "On 2024-11-23 at 12:30:45 we sold 1,234,567.89 units; call me back on 2024-11-24.",
    "ISBN 978-3-16-148410-0, order 1234567890123456, part 4000-0000-0000-0000-0",
    "Version 1.2.3.4 runs on 192.168.1.1 and 127.0.0.1, ::1, 10.0.0.1; v8.8.8.8",
    "The password: it must have eight characters. password = your_password1 token: ${TOKEN1234}",
    "Follow @user and look at a@b or mail@localhost; 3 @ 4.50",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx AKIA0000000000000000",
    "DE89 3704 0044 0532 0130 01 and XX00 1234 5678 9012 34",
    "pi is 3.14159265358979323846, 2^64 is 18446744073709551616, ratio 16:9:4",
    "SHA-1 da39a3ee5e6b4b0d3255bfef95601890afd80709 of the file",
]


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_what_is_private_is_found(kind: str, text: str, value: str) -> None:
    assert [(hit.kind, text[hit.start : hit.stop]) for hit in scan(text)] == [(kind, value)]


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_not_is_left_alone(text: str) -> None:
    assert scan(text) == []


def test_a_private_key_is_one_secret() -> None:
    body = "\n".join("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" for _ in range(6))
    text = f"key:\n-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nend"
    (hit,) = scan(text)
    assert (hit.kind, text[hit.stop :]) == ("secret", "\nend")


def test_overlaps_count_once() -> None:
    assert [hit.kind for hit in scan("https://bob:s3cretpw@example.com")] == ["secret"]


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_masks_hide_the_value(kind: str, text: str, value: str) -> None:
    shown = masked(text, scan(text))
    assert value not in shown
    assert "•••" in shown


def test_the_same_thing_gets_the_same_placeholder() -> None:
    redactor = Redactor()
    assert redactor.text("a@x.org, B@x.org, A@X.org") == "<EMAIL_1>, <EMAIL_2>, <EMAIL_1>"
    row = {"messages": [{"role": "user", "content": "b@x.org or +1 415-555-2671"}], "n": 3, "card": "4111111111111111"}
    assert redactor.values(row) == {
        "messages": [{"role": "user", "content": "<EMAIL_2> or <PHONE_1>"}],
        "n": 3,
        "card": "<CARD_1>",
    }
    assert redactor.text("4111-1111-1111-1111, (415) 555-2671") == "<CARD_1>, <PHONE_1>"
    assert redactor.replaced == {"email": 4, "phone": 2, "card": 2}


def test_redaction_leaves_nothing_behind_and_changes_nothing_twice() -> None:
    text = " / ".join(text for _, text, _ in FOUND)
    once = Redactor().text(text)
    assert scan(once) == []
    assert Redactor().text(once) == once


@pytest.mark.timeout(20)
def test_hostile_text_takes_no_time() -> None:
    for piece in (
        "a" * 200,
        "1 " * 200,
        "a@" * 200,
        "::" * 200,
        "key=" * 100,
        "-----BEGIN PRIVATE KEY-----",
        "1.2." * 100,
    ):
        scan(piece * (200_000 // len(piece)))
