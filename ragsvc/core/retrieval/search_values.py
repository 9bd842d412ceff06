"""The values of a search: query, hits and result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec

from ragsvc.core.defaults import DEFAULT_COLLECTION, DEFAULT_TOP_K, MAX_DOCUMENT_IDS
from ragsvc.core.documents import CitedFile, StoredPassage
from ragsvc.core.retrieval.explanations import ScorePart
from ragsvc.core.retrieval.filters import Filter

DocumentIds = Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_DOCUMENT_IDS)]
"""Public ids of the documents to search. An empty list is refused: it would find nothing."""


class SearchMode(StrEnum):
    """Which scores rank the passages: cosine and BM25, the cosine alone, or BM25 alone."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A search in one collection. ``document_ids`` are public ids; ``min_score`` is in 0..1.

    ``dense_weight`` (0..1) is the weight of the cosine in a hybrid search, BM25 gets the rest; ``None`` is the
    evaluated mixture, which also uses the names of documents. ``may_rerank`` is ``False`` for the order of these scores
    where a reranker would order the passages. ``explain`` asks for the parts of the scores.
    ``with_files``: the result has the files of the documents.
    """

    text: str
    collection: str = DEFAULT_COLLECTION
    document_ids: Sequence[str] | None = None
    filters: Filter | None = None
    top_k: int = DEFAULT_TOP_K
    mode: SearchMode = SearchMode.HYBRID
    min_score: float = 0.0
    rerank: bool = False
    may_rerank: bool = True
    dense_weight: float | None = None
    explain: bool = False
    with_files: bool = False


class SearchHit(msgspec.Struct, frozen=True):
    """A passage with its scores in 0..1. ``dense`` and ``lexical`` are ``None`` if that index did not return it."""

    passage: StoredPassage
    score: float
    dense: float | None = None
    lexical: float | None = None
    parts: tuple[ScorePart, ...] = ()


class SearchResult(msgspec.Struct, frozen=True):
    """Hits, best first, and the evidence in 0..1 that the documents contain an answer.

    There is no answer if ``answerable`` is below ``answerability.ABSTAIN_BELOW``. ``files`` are those of the
    documents of the hits, by the public ids of the documents, if the query asked for them.
    """

    hits: list[SearchHit]
    answerable: float
    timings_ms: dict[str, float] = {}
    files: Mapping[str, CitedFile] = {}
