"""Interim answerer; replaced by the measured one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ragsvc.core.retrieval import SearchHit
from ragsvc.core.sentences import sentence_spans


class AnswerSentence(msgspec.Struct, frozen=True):
    """A sentence that stands at ``start`` to ``end`` of a passage."""

    text: str
    passage_index: int
    start: int
    end: int


class ExtractedAnswer(msgspec.Struct, frozen=True):
    """An answer."""

    sentences: list[AnswerSentence]
    answerable: float
    abstained: bool


def answer(question: str, hits: Sequence[SearchHit]) -> ExtractedAnswer:
    """Pick sentences with most words of the question."""
    words = set(question.lower().split())
    found: list[tuple[int, AnswerSentence]] = []
    for index, hit in enumerate(hits):
        text = hit.passage.text
        for start, end in sentence_spans(text):
            overlap = len(words & set(text[start:end].lower().split()))
            found.append((overlap, AnswerSentence(text[start:end], index, start, end)))
    found.sort(key=lambda one: -one[0])
    best = [sentence for overlap, sentence in found[:2] if overlap > 0]
    return ExtractedAnswer(best, 1.0 if best else 0.0, abstained=not best)
