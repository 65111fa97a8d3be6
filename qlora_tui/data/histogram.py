"""Row lengths as a histogram and quantiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qlora_tui.data.inspection import QUANTILES, Histogram

BINS = 12
_STEPS = (1, 2, 4, 5, 8, 10)


def quantiles(lengths: Sequence[int]) -> dict[int, int]:
    """Row length by percentile."""
    ordered = np.sort(np.asarray(lengths, dtype=np.int64))
    last = len(ordered) - 1
    return {percent: int(ordered[round(percent / 100 * last)]) for percent in QUANTILES}


def histogram(lengths: Sequence[int], cut: int) -> Histogram:
    """The lengths in bins of a round width, chosen so that the 99 % of shorter rows fill about a dozen of them.

    What is longer comes into one more bin, which is left out if it is empty, as are empty bins before the shortest row.
    """
    values = np.asarray(lengths, dtype=np.int64)
    top = max(1, int(np.quantile(values, 0.99)))
    width = _round_up(top / BINS)
    bins = min(BINS, -(-(top + 1) // width))
    edges = tuple(width * number for number in range(bins + 1))
    counts = np.bincount(np.minimum(values // width, bins), minlength=bins + 1)
    first, last = int(np.flatnonzero(counts)[0]), bins + int(counts[-1] > 0)
    return Histogram(edges[first:], tuple(int(count) for count in counts[first:last]), cut)


def _round_up(width: float) -> int:
    scale = 1
    while width > 10 * scale:
        scale *= 10
    return max(1, next(step * scale for step in _STEPS if step * scale >= width))
