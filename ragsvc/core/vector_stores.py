"""Vector stores (OpenAI: ``/v1/vector_stores``): collections, the files of their documents, and batches of files."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

from ragsvc.core.documents import DocumentStatus
from ragsvc.core.errors import FailureReason
from ragsvc.core.ids import CollectionId, DocumentId, FileId, TenantId

SECONDS_PER_DAY: Final = 86_400

LastErrorCode = Literal["server_error", "unsupported_file", "invalid_file"]

SERVER_FAULTS: Final = frozenset(
    {FailureReason.EMBEDDING_FAILED, FailureReason.INTERNAL_ERROR, FailureReason.STORED_FILE_DAMAGED}
)
"""Failures of documents that are faults of the service, not of the file."""

_UNSUPPORTED: Final = frozenset(
    {FailureReason.UNSUPPORTED_FILE, FailureReason.UNSUPPORTED_ENCRYPTION, FailureReason.NOT_TEXT}
)


class StoreFileStatus(StrEnum):
    """The status of a file in a vector store, made from the status of its document."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FileCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Files of a vector store or of a batch, by status."""

    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    total: int = 0


class VectorStore(msgspec.Struct, frozen=True, kw_only=True):
    """A collection as a vector store. ``name`` is the name to display, which may be missing or occur twice.

    ``expired``: its files are gone, and it cannot be searched.
    """

    id: CollectionId
    public_id: str
    tenant: TenantId
    collection: str
    name: str | None
    description: str | None
    metadata: Mapping[str, Any]
    created_at: int
    last_active_at: int
    expires_after_days: int | None
    counts: FileCounts = FileCounts()
    usage_bytes: int = 0
    expired: bool = False

    @property
    def expires_at(self) -> int | None:
        """Unix seconds; ``None`` if it does not expire."""
        if self.expires_after_days is None:
            return None
        return self.last_active_at + self.expires_after_days * SECONDS_PER_DAY


class StoreFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a vector store: the link of a file to a document. ``attributes`` are the document's metadata."""

    store_id: str
    file_id: str
    file_row_id: FileId
    document_id: DocumentId
    document_public_id: str
    filename: str
    usage_bytes: int
    created_at: int
    status: StoreFileStatus
    failure_code: str | None
    failure_message: str | None
    attributes: Mapping[str, Any]


class FileBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Files that were added to a vector store together."""

    id: int
    public_id: str
    store_id: str
    created_at: int
    cancelled: bool
    counts: FileCounts

    @property
    def status(self) -> StoreFileStatus:
        if self.cancelled:
            return StoreFileStatus.CANCELLED
        if self.counts.in_progress:
            return StoreFileStatus.IN_PROGRESS
        if self.counts.total and self.counts.failed == self.counts.total:
            return StoreFileStatus.FAILED
        return StoreFileStatus.COMPLETED


def store_file_status(status: DocumentStatus, failure_code: str | None) -> StoreFileStatus:
    """The status of a document in the words of vector stores.

    >>> store_file_status(DocumentStatus.QUEUED, None).value
    'in_progress'
    """
    match status:
        case DocumentStatus.QUEUED | DocumentStatus.PROCESSING:
            return StoreFileStatus.IN_PROGRESS
        case DocumentStatus.READY:
            return StoreFileStatus.COMPLETED
        case DocumentStatus.FAILED:
            return StoreFileStatus.CANCELLED if failure_code == FailureReason.CANCELLED else StoreFileStatus.FAILED


def last_error_code(failure_code: str) -> LastErrorCode:
    """The reason of a failed document as one of OpenAI's three codes.

    >>> last_error_code("password_required")
    'invalid_file'
    """
    if failure_code in SERVER_FAULTS:
        return "server_error"
    return "unsupported_file" if failure_code in _UNSUPPORTED else "invalid_file"
