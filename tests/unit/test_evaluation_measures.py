"""The measures are what their names say, on rankings small enough to work out by hand."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from ragsvc.evaluation.measures.scores import auroc, contains, first_rank, ndcg, range_overlap, token_f1, unique


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
