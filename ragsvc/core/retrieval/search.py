"""Values of a search: what is asked, what is found."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from ragsvc.core.defaults import DEFAULT_TOP_K
from ragsvc.core.documents import StoredPassage
from ragsvc.core.retrieval.filters import Filter

DEFAULT_COLLECTION = "default"


class SearchMode(StrEnum):
    """Which evidence ranks passages."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One search in one collection. ``document_ids`` are public ids; ``min_score`` is in 0..1."""

    text: str
    collection: str = DEFAULT_COLLECTION
    document_ids: Sequence[str] | None = None
    filters: Filter | None = None
    top_k: int = DEFAULT_TOP_K
    mode: SearchMode = SearchMode.HYBRID
    min_score: float = 0.0
    rerank: bool = False


class SearchHit(msgspec.Struct, frozen=True):
    """A passage with its scores in 0..1; ``dense`` and ``lexical`` are ``None`` where that side did not see it."""

    passage: StoredPassage
    score: float
    dense: float | None = None
    lexical: float | None = None


class SearchResult(msgspec.Struct, frozen=True):
    """Hits, best first. ``answerable`` in 0..1 is the calibrated evidence that the documents hold an answer at all."""

    hits: list[SearchHit]
    answerable: float = 1.0
    timings_ms: dict[str, float] = {}
