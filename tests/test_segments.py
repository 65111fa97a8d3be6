"""The model of torch's caching allocator: segments, splits, joins, and what a limit does."""

from __future__ import annotations

import pytest

from benchmarks.segments import Allocator, OutOfMemory, replay
from qlora_tui.memory.recipe import MIB


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        # What would be left over is too small to be a block of its own, and counts.
        (11 * MIB + 1, 12 * MIB, 12 * MIB),
    ],
)
def test_a_block_and_its_segment(size: int, allocated: int, reserved: int) -> None:
    allocator = Allocator()
    allocator.malloc(size)
    assert allocator.reserved == reserved
    assert allocator.allocated == allocated


def test_the_smallest_block_that_fits_is_taken_and_split() -> None:
    allocator = Allocator()
    large, small = allocator.malloc(100 * MIB), allocator.malloc(40 * MIB)
    allocator.free(large)
    allocator.free(small)
    allocator.malloc(30 * MIB)
    allocator.malloc(100 * MIB)
    assert allocator.reserved == 140 * MIB
    allocator.malloc(40 * MIB)
    assert allocator.reserved == 180 * MIB


def test_free_neighbours_become_one() -> None:
    allocator = Allocator()
    whole = allocator.malloc(90 * MIB)
    allocator.free(whole)
    thirds = [allocator.malloc(30 * MIB) for _ in range(3)]
    for index in (0, 2, 1):
        allocator.free(thirds[index])
    allocator.malloc(90 * MIB)
    assert allocator.reserved == 90 * MIB


def test_a_segment_in_use_cannot_be_given_back() -> None:
    events = [(1, 60 * MIB), (-1, 0), (2, 20 * MIB), (3, 60 * MIB)]
    assert replay(events).peak_reserved == 120 * MIB
    assert replay(events, 120 * MIB).peak_allocated == 80 * MIB
    with pytest.raises(OutOfMemory):
        replay(events, 100 * MIB)


def test_a_free_segment_is_given_back_when_the_limit_is_reached() -> None:
    events = [(1, 60 * MIB), (-1, 0), (2, 80 * MIB)]
    assert replay(events).peak_reserved == 140 * MIB
    assert replay(events, 80 * MIB).reserved == 80 * MIB
