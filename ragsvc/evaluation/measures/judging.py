"""Judges the ranked passages of a question against gold documents, pages or excerpts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.evaluation.measures.scores import first_rank, ndcg, range_overlap

HIT_DEPTHS: Final = (1, 3, 5, 10)
"""The ``k`` of hit@k."""

RECALL_DEPTHS: Final = (5, 10)
"""The ``k`` of recall@k and precision@k."""

_MIN_OVERLAP: Final = 0.5
"""A passage holds an excerpt if it covers half of the excerpt, or the excerpt covers half of the passage."""


class Span(msgspec.Struct, frozen=True):
    """Characters ``start`` to ``end`` of a page's text. Pages count from 1."""

    document: str
    page: int
    start: int
    end: int

    @property
    def range(self) -> tuple[tuple[str, int], int, int]:
        """The span as ``range_overlap`` takes it."""
        return (self.document, self.page), self.start, self.end


Occurrence = tuple[Span, ...]
"""A position of an excerpt: several spans if it crosses page breaks."""

Item = tuple[str, int | None]
"""A page of a document; with ``None`` the whole document."""


class Gold(msgspec.Struct, frozen=True):
    """The correct pages or documents of a question; with ``excerpts`` only passages that hold an excerpt are correct.

    Each excerpt has one or more occurrences.
    """

    items: frozenset[Item]
    excerpts: tuple[tuple[Occurrence, ...], ...] = ()


def judge(found: Sequence[Span], gold: Gold) -> dict[str, float]:
    """The measures of a ranking, each in 0..1.

    hit@k and mrr use the rank of the first correct passage. recall@k is the share of gold pages (or documents) among
    the first k passages. In ndcg@10 a repeated gold page takes up its rank and gains nothing. excerpt_recall@k is the
    share of the excerpts' characters that the first k passages cover (of an excerpt with several occurrences, the
    best covered one); excerpt_precision@k is the share of these passages' characters that belong to an excerpt.
    """
    items = [matching_item(span, gold) for span in found]
    rank = first_rank(items, gold.items)
    measures = {f"hit@{k}": float(rank is not None and rank <= k) for k in HIT_DEPTHS}
    measures["mrr"] = 1 / rank if rank else 0.0
    measures["ndcg@10"] = ndcg(_mark_repeats(items), dict.fromkeys(gold.items, 1))
    measures |= {f"recall@{k}": len(gold.items.intersection(items[:k])) / len(gold.items) for k in RECALL_DEPTHS}
    if gold.excerpts:
        for k in RECALL_DEPTHS:
            measures[f"excerpt_recall@{k}"], measures[f"excerpt_precision@{k}"] = _coverage(found[:k], gold.excerpts)
    return measures


def matching_item(span: Span, gold: Gold) -> Item | None:
    """The gold page or document that a passage matches; ``None`` if the passage is not correct."""
    page, document = (span.document, span.page), (span.document, None)
    if gold.excerpts:
        spans = (part for excerpt in gold.excerpts for occurrence in excerpt for part in occurrence)
        return page if any(_holds(span, part) for part in spans) else None
    return next((item for item in (page, document) if item in gold.items), None)


def _mark_repeats(items: Sequence[Item | None]) -> list[Item | int]:
    """Repeated and incorrect items become their ranks, so that every entry is distinct."""
    return [rank if item is None or item in items[:rank] else item for rank, item in enumerate(items)]


def _holds(passage: Span, excerpt: Span) -> bool:
    if (passage.document, passage.page) != (excerpt.document, excerpt.page):
        return False
    common = min(passage.end, excerpt.end) - max(passage.start, excerpt.start)
    return common > 0 and common >= _MIN_OVERLAP * min(excerpt.end - excerpt.start, passage.end - passage.start)


def _coverage(found: Sequence[Span], excerpts: Sequence[Sequence[Occurrence]]) -> tuple[float, float]:
    """Recall and precision of the excerpts' characters."""
    ranges = [span.range for span in found]
    covered = length = 0.0
    for occurrences in excerpts:
        recall, characters = max(
            (range_overlap(ranges, [span.range for span in occurrence])[0], _length(occurrence))
            for occurrence in occurrences
        )
        covered += recall * characters
        length += characters
    every_range = [span.range for occurrences in excerpts for occurrence in occurrences for span in occurrence]
    return covered / length, range_overlap(ranges, every_range)[1]


def _length(occurrence: Occurrence) -> int:
    return sum(span.end - span.start for span in occurrence)
