"""The held-out share: right size, repeatable, and no content on both sides."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlora_tui.data.holdout import hold_out
from qlora_tui.data.prepare import PreparedRow


def rows(*contents: int) -> list[PreparedRow]:
    return [PreparedRow(number, [content], [True], ()) for number, content in enumerate(contents, start=1)]


def numbers(chosen: tuple[PreparedRow, ...]) -> list[int]:
    return [row.number for row in chosen]


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(100, 0.05, 5), (10, 0.05, 1), (2, 0.001, 1), (2, 0.99, 1)]
)
def test_the_share_has_the_right_size(count: int, fraction: float, expected: int) -> None:
    result = hold_out(rows(*range(count)), fraction, seed=1)
    assert len(result.evaluation) == expected
    assert len(result.train) == count - expected


@pytest.mark.parametrize(("contents", "fraction"), [((), 0.5), ((1,), 0.5), ((1, 2, 3), 0.0), ((7, 7, 7), 0.5)])
def test_nothing_is_held_out_where_nothing_can_be(contents: tuple[int, ...], fraction: float) -> None:
    result = hold_out(rows(*contents), fraction, seed=1)
    assert (len(result.train), result.evaluation) == (len(contents), ())


def test_the_same_seed_repeats_and_another_differs() -> None:
    data = rows(*range(200))
    first, again, other = (hold_out(data, 0.1, seed) for seed in (1, 1, 2))
    assert first == again
    assert numbers(first.evaluation) != numbers(other.evaluation)


def test_order_is_kept_and_the_choice_follows_content() -> None:
    data = rows(*range(100))
    result = hold_out(data, 0.2, seed=3)
    assert numbers(result.train) == sorted(numbers(result.train))
    shuffled = random.Random(0).sample(data, len(data))
    assert set(numbers(hold_out(shuffled, 0.2, seed=3).evaluation)) == set(numbers(result.evaluation))


def test_pieces_of_a_row_stay_together() -> None:
    data = [PreparedRow(number, [number, piece], [True, True], ()) for number in range(10) for piece in range(3)]
    result = hold_out(data, 0.3, seed=5)
    assert not set(numbers(result.train)) & set(numbers(result.evaluation))
    assert len(result.evaluation) == 9


@given(st.lists(st.integers(0, 6), max_size=40), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_no_content_is_on_both_sides(contents: list[int], fraction: float, seed: int) -> None:
    data = rows(*contents)
    result = hold_out(data, fraction, seed)
    train, evaluation = ({row.input_ids[0] for row in side} for side in (result.train, result.evaluation))
    assert not train & evaluation
    assert sorted(numbers(result.train) + numbers(result.evaluation)) == numbers(tuple(data))
    if len(set(contents)) > 1:
        assert train
        assert evaluation
