"""The tables of collections, files, documents, passages, vectors and jobs. Ids are AUTOINCREMENT: never reused."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel

AnyRow = Row[*tuple[Any, ...]]
"""A result row of any columns."""

_KEEP_IDS = {"sqlite_autoincrement": True}


class _Named(SQLModel):
    table_name: ClassVar[str]

    # SQLModel types the name as a variable; SQLAlchemy documents this directive for computing it
    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805  # pyright: ignore[reportIncompatibleVariableOverride]
        return cls.table_name


def table_of(model: type[SQLModel]) -> Table:
    """The SQLAlchemy table behind a model, for statements."""
    return SQLModel.metadata.tables[str(model.__tablename__)]


def _index_of_values(name: str, column: str) -> Index:
    """An index of the rows that have a value: few of many.

    The condition is also PostgreSQL's, where the migration makes the index: an argument for it would load that dialect
    at each start.
    """
    return Index(name, column, sqlite_where=text(f"{column} IS NOT NULL"))


class CollectionRow(_Named, table=True):
    """A tenant's named set of documents, with a vector index and a word index.

    From ``deleted_at`` on nothing finds it; ``store.tenant_rows`` removes its documents. As a vector store it also has
    a ``display_name``, which may be missing or occur twice, ``metadata`` (JSON), and an expiry: ``expires_after_days``
    after its last use.
    """

    table_name: ClassVar[str] = "collections"
    __table_args__ = (
        UniqueConstraint("tenant", "name"),
        Index("collections_by_public_id", "public_id", unique=True),
        Index("collections_by_expiry", "expires_at"),
        _KEEP_IDS,
    )

    id: int | None = Field(default=None, primary_key=True)
    tenant: str
    name: str
    created_at: int
    deleted_at: int | None = None
    public_id: str = Field(sa_column=Column(String, nullable=False, server_default=""))
    display_name: str | None = None
    description: str | None = None
    metadata_json: bytes | None = Field(default=None, sa_column=Column("metadata", LargeBinary, nullable=True))
    last_active_at: int | None = None
    expires_after_days: int | None = None
    expires_at: int | None = None


class DocumentRow(_Named, table=True):
    """An uploaded file. ``metadata``, ``problems`` and ``timings`` are JSON."""

    table_name: ClassVar[str] = "documents"
    __table_args__ = (
        UniqueConstraint("collection_id", "sha256"),
        Index("documents_by_tenant", "tenant", "id"),
        Index("documents_by_sha256", "tenant", "sha256"),
        Index("documents_by_collection", "collection_id", "status", "failure_code", "size_bytes"),
        Index("documents_by_status", "tenant", "status", "updated_at", "collection_id", "media_type"),
        _KEEP_IDS,
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    collection_id: int = Field(sa_column=Column(Integer, ForeignKey("collections.id"), nullable=False))
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    status: str
    stage: str
    title: str | None = None
    metadata_json: bytes = Field(sa_column=Column("metadata", LargeBinary, nullable=False))
    problems: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    timings: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    failure_code: str | None = None
    failure_message: str | None = None
    pages_total: int = 0
    pages_done: int = 0
    passages_total: int = 0
    passages_done: int = 0
    embedding_model: str | None = None
    created_at: int
    updated_at: int
    ready_at: int | None = None


class AttachmentRow(_Named, table=True):
    """A document that is attached to ``parent_id``; documents with equal attachments share them.

    ``brought``: the document exists only because it is attached, and is deleted with the last document that has it.
    """

    table_name: ClassVar[str] = "attachments"
    __table_args__ = (Index("attachments_by_document", "document_id", "parent_id"), {"sqlite_with_rowid": False})

    parent_id: int = Field(
        sa_column=Column(Integer, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    document_id: int = Field(
        sa_column=Column(Integer, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    brought: bool


class PageRow(_Named, table=True):
    """The text of a page; numbers begin at 1."""

    table_name: ClassVar[str] = "pages"
    __table_args__ = {"sqlite_with_rowid": False}

    document_id: int = Field(
        sa_column=Column(Integer, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    number: int = Field(primary_key=True)
    label: str | None = None
    text: str = Field(sa_column=Column(Text, nullable=False))
    checksum: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """See ``text_integrity.text_checksum``."""


class PassageRow(_Named, table=True):
    """A citable span of one page's text. For ``embedding_hash``, see ``vector_rows.embedding_hash``."""

    table_name: ClassVar[str] = "passages"
    __table_args__ = (
        Index("passages_by_document", "document_id", "ordinal"),
        Index("passages_by_embedding_hash", "embedding_hash"),
        _KEEP_IDS,
    )

    id: int | None = Field(default=None, primary_key=True)
    document_id: int = Field(sa_column=Column(Integer, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False))
    ordinal: int
    page: int
    page_label: str | None = None
    start: int
    end: int
    token_count: int
    headings: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    embedding_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    text: str = Field(sa_column=Column(Text, nullable=False))
    tables: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """JSON of the tables in the passage; ``NULL`` if it has none."""
    checksum: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """See ``text_integrity.text_checksum``."""


class EmbeddingModelRow(_Named, table=True):
    """An embedding model with stored vectors; ``fingerprint`` identifies its weights."""

    table_name: ClassVar[str] = "embedding_models"

    id: int | None = Field(default=None, primary_key=True)
    name: str
    dimension: int
    fingerprint: str = Field(unique=True)
    setting: str
    created_at: int


class ServiceStateRow(_Named, table=True):
    """Values about the whole data directory, by name."""

    table_name: ClassVar[str] = "service_state"

    name: str = Field(primary_key=True)
    value: int


class EmbeddingRow(_Named, table=True):
    """A passage's unit vector as little-endian float16, ``dimension`` values."""

    table_name: ClassVar[str] = "embeddings"
    __table_args__ = {"sqlite_with_rowid": False}

    model_id: int = Field(primary_key=True)
    passage_id: int = Field(
        sa_column=Column(
            Integer, ForeignKey("passages.id", ondelete="CASCADE"), primary_key=True, nullable=False, index=True
        )
    )
    vector: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class JobRow(_Named, table=True):
    """A queued or running job of a document; removed, with the file's ``password``, when it ends."""

    table_name: ClassVar[str] = "jobs"
    __table_args__ = (Index("jobs_by_tenant", "state", "tenant", "id"), _KEEP_IDS)

    id: int | None = Field(default=None, primary_key=True)
    document_id: int = Field(
        sa_column=Column(Integer, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False, unique=True)
    )
    tenant: str
    state: str
    attempts: int = 0
    password: str | None = None
    created_at: int


class FileRow(_Named, table=True):
    """A file of a tenant: uploaded by itself, or ``implicit`` because it came with a document.

    An implicit file is deleted with its last document. ``created_by`` is the id of the key that uploaded the file. From
    ``deleted_at`` on nothing finds it; ``store.file_rows`` removes it. Files with the same bytes share one stored file.
    """

    table_name: ClassVar[str] = "files"
    __table_args__ = (
        Index("files_by_tenant", "tenant", "id"),
        Index("files_by_purpose", "tenant", "purpose", "id"),
        Index("files_by_size", "tenant", "deleted_at", "implicit", "size_bytes"),
        Index("files_by_sha256", "tenant", "sha256"),
        _index_of_values("files_by_expiry", "expires_at"),
        _index_of_values("files_by_deletion", "deleted_at"),
        _KEEP_IDS,
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    filename: str
    media_type: str
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    sha256: str
    purpose: str
    status: str
    created_by: str | None = None
    created_at: int
    expires_at: int | None = None
    deleted_at: int | None = None
    implicit: bool


class DocumentFileRow(_Named, table=True):
    """A file that a document was made from; files with equal bytes can share a document of a collection.

    A document is deleted with the last of its files. The link is also the file of a vector store: ``collection_id`` is
    that of the document.
    """

    table_name: ClassVar[str] = "document_files"
    __table_args__ = (
        Index("document_files_by_file", "file_id", "document_id"),
        Index("document_files_by_collection", "collection_id", "created_at", "file_id"),
        {"sqlite_with_rowid": False},
    )

    document_id: int = Field(
        sa_column=Column(Integer, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    file_id: int = Field(
        sa_column=Column(Integer, ForeignKey("files.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    created_at: int
    collection_id: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))


class FileBatchRow(_Named, table=True):
    """Files that were added to a vector store together."""

    table_name: ClassVar[str] = "file_batches"
    __table_args__ = (Index("file_batches_by_collection", "collection_id"), _KEEP_IDS)

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    collection_id: int = Field(
        sa_column=Column(Integer, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False)
    )
    created_at: int
    cancelled_at: int | None = None


class BatchFileRow(_Named, table=True):
    """A file that a batch added to a vector store; several batches can have added it.

    ``created_at`` is that of the link: the files of a batch are listed in the order of those of the store.
    """

    table_name: ClassVar[str] = "batch_files"
    __table_args__ = (
        ForeignKeyConstraint(
            ["document_id", "file_id"], ["document_files.document_id", "document_files.file_id"], ondelete="CASCADE"
        ),
        Index("batch_files_by_document", "document_id", "file_id"),
        {"sqlite_with_rowid": False},
    )

    batch_id: int = Field(
        sa_column=Column(Integer, ForeignKey("file_batches.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    created_at: int = Field(primary_key=True)
    file_id: int = Field(primary_key=True)
    document_id: int


class ExpiredStoreRow(_Named, table=True):
    """A vector store that has expired, with the id of its collection, which was deleted."""

    table_name: ClassVar[str] = "expired_stores"
    __table_args__ = (
        Index("expired_stores_by_tenant", "tenant", "id"),
        Index("expired_stores_by_time", "expired_at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    name: str
    display_name: str | None = None
    description: str | None = None
    metadata_json: bytes | None = Field(default=None, sa_column=Column("metadata", LargeBinary, nullable=True))
    created_at: int
    last_active_at: int
    expires_after_days: int
    expired_at: int


class UploadRow(_Named, table=True):
    """An upload in parts. ``size_bytes`` is the announced size, ``file_id`` the file that it became."""

    table_name: ClassVar[str] = "uploads"
    __table_args__ = (
        Index("uploads_by_tenant", "tenant", "status"),
        Index("uploads_by_expiry", "status", "expires_at"),
        Index("uploads_by_file", "file_id"),
        _KEEP_IDS,
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    tenant: str
    filename: str
    media_type: str
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    purpose: str
    status: str
    created_by: str | None = None
    created_at: int
    expires_at: int
    file_expires_after_s: int | None = None
    file_id: int | None = Field(
        default=None, sa_column=Column(Integer, ForeignKey("files.id", ondelete="SET NULL"), nullable=True)
    )


class UploadPartRow(_Named, table=True):
    """A part of an upload. Its bytes are a stored file, which is removed with the last row that refers to it."""

    table_name: ClassVar[str] = "upload_parts"
    __table_args__ = (
        Index("upload_parts_by_upload", "upload_id", "size_bytes"),
        Index("upload_parts_by_sha256", "tenant", "sha256", "size_bytes"),
        _KEEP_IDS,
    )

    id: int | None = Field(default=None, primary_key=True)
    public_id: str = Field(unique=True)
    upload_id: int = Field(sa_column=Column(Integer, ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False))
    tenant: str
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    sha256: str
    created_at: int


class FileRemovalRow(_Named, table=True):
    """A stored file that no document needs any more, until it is removed.

    Written in the transaction that deletes the last document of the file, so that a file is only ever removed because
    a document was deleted, and is removed although the process was killed in between.
    """

    table_name: ClassVar[str] = "file_removals"

    tenant: str = Field(primary_key=True)
    sha256: str = Field(primary_key=True)
    created_at: int


class IndexLogRow(_Named, table=True):
    """A change that the indexes have to follow, written in the transaction that makes the change.

    ``op`` is an ``IndexOperation``; ``passage_ids`` is packed little-endian int64. An index stores the ``seq`` up to
    which it has followed, and replays the entries after it.
    """

    table_name: ClassVar[str] = "index_log"
    __table_args__ = (Index("index_log_by_collection", "collection_id", "seq"), _KEEP_IDS)

    seq: int | None = Field(default=None, primary_key=True)
    collection_id: int
    op: str
    document_id: int
    passage_ids: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
