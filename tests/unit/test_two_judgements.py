"""Documents by the names of a question, passages by its other words; and the time of a cross-encoder."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest

from ragsvc.core.ports.indexes import DocumentJudgement, Hits
from ragsvc.core.retrieval.explanations import found_words, words_to_find
from ragsvc.core.retrieval.passage_search import JUDGED_CANDIDATES, SEARCHED_DOCUMENTS, confirmed, find_candidates
from ragsvc.core.retrieval.ranking import SearchCandidates, complete_cosines, join, rank
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.services.search import score_in_time

NOTHING = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


def judgement(*, confidence: float = 1.0, compared: tuple[int, ...] = ()) -> DocumentJudgement:
    return DocumentJudgement(
        np.array([1, 2], np.int64), np.array([1.0, 0.5], np.float32), confidence, "capital expenditure", compared
    )


def candidates(**columns: list[float]) -> SearchCandidates:
    """Passages 11 and 12 of document 1, 21 and 22 of document 2, 31 of document 3."""
    ids, documents = np.array([11, 12, 21, 22, 31], np.int64), np.array([1, 1, 2, 2, 3], np.int64)
    found = {name: np.array(values, np.float32) for name, values in columns.items()}
    return SearchCandidates(ids, documents, **found)


SCORES = {
    "cosines": [0.5, 0.45, 0.6, 0.5, 0.7],
    "words": [2.0, 1.0, 6.0, 3.0, 5.0],
    "rest_cosines": [0.3, 0.6, 0.5, 0.3, 0.4],
    "rest_words": [1.0, 4.0, 4.0, 1.0, np.nan],
}
NAMES = {1: "Apple 2022", 2: "Apple 2023", 3: "Intel 2022"}


def order(found: SearchCandidates, judged: DocumentJudgement | None) -> list[int]:
    ranked = rank("Apple capital expenditure 2022", SearchMode.HYBRID, found, names=NAMES, judgement=judged)
    scores = [candidate.score for candidate in ranked]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    return [candidate.id for candidate in ranked]


def test_the_named_document_comes_first_and_its_passages_by_the_other_words() -> None:
    found = candidates(**SCORES)
    assert order(found, None)[0] == 21  # the mixture prefers the page that repeats name and year
    assert order(found, judgement())[:2] == [12, 11]


def test_without_confidence_the_mixture_decides() -> None:
    found = candidates(**SCORES)
    assert order(found, judgement(confidence=0.01)) == order(found, None)


def test_compared_documents_share_the_first_places() -> None:
    first = order(candidates(**SCORES), judgement(compared=(1, 2)))[:2]
    assert first == [12, 21]


def test_the_reported_lexical_score_is_by_the_words_that_name_no_document() -> None:
    found = candidates(**SCORES | {"words": [np.nan] * 5})
    ranked = rank("q", SearchMode.HYBRID, found, names=NAMES, judgement=judgement())
    assert {one.id: one.lexical for one in ranked} == {11: 0.25, 12: 1.0, 21: 1.0, 22: 0.25, 31: None}
    assert {one.id: one.dense for one in ranked}[31] == pytest.approx(0.7)


@pytest.mark.parametrize("mode", [SearchMode.DENSE, SearchMode.LEXICAL])
def test_the_other_modes_rank_by_one_score(mode: SearchMode) -> None:
    found = candidates(**SCORES)
    plain = rank("q", mode, found, names=NAMES)
    assert rank("q", mode, found, names=NAMES, judgement=None) == plain
    assert plain[0].id == (31 if mode is SearchMode.DENSE else 21)


def test_a_limit_keeps_the_requested_passages() -> None:
    found = candidates(**SCORES)
    ranked = rank("q", SearchMode.HYBRID, found, names=NAMES, requested={22}, limit=2)
    assert len(ranked) <= 3
    assert 22 in {candidate.id for candidate in ranked}


EXPLAINED = {
    "hybrid": {"mode": SearchMode.HYBRID},
    "hybrid of unknown words": {"mode": SearchMode.HYBRID, "familiar": False},
    "named page": {"mode": SearchMode.HYBRID, "requested": {22}},
    "weighted": {"mode": SearchMode.HYBRID, "dense_weight": 0.3},
    "dense": {"mode": SearchMode.DENSE},
    "lexical": {"mode": SearchMode.LEXICAL},
    "named documents": {"mode": SearchMode.HYBRID, "judgement": judgement(), "requested": {22}},
    "less sure": {"mode": SearchMode.HYBRID, "judgement": judgement(confidence=0.4), "familiar": False},
    "comparison": {"mode": SearchMode.HYBRID, "judgement": judgement(compared=(1, 2))},
}


@pytest.mark.parametrize("case", EXPLAINED)
def test_the_parts_of_a_score_add_up_to_it(case: str) -> None:
    options = dict(EXPLAINED[case])
    mode = options.pop("mode")
    found = candidates(**SCORES | {"cosines": [0.5, 0.45, np.nan, 0.5, 0.7]})
    ranked = rank("Apple capital expenditure 2022", mode, found, names=NAMES, explain=True, **options)
    for candidate in ranked:
        assert candidate.parts
        assert sum(part.points for part in candidate.parts) == pytest.approx(candidate.score, abs=5e-4)
        for part in candidate.parts:
            assert -1e-6 <= part.value <= 1 + 1e-6, part
            assert part.value * part.weight == pytest.approx(part.points, abs=2e-4)
    plain = rank("Apple capital expenditure 2022", mode, found, names=NAMES, **options)
    assert [msgspec.structs.replace(candidate, parts=()) for candidate in ranked] == plain


def test_the_parts_of_a_score_name_what_they_measure() -> None:
    ranked = rank(
        "Apple 2022",
        SearchMode.HYBRID,
        candidates(**SCORES),
        names=NAMES,
        judgement=judgement(compared=(1, 2)),
        requested={22},
        explain=True,
    )
    (named,) = [candidate for candidate in ranked if candidate.id == 22]
    points = {part.name.value: part.points for part in named.parts}
    assert set(points) == {
        "meaning",
        "other_meaning",
        "other_words",
        "document",
        "comparison",
        "page",
    }
    assert points["page"] > 0
    assert points["comparison"] > 0
    asked = words_to_find("Which reports name the harbour in 2022?")
    assert found_words(asked, "The report of the Harbours, of 20221.") == ["reports", "harbour"]


def test_candidates_of_deleted_documents_are_dropped_with_all_their_scores() -> None:
    ranked = rank("q", SearchMode.HYBRID, candidates(**SCORES), names={2: "x", 3: "y"}, judgement=judgement())
    assert {candidate.id for candidate in ranked} == {21, 22, 31}


class Indexes:
    """Two documents of 300 passages; records the searches."""

    def __init__(self, *, far: bool = False) -> None:
        self.searches: list[tuple[bool, str | None, int, list[int] | None]] = []
        self._far = far

    def search(self, vector, text, *, k, documents):
        self.searches.append((vector is not None, text, k, None if documents is None else documents.tolist()))
        ids = np.arange(1, k + 1, dtype=np.int64) + (300 if documents is None and self._far else 0)
        hits = Hits(ids, np.linspace(0.9, 0.8, k, dtype=np.float32))
        return (hits if vector is not None else NOTHING), (hits if text is not None else NOTHING)

    def documents_of(self, ids):
        return np.where(ids <= 300, 1, 2).astype(np.int64)

    def vectors(self, ids):
        return ids, np.full((len(ids), 2), 0.5, np.float32)


VECTOR = np.array([1.0, 0.0], np.float32)


def test_a_sure_judgement_searches_the_named_documents_instead_of_all_words() -> None:
    indexes = Indexes()
    found, judged = find_candidates(
        SearchQuery(text="Apple capital expenditure"),
        VECTOR,
        indexes=indexes,
        documents=None,
        judgement=judgement(),
        rest_vector=VECTOR,
    )
    assert judged is not None
    assert judged.is_useful
    assert indexes.searches == [(True, None, 70, None), (True, "capital expenditure", JUDGED_CANDIDATES, [1, 2])]
    assert len(found.ids) == JUDGED_CANDIDATES  # deep, though the best 70 of the collection are from one document
    assert found.rest_cosines is not None
    assert not np.isnan(found.rest_cosines).any()


def test_a_judgement_that_no_close_passage_confirms_is_dropped() -> None:
    dense = Hits(np.array([400, 1], np.int64), np.array([0.8, 0.4], np.float32))
    only_first = DocumentJudgement(np.array([1], np.int64), np.ones(1, np.float32), 0.9, "rest")
    assert not confirmed(only_first, dense, documents_of=Indexes().documents_of).is_useful
    near = Hits(dense.ids, np.array([0.8, 0.78], np.float32))
    assert confirmed(only_first, near, documents_of=Indexes().documents_of) == only_first
    assert confirmed(only_first, NOTHING, documents_of=Indexes().documents_of) == only_first
    assert SEARCHED_DOCUMENTS >= 2


def test_all_candidates_have_a_cosine_with_both_questions() -> None:
    dense = Hits(np.array([1], np.int64), np.array([0.9], np.float32))
    rest = (Hits(np.array([2], np.int64), np.array([0.7], np.float32)), NOTHING)
    found = join(dense, NOTHING, documents_of=lambda ids: np.ones(len(ids), np.int64), rest=rest)
    found = complete_cosines(found, query=VECTOR, vectors_of=Indexes().vectors, rest=2 * VECTOR)
    assert found.cosines.tolist() == pytest.approx([0.5, 0.5])
    assert found.rest_cosines is not None
    assert found.rest_cosines.tolist() == pytest.approx([1.0, 1.0])


class SlowReranker:
    name = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.scored = seconds, 0

    def score(self, query, texts):
        time.sleep(self.seconds)
        self.scored += len(texts)
        return np.array([len(text) / 100 for text in texts], np.float32)


def test_a_cross_encoder_stops_before_its_time_is_over() -> None:
    reranker = SlowReranker(0.05)
    started = time.monotonic()
    scores = score_in_time(reranker, "q", ["x"] * 40, deadline=started + 0.2)
    assert time.monotonic() - started < 0.3
    assert 4 <= len(scores) == reranker.scored < 40
    assert score_in_time(reranker, "q", ["x"] * 40, deadline=started) == []
    assert len(score_in_time(SlowReranker(0), "q", ["x"] * 41, deadline=time.monotonic() + 60)) == 41
