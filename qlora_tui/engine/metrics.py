"""Scores of single answers, and whether a difference between before and after is more than luck.

Everything here is a pure function over values per row, so that any two measurements of the same rows can be compared
with a paired interval. The interval tells what another draw of rows would give; it knows nothing of another seed.
"""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu as sacrebleu_corpus_bleu
from sacrebleu import sentence_bleu
from scipy.stats import DegenerateDataWarning, bootstrap

from qlora_tui.runs.events import Comparison

RESAMPLES = 9999
# Resamples are made in batches of about this many values, so that many rows cost time and not memory.
_BATCH_VALUES = 2_000_000
# Scripts written without spaces: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """1.0 for each answer that is its reference, else 0.0.

    Both are compared in Unicode form NFC, without white space at their ends and with every run of white space as one
    space. Case and punctuation count.

    Raises:
        ValueError: if the two have different lengths.
    """
    pairs = zip(predictions, references, strict=True)
    return [float(_squeezed(prediction) == _squeezed(reference)) for prediction, reference in pairs]


def _squeezed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


class _Words:
    """Words for ROUGE in any script; the package's own tokenizer drops every letter beyond a to z."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words of letters and digits; for plain ASCII the same as the package's own, unstemmed."""
        return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def rouge(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """ROUGE-L F1 of each answer, 0 to 1: the longest common subsequence of words, without stemming.

    Raises:
        ValueError: if the two have different lengths.
    """
    scorer = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Words())
    pairs = zip(predictions, references, strict=True)
    return [float(scorer.score(reference, prediction)["rougeL"].fmeasure) for prediction, reference in pairs]


def bleu(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """BLEU of each answer, 0 to 100, with n-gram orders that a short answer cannot have left out.

    Tokenised as usual for European languages (sacrebleu's ``13a``).

    Raises:
        ValueError: if the two have different lengths.
    """
    pairs = zip(predictions, references, strict=True)
    return [float(sentence_bleu(prediction, [reference]).score) for prediction, reference in pairs]


def corpus_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """BLEU of all answers together, 0 to 100: the figure that papers report; not the mean of :func:`bleu`.

    Raises:
        ValueError: if there are no answers, or the two have different lengths.
    """
    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} answers and {len(references)} references make no BLEU")
    return float(sacrebleu_corpus_bleu(list(predictions), [list(references)]).score)


def compare(before: Sequence[float], after: Sequence[float], seed: int, confidence: float = 0.95) -> Comparison:
    """Mean of a metric before and after on the same rows, with a bootstrap interval of the difference.

    Rows are resampled as pairs, which takes out what makes a row easy or hard for both. With fewer than two rows, or
    one difference for all of them, nothing can be resampled and the interval is the difference itself.

    Args:
        before: One value per row.
        after: One value per row, in the same order.
        seed: The same seed gives the same interval.
        confidence: Share of intervals that hold the true difference, between 0 and 1.

    Raises:
        ValueError: if there are no rows, different numbers of them, or values that are not finite.
    """
    first, second = _finite(before), _finite(after)
    _check_pairs(first, second)

    def mean(differences: np.ndarray, axis: int = -1) -> Any:
        return differences.mean(axis=axis)

    interval = _interval(mean, (second - first,), seed, confidence)
    return _comparison(float(first.mean()), float(second.mean()), interval, confidence, len(first))


def compare_loss(
    before: Sequence[tuple[float, int]],
    after: Sequence[tuple[float, int]],
    seed: int,
    confidence: float = 0.95,
) -> Comparison:
    """Loss per token before and after on the same rows, with a bootstrap interval of the difference.

    Long rows weigh more, as they do in training. Rows without trained tokens are left out.

    Args:
        before: For each row the loss summed over its trained tokens, in nats, and the number of these tokens.
        after: The same rows in the same order.
        seed: The same seed gives the same interval.
        confidence: Share of intervals that hold the true difference, between 0 and 1.

    Raises:
        ValueError: if no row has trained tokens, the numbers of rows differ, or a loss is not finite.
    """
    pairs = [pair for pair in zip(before, after, strict=True) if pair[0][1] > 0 and pair[1][1] > 0]
    nats_before, tokens_before = (_finite([first[column] for first, _ in pairs]) for column in (0, 1))
    nats_after, tokens_after = (_finite([second[column] for _, second in pairs]) for column in (0, 1))
    _check_pairs(nats_before, nats_after)

    def difference_of_ratios(
        nats_1: np.ndarray, tokens_1: np.ndarray, nats_2: np.ndarray, tokens_2: np.ndarray, axis: int = -1
    ) -> Any:
        return nats_2.sum(axis=axis) / tokens_2.sum(axis=axis) - nats_1.sum(axis=axis) / tokens_1.sum(axis=axis)

    samples = (nats_before, tokens_before, nats_after, tokens_after)
    interval = _interval(difference_of_ratios, samples, seed, confidence)
    loss_before = float(nats_before.sum() / tokens_before.sum())
    loss_after = float(nats_after.sum() / tokens_after.sum())
    return _comparison(loss_before, loss_after, interval, confidence, len(pairs))


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        raise ValueError("a value that is not finite cannot be compared")
    return array


def _check_pairs(first: np.ndarray, second: np.ndarray) -> None:
    if len(first) == 0 or len(first) != len(second):
        raise ValueError(f"{len(first)} rows before and {len(second)} after make no comparison")


def _interval(
    statistic: Callable[..., Any], samples: tuple[np.ndarray, ...], seed: int, confidence: float
) -> tuple[float, float] | None:
    """Bias-corrected bootstrap interval of ``statistic`` over rows that are drawn together from all ``samples``.

    None if there is nothing to resample.
    """
    rows = len(samples[0])
    if rows < 2 or all(_is_constant(sample) for sample in samples):
        return None
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            # Nearly constant values leave the bias correction undefined; the plain percentiles stay defined.
            warnings.simplefilter("ignore", DegenerateDataWarning)
            found = bootstrap(
                samples,
                statistic,
                n_resamples=RESAMPLES,
                batch=max(1, _BATCH_VALUES // rows),
                vectorized=True,
                paired=True,
                confidence_level=confidence,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        low, high = float(found.low), float(found.high)
        if math.isfinite(low) and math.isfinite(high):
            return low, high
    return None


def _is_constant(sample: np.ndarray) -> bool:
    """Whether all values are equal but for the rounding of a subtraction."""
    return bool(np.ptp(sample) <= 1e-12 * (1.0 + np.abs(sample).max()))


def _comparison(
    before: float, after: float, interval: tuple[float, float] | None, confidence: float, rows: int
) -> Comparison:
    difference = after - before
    low, high = interval or (difference, difference)
    return Comparison(
        before=before, after=after, difference=difference, low=low, high=high, confidence=confidence, rows=rows
    )
