"""Search: dense and lexical candidates of one collection, fused, optionally reranked, with what a citation needs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet

import anyio
import msgspec
import numpy as np
from sqlalchemy import Connection

from ragsvc.core.documents import Collection, StoredPassage
from ragsvc.core.errors import CollectionNotFound, InvalidRequest
from ragsvc.core.ids import CollectionId, TenantId
from ragsvc.core.ports.embedding import Reranker, Vectors
from ragsvc.core.ports.indexes import Ids
from ragsvc.core.retrieval.answerability import (
    BEST_PASSAGES,
    BETWEEN_TEXTS,
    RARITY_CANDIDATES,
    AnswerabilityEvidence,
    answerable,
)
from ragsvc.core.retrieval.ranking import (
    CANDIDATES,
    OPENING_CHARACTERS,
    Candidate,
    SearchCandidates,
    complete_cosines,
    join,
    name_and_title,
    rank,
)
from ragsvc.core.retrieval.search import DEFAULT_COLLECTION, SearchHit, SearchMode, SearchQuery, SearchResult
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.store import document_rows as rows
from ragsvc.store.database import Database
from ragsvc.store.passage_rows import load_joined_texts, load_names, load_openings, load_pages, load_passages

_RERANKED = 40
_REMEMBERED_OPENINGS = 4096
_REMEMBERED_COLLECTIONS = 10_000
_RERANK_THREADS = 2
_LOADING_THREADS = 4


class SearchService:
    """Implements the port ``Searcher``."""

    def __init__(
        self,
        *,
        database: Database,
        spaces: EmbeddingSpaces,
        settled: Callable[[CollectionId], Awaitable[None]],
        reranker: Reranker | None = None,
    ) -> None:
        """``settled`` returns when all that clients were told is ready in a collection is searchable."""
        self._database = database
        self._spaces = spaces
        self._settled = settled
        self._reranker = reranker
        self._limiter = anyio.CapacityLimiter(_RERANK_THREADS)
        self._loading = anyio.CapacityLimiter(_LOADING_THREADS)
        self._openings: dict[int, str] = {}
        self._collections: dict[tuple[TenantId, str], Collection] = {}

    async def search(self, tenant: TenantId, query: SearchQuery) -> SearchResult:
        """Find passages; see the port ``Searcher``."""
        if not query.text.strip():
            raise InvalidRequest("the query is empty", param="query")
        if query.rerank and self._reranker is None:
            raise InvalidRequest("no reranker is configured (RAGSVC_RERANKER_MODEL)", param="rerank")
        scope = await self._scope(tenant, query)
        if scope is None or (scope.documents is not None and not scope.documents.size):
            return SearchResult(hits=[], answerable=0.0)
        await self._settled(scope.collection.id)
        space = self._spaces.serving
        if not space.indexes.is_loaded(scope.collection.id):  # seconds, which must not be taken from the rows' readers
            await anyio.to_thread.run_sync(space.indexes.get, scope.collection.id, limiter=self._loading)
        resolved = time.perf_counter()
        vector = None if query.mode is SearchMode.LEXICAL else await space.batcher.embed_query(query.text)
        embedded = time.perf_counter()
        found = await self._database.on_reader(lambda: self._find(space, scope, vector, query))
        ranked = found.candidates
        if query.rerank and self._reranker is not None:
            ranked = await self._rerank(self._reranker, query.text, ranked, found.passages)
        hits = [
            SearchHit(passage=found.passages[one.id], score=one.score, dense=one.dense, lexical=one.lexical)
            for one in ranked
            if one.score >= query.min_score
        ]
        rank_s = time.perf_counter() - embedded - found.search_s
        timings = {"embed": embedded - resolved, "search": found.search_s, "rank": rank_s}
        return SearchResult(
            hits=hits[: query.top_k],
            answerable=found.answerable,
            timings_ms={name: round(seconds * 1000, 2) for name, seconds in timings.items()},
        )

    async def _scope(self, tenant: TenantId, query: SearchQuery) -> _Scope | None:
        """Where to search; a collection, once made, stays what it is."""
        name = (tenant, query.collection)
        if query.document_ids is None and query.filters is None and (known := self._collections.get(name)):
            return _Scope(collection=known, documents=None)
        scope = await self._database.read(lambda connection: _resolve(connection, tenant, query))
        if scope is not None:
            if len(self._collections) >= _REMEMBERED_COLLECTIONS:
                self._collections.clear()
            self._collections[name] = scope.collection
        return scope

    def _find(self, space: EmbeddingSpace, scope: _Scope, vector: Vectors | None, query: SearchQuery) -> _Best:
        """Candidates and their ranking, all on one thread: a hop between threads costs as much as each step."""
        begin = time.perf_counter()
        found = _candidates(space, scope, vector, query)  # may load the indexes, which reads rows itself
        familiar = query.mode is not SearchMode.HYBRID or space.knows(query.text)
        search_s = time.perf_counter() - begin
        best = self._database.read_sync(lambda connection: self._rank(connection, query, found, familiar=familiar))
        return msgspec.structs.replace(best, search_s=search_s)

    def _rank(self, connection: Connection, query: SearchQuery, found: SearchCandidates, *, familiar: bool) -> _Best:
        names = load_names(connection, set(found.documents.tolist()))
        ranked = rank(
            query.text,
            query.mode,
            found,
            names={document: name_and_title(*name) for document, name in names.items()},
            openings=self._openings_of(connection, names.keys()) if query.mode is SearchMode.HYBRID else {},
            pages_of=lambda ids: load_pages(connection, ids),
            familiar=familiar,
        )
        ranked, passages = _load_best(
            connection, ranked, _RERANKED if query.rerank else max(query.top_k, BEST_PASSAGES)
        )
        among = [one.id for one in ranked[:RARITY_CANDIDATES]]
        evidence = AnswerabilityEvidence(
            passages=list(passages.values()),
            cosines=[one.dense or 0.0 for one in ranked[:BEST_PASSAGES]],
            joined_texts=lambda: load_joined_texts(connection, among, between=BETWEEN_TEXTS),
        )
        return _Best(ranked[: len(passages)], passages, answerable(query.text, evidence))

    def _openings_of(self, connection: Connection, documents: AbstractSet[int]) -> dict[int, str]:
        """What candidates' documents begin with; a ready document's text never changes, so it may be remembered."""
        known = self._openings  # readers share it, so it is replaced, never changed
        missing = documents - known.keys()
        if not missing:
            return known
        if len(known) + len(missing) > _REMEMBERED_OPENINGS:
            known, missing = {}, set(documents)
        loaded = load_openings(connection, sorted(missing), characters=OPENING_CHARACTERS)
        self._openings = known = {**known, **{one: loaded.get(one, "") for one in missing}}
        return known

    async def _rerank(
        self,
        reranker: Reranker,
        text: str,
        ranked: Sequence[Candidate],
        passages: dict[int, StoredPassage],
    ) -> list[Candidate]:
        texts = [passages[one.id].text for one in ranked]
        scores = await anyio.to_thread.run_sync(reranker.score, text, texts, limiter=self._limiter)
        rescored = [
            msgspec.structs.replace(one, score=round(float(score), 4))
            for one, score in zip(ranked, scores, strict=True)
        ]
        return sorted(rescored, key=lambda one: -one.score)


def _candidates(space: EmbeddingSpace, scope: _Scope, vector: Vectors | None, query: SearchQuery) -> SearchCandidates:
    indexes, collection_id = space.indexes, scope.collection.id
    text = None if query.mode is SearchMode.DENSE else query.text
    sides = indexes.search(collection_id, vector, text, k=max(CANDIDATES, query.top_k), documents=scope.documents)
    found = join(*sides, documents_of=lambda ids: indexes.documents_of(collection_id, ids))
    if vector is None or text is None:
        return found
    return complete_cosines(found, query=vector, vectors_of=lambda ids: indexes.vectors(collection_id, ids))


def _load_best(
    connection: Connection, ranked: list[Candidate], count: int
) -> tuple[list[Candidate], dict[int, StoredPassage]]:
    """Rows of the first ``count`` candidates, best first, and the candidates without those whose rows are gone."""
    while True:
        best = [one.id for one in ranked[:count]]
        rows = load_passages(connection, best)
        if len(rows) == len(best):
            return ranked, {one: rows[one] for one in best}
        gone = set(best) - rows.keys()
        ranked = [one for one in ranked if one.id not in gone]


class _Best(msgspec.Struct, frozen=True):
    """The best candidates with their rows, best first, the evidence for an answer, and the seconds of finding them."""

    candidates: list[Candidate]
    passages: dict[int, StoredPassage]
    answerable: float
    search_s: float = 0.0


class _Scope(msgspec.Struct, frozen=True):
    """Where to search: a collection, and the documents if not all."""

    collection: Collection
    documents: Ids | None


def _resolve(connection: Connection, tenant: TenantId, query: SearchQuery) -> _Scope | None:
    """Resolve names to rows; ``None`` for a tenant that has not uploaded anything to the default collection yet."""
    try:
        collection = rows.find_collection(connection, tenant, query.collection)
    except CollectionNotFound:
        if query.collection == DEFAULT_COLLECTION and not query.document_ids:
            return None
        raise
    documents: Ids | None = None
    if query.document_ids is not None:
        documents = np.array(rows.resolve_ids(connection, collection.id, list(query.document_ids)), dtype=np.int64)
    if query.filters is not None:
        matching = np.array(rows.ids_matching(connection, collection.id, query.filters), dtype=np.int64)
        documents = matching if documents is None else np.intersect1d(documents, matching)
    return _Scope(collection=collection, documents=None if documents is None else np.unique(documents))
