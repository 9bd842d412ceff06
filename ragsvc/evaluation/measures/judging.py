"""Judges one question's ranked passages by what is known to be right: documents, pages or stretches of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.evaluation.measures.scores import first_rank, ndcg, range_overlap

PLACES: Final = (1, 3, 5, 10)
"""The ``k`` of hit@k."""

DEPTHS: Final = (5, 10)
"""The ``k`` of recall and precision."""

_ENOUGH: Final = 0.5
"""A passage holds an excerpt when half of the excerpt stands in it, or half of the passage is excerpt."""


class Span(msgspec.Struct, frozen=True):
    """Characters ``start`` to ``end`` of a page's text. Pages count from 1."""

    document: str
    page: int
    start: int
    end: int

    @property
    def range(self) -> tuple[tuple[str, int], int, int]:
        """As ``range_overlap`` takes it."""
        return (self.document, self.page), self.start, self.end


Occurrence = tuple[Span, ...]
"""One place of an excerpt: several spans where it runs over the end of a page."""

Item = tuple[str, int | None]
"""A page of a document, or with ``None`` the whole document."""


class Gold(msgspec.Struct, frozen=True):
    """What a search should find: pages or documents; with ``excerpts`` only passages that hold one are right."""

    items: frozenset[Item]
    excerpts: tuple[tuple[Occurrence, ...], ...] = ()


def judge(found: Sequence[Span], gold: Gold) -> dict[str, float]:
    """The measures of a ranking, each in 0..1.

    hit@k and mrr go by the first right passage. recall@k is the share of gold pages (or documents) among the first k
    passages. In ndcg@10 a further passage of a page that was found already keeps its place and gains nothing.
    excerpt_recall@k is the share of the excerpts' characters that the first k passages hold (of an excerpt that
    stands in several places, in the best of them), excerpt_precision@k the share of those passages that is excerpt.
    """
    items = [right_item(span, gold) for span in found]
    rank = first_rank(items, gold.items)
    judged = {f"hit@{k}": float(rank is not None and rank <= k) for k in PLACES}
    judged["mrr"] = 1 / rank if rank else 0.0
    first_seen = [None if item in items[:place] else item for place, item in enumerate(items)]
    grades: dict[Item | None, int] = dict.fromkeys(gold.items, 1)
    judged["ndcg@10"] = ndcg(first_seen, grades)
    judged |= {f"recall@{k}": len(gold.items.intersection(items[:k])) / len(gold.items) for k in DEPTHS}
    if gold.excerpts:
        for k in DEPTHS:
            judged[f"excerpt_recall@{k}"], judged[f"excerpt_precision@{k}"] = _coverage(found[:k], gold.excerpts)
    return judged


def right_item(span: Span, gold: Gold) -> Item | None:
    """The gold page or document that a passage stands for; ``None`` for a wrong one."""
    page, document = (span.document, span.page), (span.document, None)
    if gold.excerpts:
        spans = (one for excerpt in gold.excerpts for occurrence in excerpt for one in occurrence)
        return page if any(_holds(span, one) for one in spans) else None
    return next((item for item in (page, document) if item in gold.items), None)


def _holds(passage: Span, excerpt: Span) -> bool:
    if (passage.document, passage.page) != (excerpt.document, excerpt.page):
        return False
    common = min(passage.end, excerpt.end) - max(passage.start, excerpt.start)
    return common > 0 and common >= _ENOUGH * min(excerpt.end - excerpt.start, passage.end - passage.start)


def _coverage(found: Sequence[Span], excerpts: Sequence[Sequence[Occurrence]]) -> tuple[float, float]:
    """Recall and precision of the excerpts' characters."""
    ranges = [span.range for span in found]
    covered = length = 0.0
    for occurrences in excerpts:
        best = max((range_overlap(ranges, [one.range for one in spans])[0], _length(spans)) for spans in occurrences)
        covered += best[0] * best[1]
        length += best[1]
    every = [span.range for occurrences in excerpts for spans in occurrences for span in spans]
    return covered / length, range_overlap(ranges, every)[1]


def _length(spans: Occurrence) -> int:
    return sum(span.end - span.start for span in spans)
