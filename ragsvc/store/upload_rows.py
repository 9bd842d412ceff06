"""Statements about uploads in parts. Callers own the transaction.

The bytes of a part are a stored file until the upload ends. An upload that is not completed within its time is removed
with its parts; a completed or cancelled one stays as a row until its time is over, so that it can be asked for.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from ragsvc.core.errors import UploadNotFound
from ragsvc.core.files import FileReach, UploadPart, UploadSession, UploadStatus
from ragsvc.core.ids import FileId, KeyId, TenantId
from ragsvc.store.file_removal_rows import add_removal, forget_removal
from ragsvc.store.tables import AnyRow, UploadPartRow, UploadRow, table_of

_uploads = table_of(UploadRow)
_parts = table_of(UploadPartRow)


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    """The values of an upload that begins. ``size_bytes`` is the announced size."""

    public_id: str
    tenant: TenantId
    filename: str
    media_type: str
    size_bytes: int
    purpose: str
    created_by: KeyId | None
    created_at: int
    expires_at: int
    file_expires_after_s: int | None


def insert_upload(connection: Connection, new: NewUpload) -> UploadSession:
    """Insert an upload as pending."""
    values = {**msgspec.structs.asdict(new), "status": UploadStatus.PENDING}
    inserted = connection.execute(insert(_uploads).values(**values)).inserted_primary_key
    assert inserted is not None  # noqa: S101 - the table has a primary key
    return _upload(connection.execute(select(_uploads).where(_uploads.c.id == inserted[0])).one())


def _upload(row: AnyRow) -> UploadSession:
    return UploadSession(
        id=row.id,
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        filename=row.filename,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        purpose=row.purpose,
        status=UploadStatus(row.status),
        created_at=row.created_at,
        expires_at=row.expires_at,
        created_by=None if row.created_by is None else KeyId(row.created_by),
        file_expires_after_s=row.file_expires_after_s,
        file_id=None if row.file_id is None else FileId(row.file_id),
    )


def _part(row: AnyRow) -> UploadPart:
    return UploadPart(
        id=row.id,
        public_id=row.public_id,
        upload_id=row.upload_id,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
    )


def find_upload(connection: Connection, tenant: TenantId, public_id: str, *, reach: FileReach) -> UploadSession:
    """Load an upload of the tenant; a key that is limited to collections sees only its own uploads.

    Raises:
        UploadNotFound: the caller has no such upload.
    """
    statement = select(_uploads).where(_uploads.c.public_id == public_id, _uploads.c.tenant == tenant)
    if reach.collections:
        statement = statement.where(_uploads.c.created_by == reach.created_by)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise UploadNotFound(f"There is no upload '{public_id[:100]}'.", param="upload_id")
    return _upload(row)


def count_pending(connection: Connection, tenant: TenantId) -> int:
    """How many uploads of a tenant are pending."""
    statement = select(func.count()).where(_uploads.c.tenant == tenant, _uploads.c.status == UploadStatus.PENDING)
    return int(connection.execute(statement).scalar_one())


def add_part(
    connection: Connection, upload: UploadSession, *, public_id: str, size_bytes: int, sha256: str, now: int
) -> UploadPart:
    """Add a part whose bytes are stored."""
    forget_removal(connection, upload.tenant, sha256)
    inserted = connection.execute(
        insert(_parts).values(
            public_id=public_id,
            upload_id=upload.id,
            tenant=upload.tenant,
            size_bytes=size_bytes,
            sha256=sha256,
            created_at=now,
        )
    ).inserted_primary_key
    assert inserted is not None  # noqa: S101 - the table has a primary key
    return _part(connection.execute(select(_parts).where(_parts.c.id == inserted[0])).one())


def parts_of(connection: Connection, upload_id: int) -> list[UploadPart]:
    """The parts of an upload, in the order in which they were stored."""
    statement = select(_parts).where(_parts.c.upload_id == upload_id).order_by(_parts.c.id)
    return [_part(row) for row in connection.execute(statement)]


def count_parts(connection: Connection, upload_id: int) -> tuple[int, int]:
    """Number and bytes of the parts of an upload."""
    statement = select(func.count(), func.coalesce(func.sum(_parts.c.size_bytes), 0)).where(
        _parts.c.upload_id == upload_id
    )
    count, size_bytes = connection.execute(statement).one()
    return int(count), int(size_bytes)


def end_upload(connection: Connection, upload: UploadSession, status: UploadStatus, *, now: int) -> list[str]:
    """Set the last status of an upload and delete its parts.

    Returns:
        SHA-256 of the stored files of parts that nothing refers to any more; their removal is noted.
    """
    connection.execute(update(_uploads).where(_uploads.c.id == upload.id).values(status=status))
    digests = list(
        connection.execute(select(_parts.c.sha256).where(_parts.c.upload_id == upload.id).distinct()).scalars()
    )
    connection.execute(delete(_parts).where(_parts.c.upload_id == upload.id))
    return [digest for digest in digests if add_removal(connection, upload.tenant, digest, now=now)]


def set_file(connection: Connection, upload: UploadSession, file_id: FileId) -> None:
    """Note the file that an upload became."""
    connection.execute(update(_uploads).where(_uploads.c.id == upload.id).values(file_id=file_id))


def expired_uploads(connection: Connection, *, now: int, limit: int) -> list[UploadSession]:
    """Pending uploads whose time is over."""
    statement = (
        select(_uploads)
        .where(_uploads.c.status == UploadStatus.PENDING, _uploads.c.expires_at <= now)
        .order_by(_uploads.c.expires_at)
        .limit(limit)
    )
    return [_upload(row) for row in connection.execute(statement)]


def forget_uploads(connection: Connection, *, ended_before: int) -> None:
    """Delete the rows of uploads that ended, whose time was over before ``ended_before``."""
    connection.execute(
        delete(_uploads).where(_uploads.c.status != UploadStatus.PENDING, _uploads.c.expires_at < ended_before)
    )


def next_expiry(connection: Connection) -> int | None:
    """When the first pending upload expires; ``None`` without one."""
    statement = select(func.min(_uploads.c.expires_at)).where(_uploads.c.status == UploadStatus.PENDING)
    first: int | None = connection.execute(statement).scalar_one()
    return first


def uploads_of_tenant(connection: Connection, tenant: TenantId) -> list[UploadSession]:
    """All uploads of a tenant, oldest first."""
    statement = select(_uploads).where(_uploads.c.tenant == tenant).order_by(_uploads.c.id)
    return [_upload(row) for row in connection.execute(statement)]


def pending_bytes(connection: Connection, tenant: TenantId) -> int:
    """The bytes of the parts of a tenant's uploads."""
    statement = select(func.coalesce(func.sum(_parts.c.size_bytes), 0)).where(_parts.c.tenant == tenant)
    return int(connection.execute(statement).scalar_one())


def remove_uploads_of_tenant(connection: Connection, tenant: TenantId, *, now: int) -> list[str]:
    """Delete all uploads of a tenant; returns SHA-256 of the stored files to remove, whose removal is noted."""
    digests = list(connection.execute(select(_parts.c.sha256).where(_parts.c.tenant == tenant).distinct()).scalars())
    connection.execute(delete(_parts).where(_parts.c.tenant == tenant))
    connection.execute(delete(_uploads).where(_uploads.c.tenant == tenant))
    return [digest for digest in digests if add_removal(connection, tenant, digest, now=now)]
