"""The licences of data and model, as their cards name them, and what follows when they meet in one adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from qlora_tui.data.inspection import Finding, Licences
from qlora_tui.text import one_line

_MOST_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_UNCLEAR = frozenset({"", "unknown", "other", "none"})


def licence_of_card(path: Path) -> str | None:
    """The licence in the front matter of a card (``README.md``); None if there is no card or it names none."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    match = _FRONT_MATTER.match(text)
    if match is None:
        return None
    try:
        values = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    named = values.get("license") or values.get("licence")
    names = named if isinstance(named, list) else [named]
    texts = [one_line(name, 60) for name in names if isinstance(name, str) and name.strip()]
    if texts == ["other"] and isinstance(values.get("license_name"), str):
        texts = [one_line(values["license_name"], 60)]
    return ", ".join(texts) or None


def concern(licences: Licences) -> Iterator[Finding]:
    """What a person who passes the adapter on should know; a name alone does not tell what a licence allows."""
    data, model = licences.data, licences.model
    pair = f"Data: {data or 'no licence named'}; model: {model or 'no licence named'}."
    limits = [
        *(f"the {side} may not be used commercially" for side, name in _sides(licences) if _has(name, "nc")),
        *(f"the {side} may not be passed on changed" for side, name in _sides(licences) if _has(name, "nd")),
        *(f"what is made from the {side} must keep its licence" for side, name in _sides(licences) if _shares(name)),
    ]
    if limits:
        told = "; ".join(limits)
        yield Finding(
            "licence", 0, "warning", f"{pair} By its name, {told}.", "Read both before you share the adapter."
        )
    elif not model or model.lower() in _UNCLEAR or (data or "named").lower() in _UNCLEAR:
        advice = "Find out what you may do with them before you share the adapter."
        yield Finding("licence", 0, "notice", pair, advice)


def _sides(licences: Licences) -> Iterator[tuple[str, str]]:
    for side, name in (("data", licences.data), ("model", licences.model)):
        if name:
            yield side, name.lower()


def _has(name: str, mark: str) -> bool:
    return name.startswith("cc-by") and mark in name.split("-")


def _shares(name: str) -> bool:
    return _has(name, "sa") or name.startswith(("gpl", "agpl", "lgpl"))
