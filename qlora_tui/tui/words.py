"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

GIB: Final = 1 << 30
_MIB: Final = 1 << 20


def gib(size: int | None, *, unit: bool = True) -> str:
    """Bytes in GiB, or MiB below a tenth of one; ``–`` where they are unknown."""
    if size is None:
        return "–"
    if 0 < size < GIB // 10 and unit:
        return f"{size / _MIB:.0f} MiB"
    return f"{size / GIB:.1f}" + (" GiB" if unit else "")


def count(number: int) -> str:
    """A count in few characters: 135M, 8.0B, 4,022."""
    if number < 10_000:
        return f"{number:,}"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.0f}{letter}" if value >= 100 else f"{value:.1f}{letter}"
    return str(number)


def about(seconds: float) -> str:
    """A duration in the words of an estimate: 40 s, 12 min, 3 h 20 min, 2 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {rest:02} min"
    return f"{hours / 24:.1f} days"


def plural(number: int, word: str) -> str:
    """A number with its word: 1 row, 2 rows."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def value_text(value: object) -> str:
    """A setting's value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.001 and _short(value) else f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _short(value: float) -> bool:
    return float(f"{value:.0e}") == value
