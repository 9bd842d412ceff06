"""Request and response bodies of the document and search routes; the OpenAPI document is generated from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.defaults import (
    DEFAULT_COLLECTION,
    DEFAULT_TOP_K,
    MAX_COLLECTION_NAME_LENGTH,
    MAX_FILENAME_LENGTH,
    MAX_QUERY_LENGTH,
    MAX_TOP_K,
)
from ragsvc.core.documents import Document, DocumentStatus, Stage, StoredPassage
from ragsvc.core.ids import chunk_id
from ragsvc.core.retrieval.explanations import ScorePartName, found_words
from ragsvc.core.retrieval.search_values import DocumentIds, SearchHit, SearchMode
from ragsvc.core.text.tables import passage_text
from ragsvc.services.document_service import UploadResult
from ragsvc.store.document_listing import DocumentCounts


class ProblemOut(msgspec.Struct, frozen=True):
    """A problem with some pages of a document that is otherwise readable."""

    code: str
    message: str
    first_page: int
    last_page: int


class FailureOut(msgspec.Struct, frozen=True):
    """Why a document failed: a stable code and a message."""

    code: str
    message: str


class DocumentOut(msgspec.Struct, frozen=True, kw_only=True):
    """A document. ``progress`` is 0 to 1; ``eta_s`` is the estimated time until ready in seconds, if known.

    ``parent_id`` is the document that this one is attached to.
    """

    id: str
    object: Literal["document"] = "document"
    filename: str
    title: str | None
    media_type: str
    bytes: int
    sha256: str
    collection: str
    status: DocumentStatus
    stage: Stage
    progress: float
    eta_s: float | None
    pages: int
    pages_done: int
    passages: int
    passages_done: int
    problems: list[ProblemOut]
    error: FailureOut | None
    metadata: dict[str, Any]
    timings: dict[str, float]
    embedding_model: str | None
    created_at: int
    updated_at: int
    ready_at: int | None
    parent_id: str | None = None


class UploadedDocumentOut(DocumentOut, frozen=True, kw_only=True):
    """The document of an upload. ``updated`` lists what the upload changed in a document that existed before."""

    created: bool
    updated: list[Literal["filename", "metadata"]]


class DocumentList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of documents; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[DocumentOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DocumentCountsOut(msgspec.Struct, frozen=True, kw_only=True):
    """The number of documents: in all, by status, and by media type."""

    object: Literal["document.counts"] = "document.counts"
    total: int
    queued: int
    processing: int
    ready: int
    failed: int
    media_types: dict[str, int]


class DocumentDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The document was deleted, with its file and its passages."""

    id: str
    object: Literal["document.deleted"] = "document.deleted"
    deleted: Literal[True] = True


class DocumentChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields to change. ``metadata`` is merged with the existing metadata; ``null`` removes a key."""

    filename: Annotated[str, Meta(min_length=1, max_length=MAX_FILENAME_LENGTH)] | None = None
    metadata: dict[str, Any] | None = None


class RetryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The password of a protected document."""

    password: str | None = None


class UploadForm(msgspec.Struct, frozen=True, kw_only=True):
    """An upload as ``multipart/form-data``: the part ``file`` and fields that describe it."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    filename: Annotated[str, Meta(max_length=MAX_FILENAME_LENGTH)] | None = None
    collection: Annotated[str, Meta(max_length=MAX_COLLECTION_NAME_LENGTH, examples=["reports"])] | None = None
    metadata: Annotated[str, Meta(description="A JSON object", examples=['{"year": 2023}'])] | None = None
    password: str | None = None
    purpose: Annotated[str, Meta(description="Accepted for OpenAI clients and ignored")] | None = None


class PassageOut(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of a document: the characters ``start`` to ``end`` of the text of its page.

    ``markdown`` is the passage with its tables as Markdown, below their headings; ``null`` if it has no table.
    """

    id: str
    object: Literal["passage"] = "passage"
    document_id: str
    page: int
    page_label: str | None
    start: int
    end: int
    headings: list[str]
    text: str
    markdown: str | None


class PassageList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of passages, in reading order."""

    object: Literal["list"] = "list"
    data: list[PassageOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class PageOut(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a page; offsets of passages and citations refer to it."""

    object: Literal["document.page"] = "document.page"
    document_id: str
    page: int
    page_label: str | None
    text: str


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search. ``filters`` have the form of OpenAI's comparison and compound filters."""

    query: Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_LENGTH, examples=["What was the revenue in Q3?"])]
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] = DEFAULT_TOP_K
    mode: SearchMode = SearchMode.HYBRID
    collection: Annotated[str, Meta(min_length=1, max_length=MAX_COLLECTION_NAME_LENGTH)] = DEFAULT_COLLECTION
    document_ids: DocumentIds | None = None
    filters: dict[str, Any] | None = None
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0
    rerank: bool = False
    explain: bool = False
    """Add the parts of each score, and the words of the query that each passage contains."""


class ScoresOut(msgspec.Struct, frozen=True):
    """Scores of vector search and of word search in 0..1; ``null`` if that search did not find the passage."""

    dense: float | None
    lexical: float | None


class ScorePartOut(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a score: ``points`` = ``value`` (0..1) times ``weight``. All points add up to the score.

    ``meaning`` and ``words`` compare the query with the passage, ``other_meaning`` and ``other_words`` only its words
    that name no document, ``document`` compares it with the document's name and opening. ``page``: the query names the
    page. ``comparison``: the query compares documents. ``requested``: it asks for this page or document as a whole.
    ``reranker``: the reranker's score alone counts. ``not_reranked`` (negative): the reranker had no time for it.
    """

    name: ScorePartName
    value: float
    weight: float
    points: float


class ExplanationOut(msgspec.Struct, frozen=True, kw_only=True):
    """Why a passage has its score. ``words`` are the words of the query that it contains."""

    parts: list[ScorePartOut]
    words: list[str]


class SearchHitOut(msgspec.Struct, frozen=True, kw_only=True):
    """A passage found: ``quote`` is the characters ``start`` to ``end`` of the text of its page.

    ``markdown`` is the passage with its tables as Markdown, below their headings; ``null`` if it has no table.
    """

    chunk_id: str
    document_id: str
    filename: str
    page: int
    page_label: str | None
    start: int
    end: int
    headings: list[str]
    quote: str
    markdown: str | None
    score: float
    scores: ScoresOut
    explanation: ExplanationOut | UnsetType = UNSET


class SearchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Passages, best first. ``answerable`` (0..1) is the calibrated evidence that the documents contain an answer."""

    object: Literal["list"] = "list"
    data: list[SearchHitOut]
    answerable: float
    timings_ms: dict[str, float]


def document_out(document: Document, *, eta_s: float | None = None) -> DocumentOut:
    """Convert a document for a response."""
    failure = None
    if document.failure_code is not None:
        failure = FailureOut(code=document.failure_code, message=document.failure_message or "")
    return DocumentOut(
        id=document.public_id,
        filename=document.filename,
        title=document.title,
        media_type=document.media_type,
        bytes=document.size_bytes,
        sha256=document.sha256,
        collection=document.collection,
        status=document.status,
        stage=document.stage,
        progress=progress(document),
        eta_s=eta_s,
        pages=document.pages_total,
        pages_done=document.pages_done,
        passages=document.passages_total,
        passages_done=document.passages_done,
        problems=[
            ProblemOut(
                code=problem.code, message=problem.message, first_page=problem.first_page, last_page=problem.last_page
            )
            for problem in document.problems
        ],
        error=failure,
        metadata=document.metadata,
        timings=document.timings,
        embedding_model=document.embedding_model,
        created_at=document.created_at,
        updated_at=document.updated_at,
        ready_at=document.ready_at,
        parent_id=document.parent_id,
    )


def counts_out(counts: DocumentCounts) -> DocumentCountsOut:
    """Convert counts for a response."""
    return DocumentCountsOut(
        total=counts.total,
        queued=counts.by_status.get(DocumentStatus.QUEUED, 0),
        processing=counts.by_status.get(DocumentStatus.PROCESSING, 0),
        ready=counts.by_status.get(DocumentStatus.READY, 0),
        failed=counts.by_status.get(DocumentStatus.FAILED, 0),
        media_types=counts.by_media_type,
    )


def uploaded_document_out(uploaded: UploadResult, document: Document, *, eta_s: float | None) -> UploadedDocumentOut:
    """Convert the result of an upload for a response; ``document`` is its present state."""
    plain = document_out(document, eta_s=eta_s)
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return UploadedDocumentOut(**fields, created=uploaded.created, updated=list(uploaded.updated))


def progress(document: Document) -> float:
    """Share of the work done, 0 to 1: a fifth for parsing, the rest for embedding (measured on annual reports)."""
    if document.status is DocumentStatus.READY:
        return 1.0
    parsed = document.pages_done / document.pages_total if document.pages_total else 0.0
    embedded = document.passages_done / document.passages_total if document.passages_total else 0.0
    return round(min(0.2 * parsed + 0.8 * embedded, 0.999), 3)


def passage_out(passage: StoredPassage) -> PassageOut:
    """Convert a passage for a response."""
    return PassageOut(
        id=chunk_id(passage.document_public_id, passage.ordinal),
        document_id=passage.document_public_id,
        page=passage.page,
        page_label=passage.page_label,
        start=passage.start,
        end=passage.end,
        headings=list(passage.headings),
        text=passage.text,
        markdown=passage_text(passage) if passage.tables else None,
    )


def hit_out(hit: SearchHit, *, explained: Sequence[tuple[str, str]] | None = None) -> SearchHitOut:
    """Convert a search hit for a response, with an explanation if the ``words_to_find`` of the query are given."""
    passage = hit.passage
    return SearchHitOut(
        chunk_id=chunk_id(passage.document_public_id, passage.ordinal),
        document_id=passage.document_public_id,
        filename=passage.filename,
        page=passage.page,
        page_label=passage.page_label,
        start=passage.start,
        end=passage.end,
        headings=list(passage.headings),
        quote=passage.text,
        markdown=passage_text(passage) if passage.tables else None,
        score=hit.score,
        scores=ScoresOut(dense=hit.dense, lexical=hit.lexical),
        explanation=UNSET if explained is None else explanation_out(hit, explained),
    )


def explanation_out(hit: SearchHit, asked: Sequence[tuple[str, str]]) -> ExplanationOut:
    """Convert the explanation of a score for a response."""
    parts = [
        ScorePartOut(name=part.name, value=part.value, weight=part.weight, points=part.points) for part in hit.parts
    ]
    return ExplanationOut(parts=parts, words=found_words(asked, hit.passage.text))
