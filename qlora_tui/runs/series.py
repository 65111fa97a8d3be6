"""Curves of a run that may be of any length: kept in bounded memory, drawn in a bounded number of points.

A curve that grows beyond its bound is thinned to half: of every four points the lowest and the highest stay, in their
order, so that a spike never disappears. Numbers that are not finite are kept apart, as places where something broke.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

MAX_POINTS = 20_000
MAX_MARKS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """Points to draw, and the places where the value was not a number."""

    x: Sequence[float] = ()
    y: Sequence[float] = ()
    broken: Sequence[float] = ()


@dataclass(slots=True)
class Series:
    """One growing curve; places never go back, except when a run repeats steps after a crash."""

    x: array[float] = field(default_factory=lambda: array("d"))
    y: array[float] = field(default_factory=lambda: array("d"))
    broken: list[float] = field(default_factory=list)
    _limit: int = MAX_POINTS

    def add(self, x: float, y: float | None) -> None:
        """Append a point. A place that was there before takes the new word: what came after it is forgotten."""
        places = self.x
        if places and x <= places[-1]:
            self._rewind(x)
        if y is None or not isfinite(y):
            if len(self.broken) < MAX_MARKS:
                self.broken.append(x)
            return
        places.append(x)
        self.y.append(y)
        if len(places) > self._limit:
            self.x, self.y = thinned(self.x, self.y, self._limit // 2)

    def _rewind(self, x: float) -> None:
        keep = len(self.x)
        while keep and self.x[keep - 1] >= x:
            keep -= 1
        del self.x[keep:], self.y[keep:]
        self.broken = [each for each in self.broken if each < x]

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.y[-1] if self.y else None

    def curve(self, points: int, start: float = -math.inf) -> Curve:
        """At most about ``points`` points from ``start`` on."""
        first = bisect_left(self.x, start)
        x, y = self.x[first:], self.y[first:]
        if len(x) > points:
            x, y = thinned(x, y, points)
        return Curve(x, y, tuple(self.broken))


def thinned(x: array[float], y: array[float], points: int) -> tuple[array[float], array[float]]:
    """At most ``points`` points: the lowest and the highest of each equal stretch, and the last one."""
    stretch = max(2, math.ceil(2 * len(x) / max(2, points)))
    kept_x, kept_y = array("d"), array("d")
    for begin in range(0, len(x), stretch):
        part = y[begin : begin + stretch]
        low, high = begin + part.index(min(part)), begin + part.index(max(part))
        for place in sorted({low, high}):
            kept_x.append(x[place])
            kept_y.append(y[place])
    if kept_x and kept_x[-1] != x[-1]:
        kept_x.append(x[-1])
        kept_y.append(y[-1])
    return kept_x, kept_y
