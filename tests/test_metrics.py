"""Scores of answers and the paired comparison of two measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qlora_tui.engine import metrics


def test_exact_match_ignores_only_form_and_white_space() -> None:
    predictions = ["  spam\n", "re\u0301sume\u0301  one", "Spam", "spam.", ""]
    references = ["spam", "r\u00e9sum\u00e9 one", "spam", "spam", " "]
    assert metrics.exact_match(predictions, references) == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_rouge_is_the_longest_common_subsequence() -> None:
    # Common: "the cat on the mat", 5 of 6 words on both sides.
    same, partly, nothing, empty = metrics.rouge(
        ["The cat sat.", "the cat sat on the mat", "dog", ""],
        ["the cat sat", "the cat lay on the mat", "cat", "cat"],
    )
    assert (same, nothing, empty) == (1.0, 0.0, 0.0)
    assert partly == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [("Кошка спит", "кошка спит", 1.0), ("今天天气", "今天很好", 0.5), ("naïve café", "naive cafe", 0.0)],
)
def test_rouge_sees_words_of_every_script(prediction: str, reference: str, score: float) -> None:
    assert metrics.rouge([prediction], [reference]) == [pytest.approx(score)]


def test_rouge_of_plain_english_equals_the_package_default() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    prediction, reference = "It's 3 o'clock: the well-known, UPPER_case answer!", "it is 3 the well known upper answer"
    own = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert metrics.rouge([prediction], [reference]) == [pytest.approx(own)]


def test_bleu_counts_only_the_orders_a_short_answer_has() -> None:
    sentence = "the cat sat on the mat"
    scores = metrics.bleu(["spam", "ham", "", sentence], ["spam", "spam", "spam", sentence])
    assert scores == [pytest.approx(100), 0.0, 0.0, pytest.approx(100)]


def test_corpus_bleu_pools_the_counts() -> None:
    predictions, references = ["the cat sat on the mat", "a b c d"], ["the cat sat on the mat", "a b c e"]
    assert metrics.corpus_bleu(references, references) == pytest.approx(100)
    # Matches: 9/10 words, 7/8 pairs, 5/6 triples, 3/4 fours; equal lengths, so no penalty.
    expected = 100 * (9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25
    assert metrics.corpus_bleu(predictions, references) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no BLEU"):
        metrics.corpus_bleu([], [])


@pytest.mark.parametrize("score", [metrics.exact_match, metrics.rouge, metrics.bleu])
def test_scores_demand_pairs(score: object) -> None:
    assert callable(score)
    with pytest.raises(ValueError):  # noqa: PT011 - zip's own message
        score(["a"], ["a", "b"])


def test_comparison_holds_the_means_and_repeats_by_seed() -> None:
    before, after = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    first = metrics.compare(before, after, seed=1)
    assert [first.before, first.after, first.difference] == pytest.approx([1 / 3, 5 / 6, 0.5])
    assert first.low < first.difference < first.high
    assert (first.rows, first.confidence) == (6, 0.95)
    assert metrics.compare(before, after, seed=1) == first
    rng = np.random.default_rng(0)
    rows = rng.normal(size=50)
    narrow = metrics.compare(rows.tolist(), (rows + rng.normal(0.5, 0.01, 50)).tolist(), seed=1)
    assert narrow.high - narrow.low < 0.02, "pairing takes the spread between rows out"
    assert metrics.compare(before, after, seed=2).high == pytest.approx(first.high, abs=0.2)


def test_more_confidence_makes_a_wider_interval() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.normal(size=40).tolist(), rng.normal(size=40).tolist()
    narrow, wide = metrics.compare(before, after, 0, confidence=0.5), metrics.compare(before, after, 0, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("before", "after"),
    [([0.3], [0.7]), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), ([1.0, 0.0], [1.0, 0.0]), ([0.0] * 9, [0.0] * 9)],
)
def test_nothing_to_resample_gives_the_difference_itself(before: list[float], after: list[float]) -> None:
    found = metrics.compare(before, after, seed=0)
    assert found.low == found.high == found.difference
    assert found.rows == len(before)


def test_a_single_changed_row_still_gives_a_finite_interval() -> None:
    found = metrics.compare([0.0] * 30, [1.0] + [0.0] * 29, seed=0)
    assert 0 <= found.low <= found.difference <= found.high < 0.3


@pytest.mark.parametrize(
    ("before", "after"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan, 1.0], [1.0, 1.0]), ([1.0, 1.0], [math.inf, 1.0])]
)
def test_what_cannot_be_compared_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match=r"comparison|compared"):
        metrics.compare(before, after, seed=0)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    trials, held = 150, 0
    for trial in range(trials):
        before = rng.exponential(size=60)
        after = before + rng.normal(0.2, 0.5, size=60)
        found = metrics.compare(before.tolist(), after.tolist(), seed=trial, confidence=0.9)
        held += found.low <= 0.2 <= found.high
    # Three standard errors of a binomial share of 0.9, and a little for the bootstrap's own small-sample bias.
    assert 0.81 <= held / trials <= 0.98


def test_loss_is_weighted_by_tokens() -> None:
    before, after = [(10.0, 10), (90.0, 30), (5.0, 0)], [(5.0, 10), (60.0, 30), (0.0, 0)]
    found = metrics.compare_loss(before, after, seed=0)
    assert [found.before, found.after, found.difference] == pytest.approx([2.5, 65 / 40, 65 / 40 - 2.5])
    assert found.rows == 2, "a row without trained tokens says nothing"


def test_loss_interval_covers_the_true_difference_and_is_paired() -> None:
    rng = np.random.default_rng(5)
    tokens = rng.integers(1, 200, size=120)
    hardness = rng.gamma(2.0, size=120)
    before = [(float(h * n), int(n)) for h, n in zip(hardness, tokens, strict=True)]
    easier = hardness - 0.1 + rng.normal(0, 0.05, size=120)
    after = [(float(h * n), int(n)) for h, n in zip(easier, tokens, strict=True)]
    found = metrics.compare_loss(before, after, seed=0)
    assert found.low < -0.1 < found.high
    assert found.high - found.low < 0.05
    assert metrics.compare_loss(before, after, seed=0) == found


def test_equal_losses_give_no_difference() -> None:
    rows = [(1.0, 3), (7.0, 2), (2.5, 9)]
    found = metrics.compare_loss(rows, rows, seed=0)
    assert found.low == found.high == found.difference == 0.0


@pytest.mark.parametrize("rows", [[], [(1.0, 0)], [(math.nan, 3), (1.0, 2)]])
def test_losses_that_say_nothing_are_refused(rows: list[tuple[float, int]]) -> None:
    with pytest.raises(ValueError, match=r"comparison|compared"):
        metrics.compare_loss(rows, rows, seed=0)
