"""The measures are what their names say, on rankings small enough to work out by hand."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ragsvc.evaluation.measures.scores import auroc, contains, first_rank, ndcg, range_overlap, token_f1, unique, wins


def test_places():
    assert unique([3, 1, 3, 2]) == [3, 1, 2]
    assert first_rank([5, 4, 3], {3, 4}) == 2
    assert first_rank([5], frozenset({1})) is None


def test_ndcg_by_hand():
    assert ndcg([7, 8], {7: 1}) == 1.0
    assert ndcg([8, 7], {7: 1}) == pytest.approx(0.6309, abs=1e-4)
    assert ndcg([1, 2], {2: 2, 1: 1}) == pytest.approx((1 + 3 / 1.58496) / (3 + 1 / 1.58496), abs=1e-4)
    assert ndcg([1], {}) == 0.0


def test_overlap_of_ranges_counts_characters_once():
    recall, precision, union = range_overlap([(0, 0, 10), (0, 5, 15), (1, 0, 5)], [(0, 10, 20)])
    assert (recall, precision) == (0.5, 0.25)
    assert union == pytest.approx(5 / 25)


def test_auroc():
    assert auroc([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    assert auroc([0.5, 0.5], [True, False]) == 0.5


def test_answers_are_compared_by_words():
    assert token_f1("The cat sat.", "cat") == pytest.approx(2 / 3)
    assert contains("It cost $5 million in all", "5 million")
    assert not contains("It cost 15 million", "5 million")


@given(
    st.lists(st.integers(0, 30), max_size=25, unique=True),
    st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=15),
    st.integers(2, 12),
)
@settings(deadline=None)  # the first call imports scikit-learn
def test_ndcg_is_the_published_formula(ranking: list[int], grades: dict[int, int], k: int):
    def gain(order: list[int]) -> float:
        return sum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(order[:k], start=1))

    best = gain(sorted(grades.values(), reverse=True))
    expected = gain([grades.get(item, 0) for item in ranking]) / best if best else 0.0
    assert ndcg(ranking, grades, k=k) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
@settings(deadline=None)  # the first call imports scikit-learn
def test_auroc_is_the_share_of_pairs_in_order(scored: list[tuple[int, bool]]):
    scores, positive = zip(*scored, strict=True)
    assume(len(set(positive)) == 2)
    above = [scores[n] for n in range(len(scores)) if positive[n]]
    below = [scores[n] for n in range(len(scores)) if not positive[n]]
    pairs = [1.0 if high > low else 0.5 if high == low else 0.0 for high in above for low in below]
    assert (
        auroc(scores, positive)
        == pytest.approx(sum(pairs) / len(pairs))
        == pytest.approx(wins(scores, positive).mean())
    )
