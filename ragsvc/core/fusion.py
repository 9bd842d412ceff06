"""Fuses dense and lexical candidates into one ranking."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from ragsvc.core.documents import StoredPassage
from ragsvc.core.ports import Hits
from ragsvc.core.retrieval import SearchMode

_DENSE_WEIGHT = 0.6


class Candidate(msgspec.Struct, frozen=True):
    """A passage in the ranking; scores in 0..1."""

    id: int
    score: float
    dense: float | None
    lexical: float | None


class Ranking(msgspec.Struct, frozen=True):
    """Candidates, best first, and the evidence (0..1) that they hold an answer."""

    candidates: list[Candidate]
    answerable: float


def fuse(query: str, mode: SearchMode, *, dense: Hits, lexical: Hits, passages: Mapping[int, StoredPassage]) -> Ranking:
    """Combine normalised scores linearly; candidates whose rows are gone are dropped."""
    del query
    dense_scores = dict(zip(dense.ids.tolist(), np.clip(dense.scores, 0, 1).tolist(), strict=True))
    top = float(lexical.scores[0]) if len(lexical.scores) else 1.0
    lexical_scores = dict(zip(lexical.ids.tolist(), (lexical.scores / max(top, 1e-9)).tolist(), strict=True))
    weight = {SearchMode.DENSE: 1.0, SearchMode.LEXICAL: 0.0, SearchMode.HYBRID: _DENSE_WEIGHT}[mode]
    candidates = [
        Candidate(
            id=one,
            score=round(weight * dense_scores.get(one, 0.0) + (1 - weight) * lexical_scores.get(one, 0.0), 4),
            dense=dense_scores.get(one),
            lexical=lexical_scores.get(one),
        )
        for one in passages
    ]
    candidates.sort(key=lambda one: -one.score)
    return Ranking(candidates, candidates[0].score if candidates else 0.0)
