"""The bootstrap tells real differences from noise, and never finds one where there is none."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.evaluation.measures import bootstrap, excerpts, scores
from ragsvc.evaluation.measures.bootstrap import Verdict, judge_areas, judge_means, percentiles, wilson

outcomes = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(outcomes, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_equal_settings_are_never_better(values: list[float], seed: int) -> None:
    judged = judge_means([values, values], seed=seed, resamples=300)
    (compared,) = judged.comparisons
    assert (compared.difference, compared.low, compared.high, compared.differing) == (0, 0, 0, 0)
    assert (compared.p_value, compared.verdict) == (1, Verdict.NOISE)
    assert judged.estimates[0] == judged.estimates[1]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_better_one_way_is_worse_the_other_way(pairs: list[tuple[float, float]], seed: int) -> None:
    ours, theirs = zip(*pairs, strict=True)
    one = judge_means([ours, theirs], seed=seed, resamples=300).comparisons[0]
    other = judge_means([theirs, ours], seed=seed, resamples=300).comparisons[0]
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == other.p_value
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER, Verdict.NOISE: Verdict.NOISE}
    assert other.verdict is opposite[one.verdict]


@pytest.mark.parametrize(("differing", "verdict"), [(5, Verdict.NOISE), (6, Verdict.BETTER)])
def test_fewer_than_six_differing_questions_never_show_a_difference(differing: int, verdict: Verdict) -> None:
    ours = np.zeros(20)
    theirs = np.where(np.arange(20) < differing, 1.0, 0.0)
    compared = judge_means([ours, theirs], seed=1).comparisons[0]
    assert (compared.differing, compared.verdict) == (differing, verdict)
    assert compared.p_value >= 2.0 ** (1 - differing)


def test_a_seed_gives_the_same_figures_and_another_one_others() -> None:
    random = np.random.default_rng(5)
    values = random.random((2, 30))
    assert judge_means(values, seed=1) == judge_means(values, seed=1)
    assert judge_means(values, seed=1) != judge_means(values, seed=2)


def test_noise_is_called_a_difference_about_once_in_twenty() -> None:
    """Both settings draw from the same urn, so every call but noise is wrong."""
    random = np.random.default_rng(7)
    wrong = sum(
        judge_means(random.random((2, 40)) < 0.7, seed=n, resamples=400).comparisons[0].verdict is not Verdict.NOISE
        for n in range(300)
    )
    assert wrong <= 300 * 0.09


def test_the_interval_of_the_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.1, size=(1, 100))
    (one,) = judge_means(values, seed=0).estimates
    error = values.std() / 10
    assert (one.value, one.questions) == (pytest.approx(values.mean()), 100)
    assert (one.low, one.high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=2e-3)


def test_what_can_be_detected_is_detected_four_times_out_of_five() -> None:
    """Differences of exactly the size that is said to be detectable, in fresh questions."""
    random = np.random.default_rng(11)
    first = random.normal(0, 1, size=(2, 100))
    size = judge_means(first, seed=0).comparisons[0].detectable
    assert size is not None
    found = 0
    for n in range(200):
        ours, theirs = random.normal(0, 1, size=(2, 100))
        found += judge_means([ours, theirs + size], seed=n, resamples=400).comparisons[0].verdict is Verdict.BETTER
    assert 0.65 < found / 200 < 0.95


def test_areas_by_hand_and_by_their_draws() -> None:
    positive = [True] * 3 + [False] * 2
    judged = judge_areas([[0.9, 0.5, 0.2, 0.5, 0.1], [0.9, 0.8, 0.7, 0.2, 0.1]], positive, seed=0, resamples=2000)
    assert judged.estimates[0].value == pytest.approx((2 + 1.5 + 1) / 6)
    assert (judged.estimates[1].value, judged.estimates[1].low, judged.estimates[1].high) == (1, 1, 1)
    draws = [
        scores.auroc([*(np.array([0.9, 0.5, 0.2])[list(yes)]), *(np.array([0.5, 0.1])[list(no)])], positive)
        for yes in itertools.product(range(3), repeat=3)
        for no in itertools.product(range(2), repeat=2)
    ]  # all there are
    assert judged.estimates[0].low == pytest.approx(np.quantile(draws, 0.025), abs=0.02)
    assert judged.comparisons[0].difference == pytest.approx(0.25)
    equal = judge_areas([[0.1, 0.2], [0.1, 0.2]], [True, False], seed=0, resamples=100)
    assert equal.comparisons[0].verdict is Verdict.NOISE


@given(st.integers(1, 500), st.integers(0, 500))
@settings(deadline=None)  # the first call imports SciPy
def test_an_interval_of_a_share_holds_it(questions: int, right: int) -> None:
    share = min(right, questions) / questions
    low, high = wilson(share, questions)
    assert 0 <= low <= share <= high <= 1
    assert low < high


@given(st.integers(1, 500), st.integers(0, 500))
@settings(deadline=None)  # the first call imports SciPy
def test_the_interval_of_a_share_is_wilsons_formula(questions: int, right: int) -> None:
    share, z = min(right, questions) / questions, 1.959964
    middle = share + z**2 / (2 * questions)
    spread = z * math.sqrt(share * (1 - share) / questions + z**2 / (4 * questions**2))
    expected = tuple((middle + sign * spread) / (1 + z**2 / questions) for sign in (-1, 1))
    assert wilson(share, questions) == pytest.approx(expected, abs=1e-6)


def test_draws_are_those_of_the_seed_and_common_to_all_settings() -> None:
    """The intervals of 500 draws, made here with NumPy alone."""
    rows = np.random.default_rng(2).random((2, 30))
    drawn = np.random.default_rng(6).integers(30, size=(500, 30))
    first, second = (row[drawn].mean(axis=1) for row in rows)
    judged = judge_means(rows, seed=6, resamples=500)
    compared = judged.comparisons[0]
    assert (judged.estimates[0].low, judged.estimates[0].high) == pytest.approx(np.quantile(first, (0.025, 0.975)))
    assert (compared.low, compared.high) == pytest.approx(np.quantile(second - first, (0.025, 0.975)))
    tail = min((second <= first).sum(), (second >= first).sum())
    assert compared.p_value == pytest.approx(min(1, 2 * (tail + 1) / 501))


def test_a_single_question_has_an_interval_and_no_difference() -> None:
    judged = judge_means([[0.25], [0.75]], seed=0, resamples=50)
    assert [(one.low, one.high) for one in judged.estimates] == [(0.25, 0.25), (0.75, 0.75)]
    assert (judged.comparisons[0].difference, judged.comparisons[0].p_value) == (0.5, 1)
    areas = judge_areas([[0.9, 0.1, 0.95]], [True, False, False], seed=0, resamples=50)
    assert (areas.estimates[0].value, areas.estimates[0].low, areas.estimates[0].high) == (0.5, 0.0, 1.0)


def test_percentiles_and_examples() -> None:
    assert percentiles(range(1, 102)) == {"p50": 51, "p95": 96, "p99": 100}
    for module in (bootstrap, excerpts):
        outcome = doctest.testmod(module)
        assert outcome.attempted
        assert not outcome.failed
