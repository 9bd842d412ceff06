"""What the service answers, as typed values. Fields that a newer service adds are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class PageProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem with some pages of a document that is otherwise readable."""

    code: str
    message: str
    first_page: int
    last_page: int


class DocumentFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a document failed: a stable code and a message."""

    code: str
    message: str


class DocumentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document. ``status`` is ``queued``, ``processing``, ``ready`` or ``failed``; ``progress`` is 0 to 1.

    ``stage`` is the step of processing. From ``searchable`` on the document is found by its words, and by its vectors
    as far as ``passages_done`` counts them.

    ``eta_s`` is the estimated time until ready in seconds, if known. Times are Unix seconds.
    """

    id: str
    filename: str
    title: str | None = None
    media_type: str
    bytes: int
    sha256: str
    collection: str
    status: str
    stage: str
    progress: float
    eta_s: float | None = None
    pages: int
    pages_done: int
    passages: int
    passages_done: int
    problems: list[PageProblem] = []
    error: DocumentFailure | None = None
    metadata: dict[str, Any] = {}
    timings: dict[str, float] = {}
    embedding_model: str | None = None
    created_at: int
    updated_at: int
    ready_at: int | None = None
    parent_id: str | None = None


class UploadedDocument(DocumentRecord, frozen=True, kw_only=True):
    """The document of an upload. ``created`` is false if the collection had a document with these bytes already.

    ``updated`` lists what the upload changed in that document: ``filename``, ``metadata``.
    """

    created: bool
    updated: list[str] = []


class DocumentCountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The number of documents: in all, by status, and by media type."""

    total: int
    queued: int
    processing: int
    ready: int
    failed: int
    media_types: dict[str, int] = {}


class DocumentsSnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The state of all documents: their number, and those that are queued or processed, at most 100.

    ``resumed``: the events that follow contain all changes since the position that was given.
    """

    counts: DocumentCountRecord
    unfinished: list[DocumentRecord]
    has_more: bool
    resumed: bool


class DocumentDeletionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document was deleted."""

    id: str


class PassageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of a document: the characters ``start`` to ``end`` of the text of its page.

    ``markdown`` is the passage with its tables as Markdown; ``None`` if it has no table.
    """

    id: str
    document_id: str
    page: int
    page_label: str | None = None
    start: int
    end: int
    headings: list[str] = []
    text: str
    markdown: str | None = None


class PageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a page, counted from 1."""

    document_id: str
    page: int
    page_label: str | None = None
    text: str


class BoxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rectangle in fractions of the page as its picture shows it, from the top left."""

    left: float
    top: float
    width: float
    height: float


class BoxesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where the characters ``start`` to ``end`` of a page's text are: a rectangle for each line.

    ``width`` and ``height`` of the page are in points. ``recognised``: the positions come from text recognition.
    """

    document_id: str
    page: int
    start: int
    end: int
    width: float
    height: float
    recognised: bool = False
    boxes: list[BoxRecord] = []


class BookmarkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a document's outline; ``level`` is 1 for the outermost."""

    title: str
    level: int
    page: int


class HitScores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of vector search and of word search in 0..1; ``None`` if that search did not find the passage."""

    dense: float | None = None
    lexical: float | None = None


class HitScorePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a score: ``points`` = ``value`` (0..1) times ``weight``. All points add up to the score."""

    name: str
    value: float
    weight: float
    points: float


class HitExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a passage has its score. ``words`` are the words of the query that it contains."""

    parts: list[HitScorePart]
    words: list[str] = []


class PassageHit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage found: ``quote`` is the characters ``start`` to ``end`` of the text of its page."""

    chunk_id: str
    document_id: str
    filename: str
    page: int
    page_label: str | None = None
    start: int
    end: int
    headings: list[str] = []
    quote: str
    markdown: str | None = None
    score: float
    scores: HitScores
    explanation: HitExplanation | None = None


class PassageHits(msgspec.Struct, frozen=True, kw_only=True):
    """Passages, best first. ``answerable`` (0..1) is the evidence that the documents contain an answer."""

    data: list[PassageHit]
    answerable: float
    timings_ms: dict[str, float] = {}


class CollectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A collection: its documents, those of them that are ready, their passages, and the bytes of their files."""

    name: str
    documents: int
    ready: int
    passages: int
    bytes: int
    created_at: int


class RemovedData(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion removed. ``kept_copies``: copies of the database which still contain the data."""

    collections: int = 0
    documents: int = 0
    pages: int = 0
    passages: int = 0
    vectors: int = 0
    files: int = 0
    file_bytes: int = 0
    indexes: int = 0
    keys: int = 0
    provider_keys: int = 0
    usage_rows: int = 0
    audit_entries: int = 0
    uploaded_files: int = 0
    responses: int = 0
    conversations: int = 0
    feedback: int = 0
    log_emptied: bool = False
    kept_copies: list[str] = []
    removed_copies: list[str] = []


class BalanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a request could use now; ``money_remaining`` is ``None`` if neither the key nor its tenant has a budget."""

    tokens_remaining: int
    money_remaining: float | None = None


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret. ``None`` as a limit means unlimited."""

    id: str
    tenant: str
    label: str
    state: str
    scopes: list[str]
    allowed_models: list[str] = []
    allowed_collections: list[str] = []
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    tokens_per_day: int | None = None
    token_balance: int | None = None
    max_parallel_requests: int | None = None
    money_per_day: float | None = None
    money_balance: float | None = None
    expires_at: int | None = None
    previous_expires_at: int | None = None
    created_at: int
    updated_at: int


class NewKey(KeyRecord, frozen=True, kw_only=True):
    """A key with its secret, which the service shows only once; ``None`` if the secret was imported."""

    key: str | None


class OwnKeyRecord(KeyRecord, frozen=True, kw_only=True):
    """The key in use; ``None`` as a limit or as what is left means unlimited.

    ``…_granted`` is the balance that was last set.
    """

    tokens_granted: int | None = None
    tokens_used_today: int = 0
    tokens_remaining: int | None = None
    money_granted: float | None = None
    money_used_today: float = 0.0
    money_remaining: float | None = None
    requests_remaining: int | None = None


class KeyChangeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a key. ``actor`` is a key id or ``local``; ``changes`` maps field names to new values.

    ``key_id`` is empty for changes of a tenant's key for a provider.
    """

    id: int
    at: int
    tenant: str = ""
    key_id: str
    actor: str
    action: str
    changes: dict[str, Any] = {}
    request_id: str | None = None


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Usage summed over the columns that are ``None``; ``date`` is in UTC, ``cost`` in the currency of the prices."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    family: str | None = None
    date: str | None = None
    prompt_tokens: int
    completion_tokens: int
    requests: int
    cost: float = 0.0
    errors: int = 0
    latency_ms: float | None = None


class UsageRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Usage from ``since`` to ``until``, both included."""

    since: str
    until: str
    data: list[UsageRecord]


class QuotaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may store and spend; ``None`` means unlimited."""

    max_collections: int | None = None
    max_documents: int | None = None
    max_bytes: int | None = None
    money_per_day: float | None = None
    money_balance: float | None = None


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has and may have; ``bytes`` is the size of its files."""

    name: str
    keys: int
    collections: int
    documents: int
    files: int = 0
    bytes: int
    limits: QuotaRecord
