"""Rows that say the same as others, exactly or almost, with few bytes kept of each.

Exact repeats are found by 64-bit hashes. Almost equal rows are found by MinHash: signatures of the rows' runs of three
words, of which the share that agrees estimates the share of runs that two rows have in common.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

NEAR = 0.8
"""Share of word runs in common from which on two rows count as almost equal."""
MOST_SKETCHES = 1_000_000
"""Rows of which a signature is kept: 192 bytes each."""

BANDS = 16
"""Parts of a signature, of 8 values each: rows with 0.8 in common share one with probability 0.94, with 0.9 always."""

_PERMUTATIONS = 128
_RUN = 3
_BLOCK = 65_536
_COMMON_SHARE = 0.3
_FEW = 5
_PAIRS_AT_ONCE = 1 << 18

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


class Hashes:
    """Hashes of many contents in eight bytes each."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, content: bytes) -> None:
        self._bytes += hashlib.blake2b(content, digest_size=8).digest()

    def values(self) -> Words:
        return np.frombuffer(bytes(self._bytes), dtype=np.uint64)


def repeats(values: Words) -> Indices:
    """Positions whose value stands at an earlier position too, in order."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return np.sort(order[1:][ordered[1:] == ordered[:-1]])


def contradicting(questions: Words, answers: Words) -> Indices:
    """Positions whose question stands with another answer elsewhere, in order."""
    if not len(questions):
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(questions, kind="stable")
    asked, said = questions[order], answers[order]
    starts = np.concatenate([[0], np.flatnonzero(asked[1:] != asked[:-1]) + 1])
    differ = np.minimum.reduceat(said, starts) != np.maximum.reduceat(said, starts)
    return np.sort(order[np.repeat(differ, np.diff(starts, append=len(order)))])


class Sketches:
    """Signatures of many texts, and which of them are almost equal."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[np.uint8]] = []
        self._keys: list[npt.NDArray[np.uint32]] = []
        self._common: Words | None = None
        self._groups: Indices | None = None
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether no more texts are looked at."""
        return self.count >= MOST_SKETCHES

    def add(self, texts: Sequence[str]) -> None:
        """Take in some texts; each gets the next position. What most of the first ones have in common is left out."""
        runs, offsets = _runs(texts)
        if self._common is None:
            self._common = _common(runs, offsets)
        if len(self._common):
            runs, offsets = _without(runs, offsets, self._common)
        signatures = _signatures(runs, offsets)
        keys = _mix(signatures.reshape(len(texts), BANDS, -1).astype(np.uint64)).astype(np.uint32)
        empty = offsets[1:] == offsets[:-1]
        # A text without a run of words resembles no other: its keys must not meet.
        places = np.arange(self.count, self.count + len(texts), dtype=np.uint32)
        keys[empty] = (places[:, None] * np.uint32(2654435761))[empty]
        self._append(signatures.astype(np.uint8), keys)

    def _append(self, signatures: npt.NDArray[np.uint8], keys: npt.NDArray[np.uint32]) -> None:
        done = 0
        while done < len(signatures):
            used = self.count % _BLOCK
            if used == 0:
                self._blocks.append(np.empty((_BLOCK, _PERMUTATIONS), dtype=np.uint8))
                self._keys.append(np.empty((_BLOCK, BANDS), dtype=np.uint32))
            taken = min(_BLOCK - used, len(signatures) - done)
            self._blocks[-1][used : used + taken] = signatures[done : done + taken]
            self._keys[-1][used : used + taken] = keys[done : done + taken]
            self.count += taken
            done += taken

    def groups(self, report: Callable[[int], None] = lambda _band: None) -> Indices:
        """For each text the position of the first text of its group; texts that are almost equal are a group.

        Args:
            report: Called before each of the :data:`BANDS` with its place; may raise to stop.
        """
        if self._groups is None or len(self._groups) != self.count:
            self._groups = self._grouped(report)
        return self._groups

    def _grouped(self, report: Callable[[int], None]) -> Indices:
        labels = np.arange(self.count, dtype=np.int64)
        for band in range(BANDS):
            report(band)
            keys = np.concatenate([block[:, band] for block in self._keys])[: self.count] if self._keys else labels
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            met = np.flatnonzero(ordered[1:] == ordered[:-1])
            if not len(met):
                continue
            firsts = np.searchsorted(ordered, ordered[met], side="left")
            left = np.concatenate([order[met], order[firsts]])
            right = np.concatenate([order[met + 1], order[met + 1]])
            apart = labels[left] != labels[right]
            labels = _joined(labels, *self._alike(left[apart], right[apart]))
        return labels

    def _alike(self, left: Indices, right: Indices) -> tuple[Indices, Indices]:
        """The pairs whose signatures agree far enough."""
        agreed = np.zeros(len(left), dtype=bool)
        for start in range(0, len(left), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            same = (self._rows(left[part]) == self._rows(right[part])).mean(axis=1)
            # Eight bits of two different values agree once in 256.
            agreed[part] = (same - 1 / 256) / (1 - 1 / 256) >= NEAR
        return left[agreed], right[agreed]

    def _rows(self, positions: Indices) -> npt.NDArray[np.uint8]:
        found = np.empty((len(positions), _PERMUTATIONS), dtype=np.uint8)
        blocks = positions // _BLOCK
        for block in np.unique(blocks):
            here = blocks == block
            found[here] = self._blocks[block][positions[here] % _BLOCK]
        return found


def _joined(labels: Indices, left: Indices, right: Indices) -> Indices:
    """Labels after the two texts of each pair have come into one group."""
    while len(left):
        least = np.minimum(labels[left], labels[right])
        before = labels.copy()
        np.minimum.at(labels, labels[left], least)
        np.minimum.at(labels, labels[right], least)
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]
        if np.array_equal(before, labels):
            break
        apart = labels[left] != labels[right]
        left, right = left[apart], right[apart]
    return labels


def _runs(texts: Sequence[str]) -> tuple[Words, Indices]:
    """The texts' runs of three words as numbers, all in one, and where each text's begin; the last end comes last.

    Where words are not told apart by spaces, characters take their place.
    """
    units: array[int] = array("I")
    lengths = []
    for text in texts:
        before = len(units)
        content = text.lower()
        words = content.encode("utf-8", "replace").split()
        if len(text) > 20 * len(words):
            units.frombytes(content.encode("utf-32-le", "replace"))
        else:
            units.extend(map(crc32, words))
        lengths.append(len(units) - before)
    ends = np.cumsum([0, *lengths], dtype=np.int64)
    if len(units) < _RUN:
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts) + 1, dtype=np.int64)
    values = np.frombuffer(units, dtype=np.uint32).astype(np.uint64)
    runs = _mix(np.lib.stride_tricks.sliding_window_view(values, _RUN))
    whole = np.repeat(ends[1:], lengths)[: len(runs)] - np.arange(len(runs)) >= _RUN
    return runs[whole], np.cumsum([0, *(max(0, length - _RUN + 1) for length in lengths)], dtype=np.int64)


def _mix(values: npt.NDArray[np.uint64]) -> Words:
    """One number for each row of the last axis (multiply and shift, as in splitmix64)."""
    mixed = np.zeros(values.shape[:-1], dtype=np.uint64)
    for position in range(values.shape[-1]):
        mixed = (mixed ^ values[..., position]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _common(runs: Words, offsets: Indices) -> Words:
    """Runs that a large share of the texts have: a fixed instruction says nothing about who repeats whom."""
    texts = len(offsets) - 1
    if texts < 2 * _FEW:
        return runs[:0]
    each = [np.unique(runs[start:stop]) for start, stop in itertools.pairwise(offsets)]
    values, counts = np.unique(np.concatenate(each), return_counts=True)
    return values[counts > max(_FEW, _COMMON_SHARE * texts)]


def _without(runs: Words, offsets: Indices, common: Words) -> tuple[Words, Indices]:
    """The texts without common runs, except those that consist of hardly anything else."""
    places = np.searchsorted(common, runs)
    places[places == len(common)] = 0
    own = common[places] != runs
    rest = np.add.reduceat(np.append(own, False), offsets[:-1], dtype=np.int64)
    rest[offsets[1:] == offsets[:-1]] = 0
    own |= np.repeat(rest < _FEW, np.diff(offsets))
    kept = np.concatenate([[0], np.cumsum(own)])
    return runs[own], kept[offsets]


def _signatures(runs: Words, offsets: Indices) -> npt.NDArray[np.uint32]:
    # Imported here: the wizard reads this package's values without its libraries.
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(runs, offsets.astype(np.uint64), _PERMUTATIONS, 1)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(offsets) - 1, _PERMUTATIONS)
