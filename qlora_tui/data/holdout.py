"""A held-out share of the rows: seeded, and never with the same content on both sides."""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from qlora_tui.data.prepare import PreparedRow


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows to train on and rows to measure with, each in their original order."""

    train: tuple[PreparedRow, ...]
    evaluation: tuple[PreparedRow, ...]


def hold_out(rows: Sequence[PreparedRow], fraction: float, seed: int) -> HeldOut:
    """Splits off about ``fraction`` of the rows for evaluation.

    Rows of equal content go to the same side together, and so do the pieces of one long row. Which rows are chosen
    depends on their content and the seed only, so adding rows to a file moves few others across. With two different
    rows or more and a fraction above 0 each side gets at least one; rows that are all alike are all trained on.

    Args:
        fraction: Share of rows, 0 to below 1.
        seed: Any whole number.
    """
    groups = _groups(rows)
    if fraction <= 0 or len(groups) < 2:
        return HeldOut(tuple(rows), ())
    wanted = max(1, round(fraction * len(rows)))
    salt = str(seed).encode()
    order = sorted(groups, key=lambda key: hashlib.sha256(salt + key).digest())
    chosen: set[int] = set()
    groups_left = len(order)
    for key in order:
        fits = len(chosen) + len(groups[key]) <= wanted
        if fits and groups_left > 1:
            chosen.update(groups[key])
            groups_left -= 1
        if len(chosen) >= wanted:
            break
    if not chosen:  # every group is larger than the share: the smallest comes nearest
        chosen.update(groups[min(order, key=lambda key: len(groups[key]))])
    return HeldOut(
        tuple(row for index, row in enumerate(rows) if index not in chosen),
        tuple(row for index, row in enumerate(rows) if index in chosen),
    )


def _groups(rows: Sequence[PreparedRow]) -> dict[bytes, list[int]]:
    """Content hash -> positions of the rows (and pieces of rows) with that content."""
    pieces: defaultdict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        pieces[row.number].append(index)
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for indices in pieces.values():
        digest = hashlib.sha256()
        for index in indices:
            digest.update(array("q", rows[index].input_ids).tobytes())
        groups[digest.digest()].extend(indices)
    return groups
