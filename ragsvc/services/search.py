"""Search: passages of one collection, found, ranked, optionally reranked, with what a citation needs."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import TypeAlias

import anyio
import msgspec
import numpy as np
from sqlalchemy import Connection

from ragsvc.core.defaults import DEFAULT_COLLECTION, DEFAULT_RERANK_BUDGET_MS
from ragsvc.core.documents import CitedFile, Collection, StoredPassage
from ragsvc.core.errors import CollectionNotFound
from ragsvc.core.ids import CollectionId, DocumentId, TenantId
from ragsvc.core.observation import ObservedOperation, Observer
from ragsvc.core.ports.embedding import Reranker, Vectors
from ragsvc.core.ports.indexes import DocumentJudgement, Hits, Ids, Indexes
from ragsvc.core.retrieval.answerability import BETWEEN_TEXTS
from ragsvc.core.retrieval.document_questions import DocumentQuestion
from ragsvc.core.retrieval.early_passages import EarlyIndexes, EarlyRows
from ragsvc.core.retrieval.explanations import ScorePartName, score_part
from ragsvc.core.retrieval.passage_search import CollectionIndexes, PassageRows, RankedPassages, search_passages
from ragsvc.core.retrieval.ranking import OPENING_CHARACTERS, Candidate, name_and_title
from ragsvc.core.retrieval.search_values import SearchHit, SearchMode, SearchQuery, SearchResult
from ragsvc.core.validation import check_not_blank, invalid_value
from ragsvc.services.early_pages import EarlyPages
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.store_names import StoreNames
from ragsvc.store import document_rows as rows
from ragsvc.store.cited_file_rows import cited_files
from ragsvc.store.database import Database
from ragsvc.store.passage_rows import (
    load_asked_passages,
    load_names,
    load_openings,
    load_passages,
    load_texts,
)
from ragsvc.store.searchable_documents import being_ingested

_RERANKED = 40
_REMEMBERED_OPENINGS = 4096
_REMEMBERED_COLLECTIONS = 10_000
_RERANK_THREADS = 2
_RERANK_BATCH = 4
_LOADING_THREADS = 4
_LONGEST_REMEMBERED_BYTES = 16 << 10
_ENTRY_BYTES = 150
"""Memory of an entry of a cache besides its text."""

_BETWEEN = BETWEEN_TEXTS.encode()
_NO_FILES: Mapping[str, CitedFile] = MappingProxyType({})
_Found: TypeAlias = tuple[RankedPassages, Mapping[str, CitedFile], float]
"""The ranked passages, the files of their documents if wanted, and the seconds until the indexes had answered."""


class SearchService:
    """Implements the port ``Searcher``."""

    def __init__(
        self,
        *,
        database: Database,
        spaces: EmbeddingSpaces,
        settled: Callable[[CollectionId], Awaitable[None]],
        reranker: Reranker | None = None,
        rerank_budget_s: float = DEFAULT_RERANK_BUDGET_MS / 1000,
        observer: Observer | None = None,
        searched: Callable[[CollectionId], None] = lambda _: None,
        early: EarlyPages | None = None,
    ) -> None:
        """``settled`` returns when every document reported as ready in a collection is searchable.

        ``reranker`` orders the best passages of every hybrid search, and of others on request, within
        ``rerank_budget_s``. ``searched`` is called with the collection of each search. ``early`` has the pages of
        documents that are being parsed.
        """
        self._searched = searched
        self._early = early
        self._database = database
        self._spaces = spaces
        self._settled = settled
        self._reranker = reranker
        self._observer = observer or Observer()
        self._rerank_budget_s = rerank_budget_s
        self._limiter = anyio.CapacityLimiter(_RERANK_THREADS)
        self._loading = anyio.CapacityLimiter(_LOADING_THREADS)
        self._openings = OpeningCache()
        self._texts = TextCache()
        self.store_names = StoreNames()
        """The collections of vector stores; ``forget_collections`` forgets them as well."""
        self._collections: dict[tuple[TenantId, str], Collection] = {}
        self._deletions = 0

    async def search(self, tenant: TenantId, query: SearchQuery) -> SearchResult:
        """Find passages; see the port ``Searcher``."""
        with self._observer.operation("search", mode=query.mode.value) as observed:
            return await self._search(tenant, query, observed)

    async def _search(self, tenant: TenantId, query: SearchQuery, observed: ObservedOperation) -> SearchResult:
        check_not_blank("query", query.text)
        if query.rerank and self._reranker is None:
            raise invalid_value("rerank", "No reranker is configured; set RAGSVC_RERANKER_MODEL")
        scope = await self._scope(tenant, query)
        if scope is not None:
            self._searched(scope.collection.id)
        if scope is None or (scope.documents is not None and not scope.documents.size):
            return SearchResult(hits=[], answerable=0.0)
        await self._settled(scope.collection.id)
        space = self._spaces.serving
        if not space.indexes.is_loaded(scope.collection.id):  # takes seconds, and must not block the database readers
            await anyio.to_thread.run_sync(space.indexes.load, scope.collection.id, limiter=self._loading)
        resolved = time.perf_counter()
        asked = _asked(space, scope, query)
        found, files, embedded, search_s = await self._embed_and_find(space, scope, asked, query, observed)
        ranked = found.candidates
        if self._reranker is not None and self._is_reranked(query):
            with observed.stage("rerank"):
                ranked = await self._rerank(self._reranker, query.text, ranked, found.passages)
        hits = [
            SearchHit(
                passage=found.passages[candidate.id],
                score=candidate.score,
                dense=candidate.dense,
                lexical=candidate.lexical,
                parts=candidate.parts,
            )
            for candidate in ranked
            if candidate.score >= query.min_score
        ]
        rank_s = time.perf_counter() - embedded - search_s
        timings = {"embed": embedded - resolved, "search": search_s, "rank": rank_s}
        return SearchResult(
            hits=hits[: query.top_k],
            answerable=found.answerable,
            timings_ms={name: round(seconds * 1000, 2) for name, seconds in timings.items()},
            files=files,
        )

    async def _embed_and_find(
        self, space: EmbeddingSpace, scope: _Scope, asked: _Asked, query: SearchQuery, observed: ObservedOperation
    ) -> tuple[RankedPassages, Mapping[str, CitedFile], float, float]:
        """The results of ``_find``, and in front of its seconds the time at which the vectors were known.

        Both steps run on one thread, unless each is a span of a trace. Two texts are embedded on two threads.
        """
        if len(asked.texts) == 1 and not observed.is_traced:
            begun = time.perf_counter()

            def find(vectors: Sequence[Vectors]) -> tuple[_Question, _Found | None, float]:
                embedded = time.perf_counter()
                question = asked.question(vectors)
                try:
                    return question, self._find(space, scope, question, query), embedded
                except _DocumentsStored:
                    return question, None, embedded

            question, found, embedded = await space.batcher.with_queries(asked.texts, find)
            if found is None:
                found = await self._find_again(space, scope, question, query)
            passages, files, search_s = found
            observed.stage_ended("embed", embedded - begun)
            observed.stage_ended("find", time.perf_counter() - embedded)
            return passages, files, embedded, search_s
        with observed.stage("embed"):
            vectors = await asyncio.gather(*(space.batcher.embed_query(text) for text in asked.texts))
        embedded = time.perf_counter()
        with observed.stage("find"):
            passages, files, search_s = await self._find_settled(space, scope, asked.question(vectors), query)
        return passages, files, embedded, search_s

    async def check(self, tenant: TenantId, query: SearchQuery) -> None:
        """Check the names in a query; see the port ``Searcher``."""
        await self._scope(tenant, query)

    def forget_collections(self, tenant: TenantId) -> None:
        """Look up the names of a tenant's collections again, because one was deleted."""
        self._deletions += 1
        self.store_names.forget(tenant)
        self._collections = {name: known for name, known in self._collections.items() if name[0] != tenant}

    def _is_reranked(self, query: SearchQuery) -> bool:
        is_usual = self._reranker is not None and query.mode is SearchMode.HYBRID and query.may_rerank
        return query.rerank or is_usual

    async def _scope(self, tenant: TenantId, query: SearchQuery) -> _Scope | None:
        """Where to search. A collection's row does not change until it is deleted, so it may be remembered."""
        name = (tenant, query.collection)
        if query.document_ids is None and query.filters is None and (known := self._collections.get(name)):
            return _Scope(collection=known, documents=None)
        deletions = self._deletions
        early = () if self._early is None else self._early.document_ids()
        scope = await self._database.read(lambda connection: _resolve(connection, tenant, query, early))
        if scope is not None and deletions == self._deletions:  # it may have been deleted since the read began
            if len(self._collections) >= _REMEMBERED_COLLECTIONS:
                self._collections.clear()
            self._collections[name] = scope.collection
        return scope

    async def _find_settled(
        self, space: EmbeddingSpace, scope: _Scope, question: _Question, query: SearchQuery
    ) -> _Found:
        """``_find``, and once more if the passages of a document were stored between its two steps."""
        try:
            return await self._database.on_reader(lambda: self._find(space, scope, question, query))
        except _DocumentsStored:
            return await self._find_again(space, scope, question, query)

    async def _find_again(
        self, space: EmbeddingSpace, scope: _Scope, question: _Question, query: SearchQuery
    ) -> _Found:
        await self._settled(scope.collection.id)
        find = functools.partial(self._find, space, scope, question, query, may_repeat=False)
        return await self._database.on_reader(find)

    def _find(
        self,
        space: EmbeddingSpace,
        scope: _Scope,
        question: _Question,
        query: SearchQuery,
        *,
        may_repeat: bool = True,
    ) -> _Found:
        """Search and rank, the files of the documents if wanted, and the seconds until the indexes had answered.

        All of it runs on one thread: a hop between threads costs as much as each step.

        Raises:
            _DocumentsStored: if ``may_repeat``; the passages of a document took the place of its early ones meanwhile.
        """
        begin = searched = time.perf_counter()
        files: Mapping[str, CitedFile] = _NO_FILES
        early = None if self._early is None else self._early.of(scope.collection.id)
        indexes: CollectionIndexes = _OneCollection(space.indexes, scope.collection.id)
        if early is not None:
            indexes = EarlyIndexes(indexes, early)

        def read_rows(work: Callable[[PassageRows], RankedPassages]) -> RankedPassages:
            nonlocal searched
            searched = time.perf_counter()
            return self._database.read_sync(lambda connection: rank(connection, work))

        def rank(connection: Connection, work: Callable[[PassageRows], RankedPassages]) -> RankedPassages:
            nonlocal files
            rows: PassageRows = DatabaseRows(connection, self._openings, scope.collection.id, texts=self._texts)
            if early is not None:
                living = being_ingested(connection, early.documents)
                if may_repeat and early.documents - living.keys():
                    raise _DocumentsStored
                rows = EarlyRows(rows, early, living)
            ranked = work(rows)
            if query.with_files and ranked.passages:
                files = cited_files(connection, {passage.document_id for passage in ranked.passages.values()})
            return ranked

        ranked = search_passages(
            query,
            question.vector,
            indexes=indexes,
            read_rows=read_rows,
            knows_words=space.knows,
            count=max(_RERANKED, query.top_k) if self._is_reranked(query) else query.top_k,
            documents=scope.documents,
            judgement=question.judgement,
            rest_vector=question.rest_vector,
        )
        return ranked, files, searched - begin

    async def _rerank(
        self,
        reranker: Reranker,
        text: str,
        ranked: Sequence[Candidate],
        passages: Mapping[int, StoredPassage],
    ) -> list[Candidate]:
        """The scored candidates, best first; those that were not scored in time follow in their order.

        Passages that the question asks for by page or document (their score is 1) stay first. A candidate that was not
        scored gets at most the lowest of the new scores, so that scores descend.
        """
        asked_for = [candidate for candidate in ranked if candidate.score >= 1.0]
        ranked = ranked[len(asked_for) :]
        deadline = time.monotonic() + self._rerank_budget_s
        texts = [passages[candidate.id].text for candidate in ranked]
        work = functools.partial(score_in_time, reranker, text, texts, deadline=deadline)
        scores = await anyio.to_thread.run_sync(work, limiter=self._limiter)
        rescored = [
            _reranked(candidate, round(float(score), 4)) for candidate, score in zip(ranked, scores, strict=False)
        ]
        rescored.sort(key=lambda candidate: -candidate.score)
        lowest = rescored[-1].score if rescored else 1.0
        others = ranked[len(scores) :]
        return rescored + [_not_reranked(candidate, highest=lowest) for candidate in others]


def _reranked(candidate: Candidate, score: float) -> Candidate:
    parts = (score_part(ScorePartName.RERANKER, score),) if candidate.parts else ()
    return msgspec.structs.replace(candidate, score=score, parts=parts)


def _not_reranked(candidate: Candidate, *, highest: float) -> Candidate:
    """A candidate that was not scored in time, with at most the score ``highest``."""
    excess = candidate.score - highest
    if excess <= 0:
        return candidate
    parts = (*candidate.parts, score_part(ScorePartName.NOT_RERANKED, -excess)) if candidate.parts else ()
    return msgspec.structs.replace(candidate, score=highest, parts=parts)


def score_in_time(reranker: Reranker, query: str, texts: Sequence[str], *, deadline: float) -> list[float]:
    """The scores of the first texts, as many as can be computed before ``deadline`` (of ``time.monotonic``).

    Texts are scored in small batches; a batch is begun if the time of the slowest one so far remains. The first batch
    is always scored, unless the deadline has passed.
    """
    scores: list[float] = []
    slowest_s = 0.0
    for begin in range(0, len(texts), _RERANK_BATCH):
        started = time.monotonic()
        if started + slowest_s >= deadline:
            break
        scores += reranker.score(query, texts[begin : begin + _RERANK_BATCH]).tolist()
        slowest_s = max(slowest_s, time.monotonic() - started)
    return scores


class _DocumentsStored(Exception):
    """The indexes were searched before the passages of a document were stored, the rows after it."""


class OpeningCache:
    """The openings of documents by document id. A ready document's text never changes, so they stay valid.

    Reader threads share the mapping; it is replaced and never changed in place.
    """

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, connection: Connection, documents: AbstractSet[int]) -> Mapping[int, str]:
        """Openings of at least these documents."""
        known = self._known
        missing = documents - known.keys()
        if not missing:
            return known
        if len(known) + len(missing) > _REMEMBERED_OPENINGS:
            known, missing = {}, set(documents)
        loaded = load_openings(connection, sorted(missing), characters=OPENING_CHARACTERS)
        self._known = known = {**known, **{document: loaded.get(document, "") for document in missing}}
        return known


class TextCache:
    """The texts of passages by id, for counting words in the candidates of a search.

    Consecutive searches of a collection have most candidates in common, and reading a hundred texts takes a quarter of
    a search. A passage's text never changes. Reader threads share the cache; the oldest texts make room.
    """

    def __init__(self, *, max_bytes: int = 8 << 20) -> None:
        self._max_bytes = max_bytes
        self._known: dict[int, bytes] = {}
        self._size_bytes = 0
        self._lock = threading.Lock()

    def joined(self, connection: Connection, ids: Sequence[int]) -> bytes:
        """The texts of those passages that exist, in any order, with ``BETWEEN_TEXTS`` between them."""
        known = self._known
        found = [known.get(passage) for passage in ids]
        texts = [text for text in found if text is not None]
        if len(texts) < len(found):
            loaded = load_texts(connection, [passage for passage, text in zip(ids, found, strict=True) if text is None])
            texts += loaded.values()
            self._remember(loaded)
        return _BETWEEN.join(texts)

    def _remember(self, loaded: Mapping[int, bytes]) -> None:
        with self._lock:
            for passage, text in loaded.items():
                if len(text) <= _LONGEST_REMEMBERED_BYTES and passage not in self._known:
                    self._known[passage] = text
                    self._size_bytes += len(text) + _ENTRY_BYTES
            while self._size_bytes > self._max_bytes:
                oldest = next(iter(self._known))
                self._size_bytes -= len(self._known.pop(oldest)) + _ENTRY_BYTES


class DatabaseRows:
    """Implements the protocol ``PassageRows`` over one connection."""

    def __init__(
        self,
        connection: Connection,
        openings: OpeningCache,
        collection_id: CollectionId | None = None,
        *,
        texts: TextCache | None = None,
    ) -> None:
        self._connection = connection
        self._openings = openings
        self._collection_id = collection_id
        self._texts = TextCache() if texts is None else texts

    def names(self, documents: Iterable[int]) -> Mapping[int, str]:
        found = load_names(self._connection, documents)
        return {document: name_and_title(*name) for document, name in found.items()}

    def openings(self, documents: AbstractSet[int]) -> Mapping[int, str]:
        return self._openings.of(self._connection, documents)

    def asked_passages(self, asked: DocumentQuestion, documents: Sequence[int]) -> Sequence[tuple[int, int]]:
        return load_asked_passages(self._connection, asked, documents=documents, collection_id=self._collection_id)

    def passages(self, ids: Sequence[int]) -> Mapping[int, StoredPassage]:
        return load_passages(self._connection, ids)

    def joined_texts(self, ids: Sequence[int]) -> bytes:
        return self._texts.joined(self._connection, ids)


class _OneCollection:
    """Implements the protocol ``CollectionIndexes`` over the registry. Its methods may load the indexes."""

    def __init__(self, indexes: Indexes, collection_id: CollectionId) -> None:
        self._indexes = indexes
        self._collection_id = collection_id

    def search(self, vector: Vectors | None, text: str | None, *, k: int, documents: Ids | None) -> tuple[Hits, Hits]:
        return self._indexes.search(self._collection_id, vector, text, k=k, documents=documents)

    def documents_of(self, ids: Ids) -> Ids:
        return self._indexes.documents_of(self._collection_id, ids)

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        return self._indexes.vectors(self._collection_id, ids)


class _Question(msgspec.Struct, frozen=True):
    """A question's vector, the documents that it names, and the vector of its other words."""

    vector: Vectors | None = None
    judgement: DocumentJudgement | None = None
    rest_vector: Vectors | None = None


class _Asked(msgspec.Struct, frozen=True):
    """The texts of a question to embed, the whole one first, and the documents that it names."""

    texts: tuple[str, ...] = ()
    judgement: DocumentJudgement | None = None

    def question(self, vectors: Sequence[Vectors]) -> _Question:
        """The question with the vectors of ``texts``."""
        if not self.texts:
            return _Question()
        return _Question(vectors[0], self.judgement, None if self.judgement is None else vectors[-1])


def _asked(space: EmbeddingSpace, scope: _Scope, query: SearchQuery) -> _Asked:
    """Judge the documents; what remains of a question that names some is embedded as well."""
    if query.mode is SearchMode.LEXICAL:
        return _Asked()
    if query.mode is SearchMode.DENSE or query.dense_weight is not None:
        return _Asked((query.text,))
    judgement = space.indexes.judge_documents(scope.collection.id, query.text, documents=scope.documents)
    if not judgement.is_useful or judgement.rest == query.text:
        return _Asked((query.text,), judgement)
    return _Asked((query.text, judgement.rest), judgement)


class _Scope(msgspec.Struct, frozen=True):
    """Where to search: a collection, and the ids of its documents unless all are searched."""

    collection: Collection
    documents: Ids | None


def _resolve(
    connection: Connection, tenant: TenantId, query: SearchQuery, early: Sequence[DocumentId]
) -> _Scope | None:
    """Resolve names to rows; ``None`` where the default collection does not exist yet, because it is empty.

    ``early`` are documents that are searchable although they are being parsed.
    """
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
        matching = np.array(rows.ids_matching(connection, collection.id, query.filters, also=early), dtype=np.int64)
        documents = matching if documents is None else np.intersect1d(documents, matching)
    return _Scope(collection=collection, documents=None if documents is None else np.unique(documents))
