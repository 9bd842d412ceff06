"""Values that travel between extraction, storage, indexes and answers. Offsets count Unicode code points."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from ragsvc.core.ids import CollectionId, DocumentId, PassageId, TenantId


class DocumentStatus(StrEnum):
    """What a client may do with a document: wait (queued, processing), use it (ready), or read why not (failed)."""

    QUEUED = "queued"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class Stage(StrEnum):
    """Where ingest stands. A ready or failed document's stage says the same as its status."""

    QUEUED = "queued"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    READY = "ready"
    FAILED = "failed"


class ProblemCode(StrEnum):
    """What is wrong with a page (or a run of pages) of a document that is otherwise readable."""

    NO_TEXT_LAYER = "no_text_layer"
    GARBLED_TEXT = "garbled_text"
    PAGE_UNREADABLE = "page_unreadable"
    SECOND_PARSER_USED = "second_parser_used"
    TEXT_TRUNCATED = "text_truncated"
    NOT_READ = "not_read"
    OCR_USED = "ocr_used"


class Problem(msgspec.Struct, frozen=True, omit_defaults=False):
    """A finding about pages ``first_page`` to ``last_page`` (from 1, inclusive)."""

    code: ProblemCode
    message: str
    first_page: int
    last_page: int


class Heading(msgspec.Struct, frozen=True):
    """A heading: ``title`` at ``level`` (1 is highest), on ``page`` (from 1), at ``offset`` in that page's text."""

    title: str
    level: int
    page: int
    offset: int = 0


class Page(msgspec.Struct, frozen=True):
    """One page's text. ``number`` counts from 1; ``label`` is what is printed on it (``iv``, ``A-3``) if known."""

    number: int
    text: str
    label: str | None = None


class Extraction(msgspec.Struct, frozen=True):
    """All that extraction found in one file. ``title`` is the document's own (metadata or first heading)."""

    pages: list[Page]
    headings: list[Heading] = []
    problems: list[Problem] = []
    title: str | None = None
    page_count: int = 0
    attachments: list[str] = []
    timings: dict[str, float] = {}


class Passage(msgspec.Struct, frozen=True):
    """A citable run of text, before it has an id.

    ``text`` equals ``pages[page].text[start:end]`` when it lies on one page (``page == last_page``), which chunking
    guarantees: a passage never crosses a page border. ``headings`` is the path of titles above it. ``token_count``
    counts the embedding model's tokens of ``embedding_text`` with its special tokens.
    """

    ordinal: int
    page: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    page_label: str | None = None
    token_count: int = 0


class StoredPassage(msgspec.Struct, frozen=True):
    """A passage as rows hold it, with what a citation needs of its document."""

    id: PassageId
    document_id: DocumentId
    document_public_id: str
    filename: str
    title: str | None
    page: int
    page_label: str | None
    start: int
    end: int
    text: str
    headings: tuple[str, ...]
    ordinal: int
    token_count: int = 0
    """Tokens of its embedding text, rather more than its own; 0 where nobody counted."""


class Collection(msgspec.Struct, frozen=True):
    """A tenant's named set of documents."""

    id: CollectionId
    tenant: TenantId
    name: str
    created_at: int


class Document(msgspec.Struct, frozen=True):
    """A document as rows hold it. Times are Unix seconds; ``pages_done`` of ``pages_total`` tells progress."""

    id: DocumentId
    public_id: str
    tenant: TenantId
    collection_id: CollectionId
    collection: str
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    status: DocumentStatus
    stage: Stage
    metadata: dict[str, Any]
    problems: list[Problem]
    created_at: int
    updated_at: int
    title: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    pages_total: int = 0
    pages_done: int = 0
    passages_total: int = 0
    passages_done: int = 0
    embedding_model: str | None = None
    timings: dict[str, float] = {}
    ready_at: int | None = None
