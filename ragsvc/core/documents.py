"""Values shared by extraction, storage, indexes and answers. Character offsets count Unicode code points."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from ragsvc.core.ids import CollectionId, DocumentId, PassageId, TenantId


class DocumentStatus(StrEnum):
    """The status that clients see. *Ready* documents are searched by words and vectors; *failed* ones have a reason.

    A document that is being processed is searched too, from ``Stage.SEARCHABLE`` on.
    """

    QUEUED = "queued"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class Stage(StrEnum):
    """The current step of ingestion. For ready and failed documents it equals the status.

    At ``SEARCHABLE`` all pages are parsed: searches find the passages by their words, and by their vectors batch by
    batch as these are stored. A short document that is embedded at once goes from ``EMBEDDING`` to ``READY``.
    """

    QUEUED = "queued"
    PARSING = "parsing"
    EMBEDDING = "embedding"
    SEARCHABLE = "searchable"
    READY = "ready"
    FAILED = "failed"


class ProblemCode(StrEnum):
    """The problem of a range of pages in a document that is otherwise readable."""

    NO_TEXT_LAYER = "no_text_layer"
    GARBLED_TEXT = "garbled_text"
    PAGE_UNREADABLE = "page_unreadable"
    SECOND_PARSER_USED = "second_parser_used"
    TEXT_TRUNCATED = "text_truncated"
    NOT_READ = "not_read"
    OCR_USED = "ocr_used"
    HIDDEN_TEXT = "hidden_text"
    BAD_CHARACTERS = "bad_characters"
    ATTACHMENT_LEFT_OUT = "attachment_left_out"
    STORED_FILE_DAMAGED = "stored_file_damaged"
    STORED_TEXT_DAMAGED = "stored_text_damaged"


class Problem(msgspec.Struct, frozen=True, omit_defaults=False):
    """A problem with the pages ``first_page`` to ``last_page`` (1-based, inclusive)."""

    code: ProblemCode
    message: str
    first_page: int
    last_page: int


class Heading(msgspec.Struct, frozen=True):
    """A heading on a page. ``level`` 1 is the highest, ``page`` is 1-based, ``offset`` is into the page's text."""

    title: str
    level: int
    page: int
    offset: int = 0


class Page(msgspec.Struct, frozen=True):
    """The text of a page. ``number`` is 1-based; ``label`` is the printed page number (``iv``, ``A-3``), if known."""

    number: int
    text: str
    label: str | None = None


class AttachedFile(msgspec.Struct, frozen=True):
    """A file inside another file: an attachment of a PDF or of a message."""

    name: str
    data: bytes


class TableRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of a table: ``[start, end)`` of the text, and the text of the cell in each column, empty cells included."""

    start: int
    end: int
    cells: tuple[str, ...]


class Table(msgspec.Struct, frozen=True, array_like=True):
    """A table in the text of a page or passage; offsets are into that text.

    ``columns`` are the headings of the columns. They stand at ``[heading_start, heading_end)``, which is empty if the
    text has no lines that consist of them. The rows are in the order of the text; there may be other text between them.
    """

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    caption: str = ""
    heading_start: int = 0
    heading_end: int = 0

    @property
    def start(self) -> int:
        return self.heading_start if self.heading_end > self.heading_start else self.rows[0].start


class Extraction(msgspec.Struct, frozen=True):
    """The result of extracting one file. ``title`` comes from the metadata or the first heading.

    ``attachments`` are the names of all attached files, ``attached_files`` those within the limits. ``tables`` are
    those of each page, by its number, in the order of the text.
    """

    pages: list[Page]
    headings: list[Heading] = []
    problems: list[Problem] = []
    title: str | None = None
    page_count: int = 0
    attachments: list[str] = []
    attached_files: list[AttachedFile] = []
    timings: dict[str, float] = {}
    tables: dict[int, list[Table]] = {}


class Passage(msgspec.Struct, frozen=True):
    """A citable piece of text that is not stored yet.

    ``text`` equals ``text[start:end]`` of the page with the number ``page``; a passage never crosses a page boundary.
    ``headings`` are the titles of the enclosing sections, outermost first. ``token_count`` is the number of the
    embedding model's tokens in the passage's ``embedding_text``, special tokens included. ``tables`` have offsets into
    ``text``, and only the rows in it.
    """

    ordinal: int
    page: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    page_label: str | None = None
    token_count: int = 0
    tables: tuple[Table, ...] = ()


class StoredPassage(msgspec.Struct, frozen=True):
    """A passage as stored, with the fields of its document that a citation needs."""

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
    """Tokens of the embedding text, which has a few more than ``text``; 0 where unknown."""
    pages_total: int = 0
    """Number of pages of the document; 0 where unknown."""
    tables: tuple[Table, ...] = ()
    """The tables in the passage, with offsets into ``text``."""


class CitedFile(msgspec.Struct, frozen=True):
    """The file of a document that was found. ``attributes`` are the scalars of the document's metadata."""

    file_id: str
    attributes: dict[str, Any]


class Collection(msgspec.Struct, frozen=True):
    """A named set of a tenant's documents. ``public_id`` is its id as a vector store."""

    id: CollectionId
    tenant: TenantId
    name: str
    created_at: int
    public_id: str = ""


class Document(msgspec.Struct, frozen=True):
    """A document as stored. Times are Unix seconds; ``pages_done`` of ``pages_total`` is the progress of parsing."""

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
    parent_id: str | None = None
    """Public id of the document that this one is attached to."""
    attached: bool = False
    """Whether the document exists only because it is attached to another one."""

    @property
    def is_searchable(self) -> bool:
        """Whether searches find the document: its words are indexed, and those of its vectors that are stored."""
        return self.status is DocumentStatus.READY or self.stage is Stage.SEARCHABLE
