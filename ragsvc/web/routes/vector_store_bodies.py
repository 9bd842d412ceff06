"""Bodies of the routes of vector stores, in the shapes of OpenAI's API. ``null`` means the same as a missing field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ragsvc.core.defaults import MAX_QUERY_LENGTH
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.ids import chunk_id
from ragsvc.core.ports.parsing import ChunkingOptions
from ragsvc.core.retrieval.conversation_query import Turn, make_query
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.core.text.tables import passage_text
from ragsvc.core.validation import invalid_value, missing_value
from ragsvc.core.vector_stores import (
    FileBatch,
    FileCounts,
    LastErrorCode,
    StoreFile,
    StoreFileStatus,
    VectorStore,
    last_error_code,
)
from ragsvc.services.store_files import StoreFileDraft
from ragsvc.services.vector_stores import StorePassage

MAX_BATCH_FILES = 2000
_MAX_QUERIES = 16
_Pairs = Meta(max_length=16)
_Key = Annotated[str, Meta(min_length=1, max_length=64)]
_Text = Annotated[str, Meta(max_length=512)]
_Metadata = Annotated[dict[_Key, _Text], _Pairs]
Attributes = Annotated[dict[_Key, _Text | bool | int | float], _Pairs]
_FileId = Annotated[str, Meta(min_length=1, max_length=100)]
_Name = Annotated[str, Meta(max_length=512)]
_Query = Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_LENGTH)]
_Weight = Annotated[float, Meta(ge=0, le=1e6)]


class StoreExpiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vector store expires this many days after its last use: a search, an added file, or a change."""

    anchor: Literal["last_active_at"]
    days: Annotated[int, Meta(ge=1, le=365)]


class StaticChunking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes in tokens. A request's are accepted and not used; a response's are those used."""

    max_chunk_size_tokens: Annotated[int, Meta(ge=1, le=4096)]
    chunk_overlap_tokens: Annotated[int, Meta(ge=0, le=2048)]


class ChunkingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to cut files. The service cuts as its embedding model needs it, and says so in the response."""

    type: Literal["auto", "static"]
    static: StaticChunking | None = None

    def check(self, path: str) -> None:
        """Refuse what OpenAI refuses. Raises ``InvalidRequest``."""
        if self.static is None:
            if self.type == "static":
                raise missing_value(f"{path}.static")
            return
        if self.static.max_chunk_size_tokens < 100:
            raise invalid_value(f"{path}.static.max_chunk_size_tokens", "Expected `int` >= 100")
        if 2 * self.static.chunk_overlap_tokens > self.static.max_chunk_size_tokens:
            raise invalid_value(
                f"{path}.static.chunk_overlap_tokens", "Expected at most half of `max_chunk_size_tokens`"
            )


class CreateVectorStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A vector store to create, with files if ``file_ids`` names some."""

    name: _Name | None = None
    description: _Text | None = None
    file_ids: Annotated[list[_FileId], Meta(max_length=MAX_BATCH_FILES)] | None = None
    metadata: _Metadata | None = None
    expires_after: StoreExpiry | None = None
    chunking_strategy: ChunkingRequest | None = None


class UpdateVectorStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields to change. ``metadata`` replaces the former metadata."""

    name: _Name | None = None
    description: _Text | None = None
    metadata: _Metadata | None = None
    expires_after: StoreExpiry | None = None


class AddFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file to add to a vector store. ``attributes`` can be used in filters."""

    file_id: _FileId
    attributes: Attributes | None = None
    chunking_strategy: ChunkingRequest | None = None

    def draft(self, path: str = "") -> StoreFileDraft:
        """The checked values. Raises ``InvalidRequest``."""
        if self.chunking_strategy is not None:
            self.chunking_strategy.check(f"{path}chunking_strategy")
        return StoreFileDraft(file_id=self.file_id, attributes=self.attributes)


class UpdateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The attributes that replace the former attributes of a file."""

    attributes: Attributes | None = None


class CreateFileBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files to add: either ``file_ids`` with common attributes, or ``files`` with attributes of their own."""

    file_ids: Annotated[list[_FileId], Meta(max_length=MAX_BATCH_FILES)] | None = None
    files: Annotated[list[AddFile], Meta(max_length=MAX_BATCH_FILES)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: ChunkingRequest | None = None

    def drafts(self) -> list[StoreFileDraft]:
        """The checked files. Raises ``InvalidRequest``."""
        if self.file_ids and self.files:
            raise InvalidRequest("'file_ids' and 'files' cannot be used together.", param="files")
        if self.chunking_strategy is not None:
            self.chunking_strategy.check("chunking_strategy")
        if self.files:
            return [file.draft(f"files[{index}].") for index, file in enumerate(self.files)]
        if not self.file_ids:
            raise missing_value("file_ids")
        return [StoreFileDraft(file_id=file_id, attributes=self.attributes) for file_id in self.file_ids]


class HybridSearch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the similarity of meaning and of the words in the score of a passage."""

    embedding_weight: _Weight
    text_weight: _Weight


class RankingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How passages are ranked. ``ranker`` ``none`` leaves out the reranker; the others use it if one is configured."""

    ranker: Annotated[str, Meta(max_length=100)] | None = None
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    hybrid_search: HybridSearch | None = None


class SearchVectorStore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search with one or several queries. ``rewrite_query`` removes greetings and polite phrases from them."""

    query: _Query | Annotated[list[_Query], Meta(min_length=1, max_length=_MAX_QUERIES)]
    filters: dict[str, Any] | None = None
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool | None = None

    def queries(self) -> list[SearchQuery]:
        """A search for each query. Raises ``InvalidRequest``."""
        texts = [self.query] if isinstance(self.query, str) else self.query
        if self.rewrite_query:
            texts = [make_query([Turn("user", text)]).text or text for text in texts]
        options = self.ranking_options or RankingOptions()
        mode, dense_weight = _fusion(options.hybrid_search)
        return [
            SearchQuery(
                text=text,
                filters=None if self.filters is None else parse_filter(self.filters),
                top_k=10 if self.max_num_results is None else self.max_num_results,
                mode=mode,
                dense_weight=dense_weight,
                min_score=options.score_threshold or 0.0,
                may_rerank=options.ranker != "none" and options.hybrid_search is None,
            )
            for text in dict.fromkeys(texts)
        ]


def _fusion(weights: HybridSearch | None) -> tuple[SearchMode, float | None]:
    """The search mode, and the share of the embedding's weight in a hybrid search."""
    if weights is None:
        return SearchMode.HYBRID, None
    both = weights.embedding_weight + weights.text_weight
    if both <= 0:
        raise invalid_value("ranking_options.hybrid_search", "Expected at least one weight above 0")
    if weights.text_weight == 0:
        return SearchMode.DENSE, None
    if weights.embedding_weight == 0:
        return SearchMode.LEXICAL, None
    return SearchMode.HYBRID, weights.embedding_weight / both


# -- responses -------------------------------------------------------------------------------------------------


class FileCountsOut(msgspec.Struct, frozen=True, kw_only=True):
    """Files by status."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStoreOut(msgspec.Struct, frozen=True, kw_only=True):
    """A vector store. ``collection`` is its name in ``/v1/rag``."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str | None
    description: str | None
    usage_bytes: int
    file_counts: FileCountsOut
    status: Literal["expired", "in_progress", "completed"]
    expires_after: StoreExpiry | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]
    collection: str


class VectorStoreList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of vector stores; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[VectorStoreOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The vector store was deleted; its files were not."""

    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: Literal[True] = True


class LastError(msgspec.Struct, frozen=True):
    """Why the ingest of a file failed."""

    code: LastErrorCode
    message: str


class StaticChunkingOut(msgspec.Struct, frozen=True, kw_only=True):
    """How the service cuts documents, whatever the request asked for."""

    type: Literal["static"] = "static"
    static: StaticChunking


class VectorStoreFileOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a vector store. ``document_id`` is its document in ``/v1/rag``, which files with equal bytes share."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    usage_bytes: int
    created_at: int
    vector_store_id: str
    status: StoreFileStatus
    last_error: LastError | None
    chunking_strategy: StaticChunkingOut
    attributes: dict[str, Any]
    document_id: str


class VectorStoreFileList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of files; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[VectorStoreFileOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreFileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The file was removed from the vector store; the file itself stays."""

    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True


class FileBatchOut(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of files."""

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: StoreFileStatus
    file_counts: FileCountsOut


class TextPart(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str


class FileContentPage(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a file, an entry for each of its pages; empty before the file is completed."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextPart]
    has_more: bool = False
    next_page: str | None = None
    file_id: str
    filename: str
    attributes: dict[str, Any]


class SearchResultOut(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of a file with its score in 0..1, and its place: the page, and the id of the passage."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[TextPart]
    document_id: str
    chunk_id: str
    page: int
    page_label: str | None


class SearchResultsPage(msgspec.Struct, frozen=True, kw_only=True):
    """Passages, best first; ``search_query`` are the queries that were searched."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResultOut]
    has_more: bool = False
    next_page: str | None = None


def counts_out(counts: FileCounts) -> FileCountsOut:
    """Convert counts for a response."""
    return FileCountsOut(
        in_progress=counts.in_progress,
        completed=counts.completed,
        failed=counts.failed,
        cancelled=counts.cancelled,
        total=counts.total,
    )


def store_out(store: VectorStore) -> VectorStoreOut:
    """Convert a vector store for a response."""
    status: Literal["expired", "in_progress", "completed"] = "completed"
    if store.expired:
        status = "expired"
    elif store.counts.in_progress:
        status = "in_progress"
    days = store.expires_after_days
    return VectorStoreOut(
        id=store.public_id,
        created_at=store.created_at,
        name=store.name,
        description=store.description,
        usage_bytes=store.usage_bytes,
        file_counts=counts_out(store.counts),
        status=status,
        expires_after=None if days is None else StoreExpiry("last_active_at", days),
        expires_at=store.expires_at,
        last_active_at=store.last_active_at,
        metadata=dict(store.metadata),
        collection=store.collection,
    )


def store_file_out(file: StoreFile, chunking: ChunkingOptions) -> VectorStoreFileOut:
    """Convert a file of a vector store for a response."""
    last_error = None
    if file.status is StoreFileStatus.FAILED:
        last_error = LastError(last_error_code(file.failure_code or ""), file.failure_message or "")
    return VectorStoreFileOut(
        id=file.file_id,
        usage_bytes=file.usage_bytes,
        created_at=file.created_at,
        vector_store_id=file.store_id,
        status=file.status,
        last_error=last_error,
        chunking_strategy=StaticChunkingOut(
            static=StaticChunking(chunking.max_tokens, min(chunking.overlap_tokens, chunking.max_tokens // 2))
        ),
        attributes=dict(file.attributes),
        document_id=file.document_public_id,
    )


def batch_out(batch: FileBatch) -> FileBatchOut:
    """Convert a batch for a response."""
    return FileBatchOut(
        id=batch.public_id,
        created_at=batch.created_at,
        vector_store_id=batch.store_id,
        status=batch.status,
        file_counts=counts_out(batch.counts),
    )


def search_result_out(found: StorePassage) -> SearchResultOut:
    """Convert a passage that a search found for a response."""
    passage = found.hit.passage
    return SearchResultOut(
        file_id=found.file.file_id,
        filename=found.file.filename,
        score=found.hit.score,
        attributes=dict(found.file.attributes),
        content=[TextPart(text=passage_text(passage) if passage.tables else passage.text)],
        document_id=passage.document_public_id,
        chunk_id=chunk_id(passage.document_public_id, passage.ordinal),
        page=passage.page,
        page_label=passage.page_label,
    )
