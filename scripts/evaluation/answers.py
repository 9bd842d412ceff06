"""Measures the quality of extractive answers, and the separation of answerable and unanswerable questions."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np

from evaluation import engine
from evaluation.datasets import Question
from evaluation.engine import Collection, Embedding
from ragsvc.core.answers.extractive import answer
from ragsvc.core.defaults import DEFAULT_TOP_K
from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.core.retrieval.passage_search import RankedPassages
from ragsvc.core.retrieval.search_values import SearchHit, SearchMode
from ragsvc.evaluation.measures.scores import auroc, contains, token_f1

SHORT_ANSWERS = {"Str", "Int", "Float"}


def search_question(
    collection: Collection, question: Question, vector: Vectors, *, own_document: bool
) -> tuple[RankedPassages, list[SearchHit]]:
    """The hybrid ranking of a question and its first hits, over all documents or the question's document only."""
    documents = None
    if own_document and question.document is not None:
        documents = np.array([question.document + 1], dtype=np.int64)
    ranking = engine.search(collection, question.text, vector, SearchMode.HYBRID, documents=documents)
    hits = [
        SearchHit(
            passage=collection.stored[candidate.id],
            score=candidate.score,
            dense=candidate.dense,
            lexical=candidate.lexical,
        )
        for candidate in ranking.candidates[:DEFAULT_TOP_K]
    ]
    return ranking, hits


def judge_answers(collection: Collection, embedding: Embedding, *, own_document: bool) -> dict[str, float]:
    """Token F1, containment of the answer, shares without an answer and without confidence, and time.

    On short text answers of mmlong or on all of xquad.
    """
    asked = [
        question
        for question in collection.dataset.questions
        if question.answer is not None
        and question.from_text
        and (question.document is None or question.answer_format in SHORT_ANSWERS)
    ]
    rows: list[tuple[float, ...]] = []
    for question, vector in zip(asked, embedding.queries([question.text for question in asked]), strict=True):
        ranking, hits = search_question(collection, question, vector, own_document=own_document)
        begin = time.perf_counter()
        found = answer(question.text, hits, answerable=ranking.answerable)
        spent = time.perf_counter() - begin
        quoted = [] if found.doubtful else [sentence.text for sentence in found.sentences]
        gold = question.answer or ""
        rows.append(
            (
                token_f1(" ".join(quoted), gold),
                contains(" ".join(quoted), gold),
                contains(quoted[0] if quoted else "", gold),
                contains(" ".join(hit.passage.text for hit in hits), gold),
                not quoted,
                bool(quoted) and found.unsure,
                1000 * spent,
            )
        )
    names = ("token_f1", "contains", "first_contains", "passages_contain", "abstained", "unsure", "ms")
    return {"questions": len(asked), **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))}


def judge_abstention(collection: Collection, embedding: Embedding, *, own_document: bool) -> dict[str, float]:
    """Separation of answerable and unanswerable questions of mmlong, on documents with text."""
    readable = {int(passage.document_id) - 1 for passage in collection.stored.values()}
    asked = [question for question in collection.dataset.questions if question.document in readable]
    vectors = embedding.queries([question.text for question in asked])
    scores = np.array(
        [
            search_question(collection, question, vector, own_document=own_document)[0].answerable
            for question, vector in zip(asked, vectors, strict=True)
        ]
    )
    has_answer = np.array([question.answer is not None for question in asked])
    compared = ~has_answer | np.array([question.from_text for question in asked])
    return {
        "questions": len(asked),
        "auroc": auroc(scores, has_answer),
        "auroc_text_and_tables": auroc(scores[compared], has_answer[compared]),
        "answered_if_answerable": float(np.mean(scores[has_answer] >= ABSTAIN_BELOW)),
        "answered_if_not": float(np.mean(scores[~has_answer] >= ABSTAIN_BELOW)),
    }


def judge_foreign(collections: Sequence[Collection], embedding: Embedding, *, each: int = 60) -> dict[str, float]:
    """Compare questions searched in other sets, which cannot answer them, with the same questions in their own set."""
    own_scores: list[float] = []
    foreign_scores: list[float] = []
    for asked_of in collections:
        questions = random.Random(7).sample(asked_of.dataset.questions, each)  # noqa: S311 - a fixed sample
        vectors = embedding.queries([question.text for question in questions])
        for collection in collections:
            scores = own_scores if collection is asked_of else foreign_scores
            for question, vector in zip(questions, vectors, strict=True):
                scores.append(engine.search(collection, question.text, vector, SearchMode.HYBRID).answerable)
    labels = [True] * len(own_scores) + [False] * len(foreign_scores)
    return {
        "auroc": auroc([*own_scores, *foreign_scores], labels),
        "answered_own": float(np.mean(np.array(own_scores) >= ABSTAIN_BELOW)),
        "answered_foreign": float(np.mean(np.array(foreign_scores) >= ABSTAIN_BELOW)),
    }
