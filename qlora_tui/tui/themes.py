"""Colours: two themes of our own with one accent; the terminal's own come with Textual."""

from __future__ import annotations

from typing import Final

from textual.theme import Theme


def _variables(accent: str) -> dict[str, str]:
    return {"footer-key-foreground": accent, "block-cursor-text-style": "bold"}


THEMES: Final = (
    Theme(
        name="qlora-dark",
        primary="#7aa2c9",
        secondary="#6f8296",
        accent="#7aa2c9",
        warning="#d9a557",
        error="#d97a72",
        success="#86b887",
        foreground="#d4d7da",
        background="#14171a",
        surface="#1a1e22",
        panel="#23282d",
        dark=True,
        variables=_variables("#7aa2c9"),
    ),
    Theme(
        name="qlora-light",
        primary="#2f5f8f",
        secondary="#5b6b7a",
        accent="#2f5f8f",
        warning="#8a5a00",
        error="#a8322a",
        success="#2f6b35",
        foreground="#22272b",
        background="#f7f6f3",
        surface="#efede8",
        panel="#e3e0d9",
        dark=False,
        variables=_variables("#2f5f8f"),
    ),
)
