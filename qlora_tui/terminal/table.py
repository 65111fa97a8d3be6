"""Tables of plain text."""

from __future__ import annotations


def table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Rows in aligned columns; all but the first two columns to the right."""
    cells = [headings, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = (
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)
