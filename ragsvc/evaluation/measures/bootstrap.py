"""Confidence intervals of measures, and significance of differences between settings. Pure.

The paired bootstrap over questions (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16):
questions are drawn with replacement, the same ones for all settings, and the measure is computed for each draw.
``scipy.stats.bootstrap`` draws the questions; intervals and p-values of all settings come from the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap

from ragsvc.evaluation.measures.scores import auroc, wins

RESAMPLES: Final = 10_000
LEVEL: Final = 0.05
"""Significance level; intervals have the confidence level 1 - LEVEL."""

MIN_DIFFERING: Final = 6
"""With fewer differing questions the sign test's smallest p-value, ``2^(1 - n)``, exceeds ``LEVEL``."""

_DETECTABLE: Final = 1.96 + 0.84
"""Standard errors of the smallest difference that a test at level .05 detects with a power of .8."""

_BATCH: Final = 500
"""Draws at once, which bounds the memory."""

_SINGLE: Final = np.zeros(2, np.int64)
"""The indices of a sample of size 1: scipy requires two values, and repeating the index does not change the mean."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    NOISE = "within noise"


class Estimate(msgspec.Struct, frozen=True):
    """A measure with its 95 % confidence interval, over ``questions`` questions."""

    value: float
    low: float
    high: float
    questions: int


class PairedDifference(msgspec.Struct, frozen=True):
    """A setting minus the baseline, with the 95 % confidence interval and the two-sided p-value.

    ``differing`` is the number of questions whose outcomes differ. ``detectable`` is the smallest difference that
    this number of questions, with this variation, shows in four of five evaluations; ``None`` without variation.
    """

    difference: float
    low: float
    high: float
    p_value: float
    differing: int
    detectable: float | None
    verdict: Verdict


class Judgement(msgspec.Struct, frozen=True):
    """A measure of all settings: an estimate of each, and a comparison of each with the first."""

    estimates: list[Estimate]
    comparisons: list[PairedDifference]


def judge_means(values: npt.ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> Judgement:
    """Judge a measure that is a mean over questions; ``values`` is (settings, questions), both at least 1.

    Shares of questions (values 0 and 1 only) have Wilson intervals.
    """
    rows = np.asarray(values, float)
    questions = rows.shape[1]

    def means(drawn: Indices) -> Floats:
        return np.asarray((_counts(drawn, questions) @ rows.T).T / drawn.shape[1])

    draws = _bootstrap(means, questions, seed=seed, resamples=resamples)
    differing = [int(np.count_nonzero(row != rows[0])) for row in rows]
    is_share = bool(np.isin(rows, (0.0, 1.0)).all())
    min_difference = MIN_DIFFERING / questions if is_share else 0.0
    judgement = _judgement(rows.mean(axis=1), draws, questions, differing, min_difference)
    if not is_share:
        return judgement
    estimates = [
        Estimate(estimate.value, *wilson(estimate.value, questions), questions) for estimate in judgement.estimates
    ]
    return msgspec.structs.replace(judgement, estimates=estimates)


def judge_areas(signals: npt.ArrayLike, positive: npt.ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> Judgement:
    """Judge areas under the ROC curve; ``signals`` is (settings, questions), ``positive`` has both kinds.

    Positives and negatives are drawn separately, so that every draw has both.
    """
    rows, labels = np.asarray(signals, float), np.asarray(positive, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    tables = [wins(row, labels) for row in rows]

    def areas(drawn_positives: Indices, drawn_negatives: Indices) -> Floats:
        # a draw's area is a weighted mean of the table, far cheaper than roc_auc_score for each draw
        weights, others = _counts(drawn_positives, positives), _counts(drawn_negatives, negatives)
        sums = [np.einsum("dp,dp->d", weights, others @ table.T) for table in tables]
        return np.asarray(np.stack(sums) / (drawn_positives.shape[1] * drawn_negatives.shape[1]))

    draws = _bootstrap(areas, positives, negatives, seed=seed, resamples=resamples)
    values = np.array([auroc(row, labels) for row in rows])
    differing = [int(np.count_nonzero(row != rows[0])) for row in rows]
    return _judgement(values, draws, len(labels), differing, 0.0)


def wilson(share: float, questions: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of questions (Wilson 1927).

    Unlike a bootstrap interval it has a width when all or no questions are correct.

    >>> [round(end, 3) for end in wilson(1.0, 36)]
    [0.904, 1.0]
    """
    interval = binomtest(round(share * questions), questions).proportion_ci(1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def percentiles(values: npt.ArrayLike) -> dict[str, float]:
    """Median, 95th and 99th percentile."""
    found = np.percentile(np.asarray(values, float), (50, 95, 99)).tolist()
    return dict(zip(("p50", "p95", "p99"), found, strict=True))


def _bootstrap(statistic: Callable[..., Floats], *sizes: int, seed: int, resamples: int) -> Floats:
    """The statistic of each draw: (settings, resamples).

    A sample is the indices 0..size - 1, which makes the draws common to all settings. ``statistic`` maps drawn indices,
    (draws, size) for each sample, to (settings, draws).
    """

    def of_draws(*drawn: Indices, axis: int) -> Floats:  # axis is -1, the last one
        return statistic(*drawn)

    result = bootstrap(
        [np.arange(size) if size > 1 else _SINGLE for size in sizes],
        of_draws,
        n_resamples=resamples,
        batch=_BATCH,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return np.asarray(result.bootstrap_distribution)


def _counts(drawn: Indices, size: int) -> Floats:
    """How often each index occurs in each draw: (draws, size)."""
    draws = len(drawn)
    offset = drawn + size * np.arange(draws)[:, None]
    return np.bincount(offset.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def _judgement(values: Floats, draws: Floats, questions: int, differing: list[int], min_difference: float) -> Judgement:
    """``draws`` is (settings, resamples); ``min_difference`` is the smallest difference that can be significant."""
    low, high = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2), axis=1)
    estimates = [
        Estimate(float(value), float(lower), float(upper), questions)
        for value, lower, upper in zip(values, low, high, strict=True)
    ]
    comparisons = [
        _comparison(float(values[index] - values[0]), draws[index] - draws[0], differing[index], min_difference)
        for index in range(1, len(values))
    ]
    return Judgement(estimates, comparisons)


def _comparison(difference: float, draws: Floats, differing: int, min_difference: float) -> PairedDifference:
    """The p-value is no smaller than that of a sign test in which all differing questions agree."""
    low, high = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2)).tolist()
    tail = min(int(np.count_nonzero(draws <= 0)), int(np.count_nonzero(draws >= 0)))
    p_value = min(1.0, max(2 * (tail + 1) / (len(draws) + 1), 2.0 ** (1 - differing)))
    verdict = Verdict.NOISE
    if p_value < LEVEL and (low > 0 or high < 0):
        verdict = Verdict.BETTER if difference > 0 else Verdict.WORSE
    spread = _DETECTABLE * float(draws.std())
    return PairedDifference(difference, low, high, p_value, differing, max(spread, min_difference) or None, verdict)
