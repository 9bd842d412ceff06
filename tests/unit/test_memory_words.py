"""Word search in memory scores passages as the stored word index does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.ports.indexes import LexicalDocument
from ragsvc.index.lexical import TantivyIndex
from ragsvc.index.memory_words import MemoryWordScorer

WORDS = (
    "net sales rose fell quarter apple fiscal revenue cost margin share of the in and Umsatz Häuser 2023 10-K".split()
)
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join), min_size=20, max_size=40)


def documents_of(texts: list[str]) -> list[LexicalDocument]:
    return [
        LexicalDocument(number, 1 + number // 5, text, f"report {number // 5}") for number, text in enumerate(texts)
    ]


@settings(max_examples=15, deadline=None)
@given(texts=TEXTS, question=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join))
def test_the_scores_are_those_of_the_word_index(texts, question, tmp_path_factory):
    documents = documents_of(texts)
    index = TantivyIndex(tmp_path_factory.mktemp("words") / "lexical")
    try:
        index.add(documents)
        index.commit(covered_seq=1)
        hits = index.search(question, k=len(texts))
    finally:
        index.close()
    scorer = MemoryWordScorer()
    scores = scorer.scores(scorer.count(documents), question)
    assert set(np.flatnonzero(scores > 0).tolist()) == set(hits.ids.tolist())
    # tantivy rounds the lengths of fields, and counts the marker of a commit as a document without words
    np.testing.assert_allclose(scores[hits.ids], hits.scores, rtol=0.15, atol=0.15)


@pytest.mark.parametrize("question", ["", "of the", "unknown words", "?"])
def test_a_question_without_known_words_finds_nothing(question):
    scorer = MemoryWordScorer()
    scores = scorer.scores(scorer.count(documents_of(["net sales rose"])), question)
    assert scores.tolist() == [0.0] or question == "of the"
    assert scorer.scores([], question).shape == (0,)
