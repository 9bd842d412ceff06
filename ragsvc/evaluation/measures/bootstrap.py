"""Says how far a measure can be trusted and whether two settings differ: the paired bootstrap over questions. Pure.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16: questions are drawn anew with
replacement, the same ones for all settings, and the measure is taken of each draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.evaluation.measures.scores import wins

RESAMPLES: Final = 10_000
LEVEL: Final = 0.05
"""Differences are told from noise at this error rate; intervals hold 1 - LEVEL."""

FEWEST_DIFFERING: Final = 6
"""With fewer differing questions even a coin's chance of all falling one way, ``2^(1 - n)``, exceeds ``LEVEL``."""

_NORMAL: Final = 1.96
_DETECTABLE: Final = _NORMAL + 0.84
"""Standard errors of the smallest difference that a test at .05 sees with a power of .8."""

_DRAWS_AT_ONCE: Final = 500

Floats = npt.NDArray[np.float64]


class Verdict(StrEnum):
    """What a comparison came to."""

    BETTER = "better"
    WORSE = "worse"
    NOISE = "within noise"


class Estimate(msgspec.Struct, frozen=True):
    """A measure with its 95 % interval, over so many questions."""

    value: float
    low: float
    high: float
    questions: int


class PairedDifference(msgspec.Struct, frozen=True):
    """A setting minus the first one, with the 95 % interval and the two-sided p-value.

    ``differing`` questions came out differently. ``detectable`` is the smallest difference that so many questions,
    varying as these do, show four times out of five; ``None`` where nothing varied.
    """

    difference: float
    low: float
    high: float
    p_value: float
    differing: int
    detectable: float | None
    verdict: Verdict


class Judgement(msgspec.Struct, frozen=True):
    """One measure of all settings: an estimate each, and a comparison for each but the first."""

    estimates: list[Estimate]
    comparisons: list[PairedDifference]


def judge_means(values: npt.ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> Judgement:
    """Judge a measure that is the mean over questions; ``values`` is (settings, questions), both at least one."""
    rows = np.asarray(values, float)
    questions = rows.shape[1]
    draws = np.concatenate([counts @ rows.T for counts in _drawn(questions, seed, resamples)]) / questions
    differing = [int(np.count_nonzero(row != rows[0])) for row in rows]
    yes_or_no = bool(np.isin(rows, (0.0, 1.0)).all())
    least = FEWEST_DIFFERING / questions if yes_or_no else 0.0
    judgement = _judgement(rows.mean(axis=1), draws, questions, differing, least)
    if not yes_or_no:
        return judgement
    estimates = [Estimate(one.value, *wilson(one.value, questions), questions) for one in judgement.estimates]
    return msgspec.structs.replace(judgement, estimates=estimates)


def judge_areas(signals: npt.ArrayLike, positive: npt.ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> Judgement:
    """Judge areas under the ROC curve; ``signals`` is (settings, questions), ``positive`` has both kinds.

    Positives and negatives are drawn separately, so every draw has both.
    """
    rows, labels = np.asarray(signals, float), np.asarray(positive, bool)
    yes, no = int(labels.sum()), int((~labels).sum())
    tables = [wins(row, labels) for row in rows]
    drawn: list[Floats] = []
    for ours, theirs in zip(_drawn(yes, seed, resamples), _drawn(no, seed + 1, resamples), strict=True):
        areas = [np.einsum("dp,dp->d", ours, theirs @ table.T) / (yes * no) for table in tables]
        drawn.append(np.stack(areas, axis=1))
    values = np.array([table.mean() for table in tables])
    differing = [int(np.count_nonzero(row != rows[0])) for row in rows]
    return _judgement(values, np.concatenate(drawn), len(labels), differing, 0.0)


def wilson(share: float, questions: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); unlike drawn ones it has a width where all or none are right.

    >>> [round(end, 3) for end in wilson(1.0, 36)]
    [0.904, 1.0]
    """
    squared = _NORMAL**2
    middle = share + squared / (2 * questions)
    spread = _NORMAL * math.sqrt(share * (1 - share) / questions + squared / (4 * questions**2))
    low, high = ((middle + sign * spread) / (1 + squared / questions) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def percentiles(values: npt.ArrayLike) -> dict[str, float]:
    """Median, 95th and 99th percentile."""
    found = np.percentile(np.asarray(values, float), (50, 95, 99)).tolist()
    return dict(zip(("p50", "p95", "p99"), found, strict=True))


def _drawn(questions: int, seed: int, resamples: int) -> Iterator[Floats]:
    """How often each question is in each draw: (some draws, questions), ``resamples`` draws in all."""
    random = np.random.default_rng(seed)
    for first in range(0, resamples, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, resamples - first)
        drawn = random.integers(questions, size=(draws, questions)) + questions * np.arange(draws)[:, None]
        yield np.bincount(drawn.ravel(), minlength=draws * questions).reshape(draws, questions).astype(float)


def _judgement(values: Floats, draws: Floats, questions: int, differing: list[int], least: float) -> Judgement:
    """``draws`` is (resamples, settings); ``least`` is the smallest difference that could ever be told."""
    low, high = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2), axis=0)
    estimates = [Estimate(float(v), float(a), float(b), questions) for v, a, b in zip(values, low, high, strict=True)]
    comparisons = [
        _comparison(float(values[one] - values[0]), draws[:, one] - draws[:, 0], differing[one], least)
        for one in range(1, len(values))
    ]
    return Judgement(estimates, comparisons)


def _comparison(difference: float, draws: Floats, differing: int, least: float) -> PairedDifference:
    low, high = (float(one) for one in np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2)))
    tail = min(int(np.count_nonzero(draws <= 0)), int(np.count_nonzero(draws >= 0)))
    p_value = min(1.0, max(2 * (tail + 1) / (len(draws) + 1), 2.0 ** (1 - differing)))
    verdict = Verdict.NOISE
    if p_value < LEVEL and (low > 0 or high < 0):
        verdict = Verdict.BETTER if difference > 0 else Verdict.WORSE
    spread = _DETECTABLE * float(draws.std())
    return PairedDifference(difference, low, high, p_value, differing, max(spread, least) or None, verdict)
