"""Markdown of foreign text: escaped or in code, so that nothing in it counts as markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qlora_tui.text import one_line, printable

_MARKUP = re.compile(r"([\\`*_\[\]<>~$#])")


def table(header: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    """A Markdown table of cells that are escaped already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(value: str) -> str:
    """Foreign text as one line of plain Markdown text."""
    escaped = _MARKUP.sub(r"\\\1", one_line(value).replace("&", "&amp;"))
    return escaped.replace("|", "&#124;")


def code(value: str, *, in_table: bool = True) -> str:
    """Foreign text as one line in code type."""
    line = one_line(value)
    # Inside a table a pipe ends the cell even in code.
    if not line or (in_table and "|" in line):
        return text(line)
    fence = "`" * (_longest_run(line) + 1)
    gap = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def fenced(text: str, language: str) -> str:
    """A code block that nothing inside can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return "\n".join((fence + language, printable(text).rstrip("\n"), fence))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
