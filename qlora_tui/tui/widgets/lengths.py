"""Rows by length in tokens, with a line where they are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.content import Content

if TYPE_CHECKING:
    from qlora_tui.data.inspection import Histogram


def length_lines(histogram: Histogram, width: int) -> Iterator[Content]:
    """One line a bin; blocks as long as ``width`` allows."""
    most, edges = max(histogram.counts, default=0) or 1, histogram.edges
    room = max(8, min(60, width - 28))
    told = False
    for number, count in enumerate(histogram.counts):
        low = edges[number]
        high = edges[number + 1] - 1 if number + 1 < len(edges) else None
        if not told and histogram.cut < low:
            yield _cut_line(histogram.cut)
            told = True
        label = f"{low:,}–{high:,}" if high is not None else f"{low:,} and more"
        cells = max(round(room * count / most), int(count > 0))
        whole = histogram.cut >= (high if high is not None else low)
        blocks = Content.styled("█" * cells if whole else "▒" * cells, "$primary" if whole else "$warning")
        yield Content.styled(f"{label:>16} ", "dim").append(blocks).append(Content(f" {count:,}" if count else ""))
    if not told:
        yield _cut_line(histogram.cut)


def _cut_line(cut: int) -> Content:
    return Content.styled(f"{'':>16} ── cut at {cut:,} tokens ──", "$warning")
