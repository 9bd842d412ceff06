"""Files of tenants, which documents are made from, and uploads in parts that become files."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from ragsvc.core.ids import FileId, KeyId, TenantId

FILE_ID_PREFIX: Final = "file-"


class FilePurpose(StrEnum):
    """What a client uploaded a file for (OpenAI: ``POST /v1/files``)."""

    ASSISTANTS = "assistants"
    BATCH = "batch"
    FINE_TUNE = "fine-tune"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"


class FileStatus(StrEnum):
    """The status of a file. A file is usable as soon as it is stored."""

    PROCESSED = "processed"


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a tenant. Times are Unix seconds.

    ``implicit``: the file came with a document and is deleted with the last document that was made from it.
    ``created_by`` is the key that uploaded it.
    """

    id: FileId
    public_id: str
    tenant: TenantId
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    purpose: str
    status: FileStatus
    created_at: int
    created_by: KeyId | None = None
    expires_at: int | None = None
    implicit: bool = False


class UploadStatus(StrEnum):
    """The status of an upload in parts (OpenAI: ``POST /v1/uploads``)."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class UploadSession(msgspec.Struct, frozen=True, kw_only=True):
    """An upload in parts. Times are Unix seconds.

    ``size_bytes`` is the announced size. ``file_id`` is the file that the upload became; that file expires
    ``file_expires_after_s`` after its creation.
    """

    id: int
    public_id: str
    tenant: TenantId
    filename: str
    media_type: str
    size_bytes: int
    purpose: str
    status: UploadStatus
    created_at: int
    expires_at: int
    created_by: KeyId | None = None
    file_expires_after_s: int | None = None
    file_id: FileId | None = None


class UploadPart(msgspec.Struct, frozen=True, kw_only=True):
    """A stored part of an upload."""

    id: int
    public_id: str
    upload_id: int
    size_bytes: int
    sha256: str
    created_at: int


class FileReach(msgspec.Struct, frozen=True, kw_only=True):
    """Which files of a tenant a caller sees: all by default.

    A key that is limited to ``collections`` sees the files of documents in these, and those that it uploaded itself
    (``created_by``). An empty ``collections`` means all.
    """

    collections: tuple[str, ...] = ()
    created_by: KeyId | None = None


WHOLE_TENANT: Final = FileReach()


def implicit_file_id(document_id: str) -> str:
    """The public id of the file that comes with a document.

    >>> implicit_file_id("doc_0123456789abcdef01234567")
    'file-0123456789abcdef01234567'
    """
    return FILE_ID_PREFIX + document_id.replace("doc_", "")
