"""Uploads in parts: parts are stored in any order, also at the same time, and become a file when the upload ends.

Each part is a stored file with a row, so that parts survive a restart. A completed, cancelled or expired upload has no
parts.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.defaults import MAX_FILENAME_LENGTH
from ragsvc.core.errors import (
    CryptoFailure,
    InvalidRequest,
    QuotaExceeded,
    StoredDataDamaged,
    TooLarge,
    UploadNotFound,
)
from ragsvc.core.file_types import HEAD_BYTES, TAIL_BYTES, stored_media_type
from ragsvc.core.files import FilePurpose, FileReach, UploadedFile, UploadPart, UploadSession, UploadStatus
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.validation import check_text_length, invalid_value
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.document_service import UploadInProgress
from ragsvc.services.file_removals import FileRemovals
from ragsvc.services.file_service import FileService, FileUpload
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import file_rows, upload_rows
from ragsvc.store.blobs import BlobStore, IncomingFile
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)

UPLOAD_EXPIRES_AFTER_S: Final = 3600
MAX_UPLOAD_PARTS: Final = 2000
MAX_PENDING_UPLOADS: Final = 100
"""Of a tenant."""

_KEEP_ENDED_S: Final = 3600
"""How long an upload that has ended is known after its time: a repeated request still gets its state."""
_SWEPT_AT_ONCE: Final = 100


class UploadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a client announces. ``media_type`` may be wrong: the content decides where it can."""

    filename: str
    media_type: str
    size_bytes: int
    purpose: FilePurpose
    expires_after_s: int | None = None


class UploadState(msgspec.Struct, frozen=True):
    """An upload, and the file that it became."""

    upload: UploadSession
    file: UploadedFile | None = None


class UploadService:
    """The uploads in parts of all tenants; every method takes the tenant on whose behalf it is called."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        files: FileService,
        removals: FileRemovals,
        quotas: TenantQuotas | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._files = files
        self._removals = removals
        self._quotas = quotas or TenantQuotas()
        self._clock = clock

    async def create(
        self,
        tenant: TenantId,
        plan: UploadPlan,
        *,
        created_by: KeyId | None = None,
        require_caller: Callable[[Connection], None] = lambda _: None,
    ) -> UploadState:
        """Begin an upload.

        Raises:
            TooLarge: more bytes than a file may have.
            QuotaExceeded: the tenant may not store so many bytes, or has too many uploads that have not ended.
        """
        check_text_length("filename", plan.filename, maximum=MAX_FILENAME_LENGTH)
        limit = self._files.max_file_bytes
        if plan.size_bytes > limit:
            raise TooLarge(f"The file is larger than {limit} bytes.", limit_bytes=limit, param="bytes")
        now = int(self._clock())

        def write(connection: Connection) -> UploadSession:
            require_caller(connection)
            self._quotas.check_file(connection, tenant, plan.size_bytes)
            if upload_rows.count_pending(connection, tenant) >= MAX_PENDING_UPLOADS:
                raise QuotaExceeded(
                    f"The tenant '{tenant}' has {MAX_PENDING_UPLOADS} uploads that have not ended. Complete or cancel "
                    "them first."
                )
            return upload_rows.insert_upload(
                connection,
                upload_rows.NewUpload(
                    public_id=f"upload_{secrets.token_hex(12)}",
                    tenant=tenant,
                    filename=plan.filename,
                    media_type=plan.media_type,
                    size_bytes=plan.size_bytes,
                    purpose=plan.purpose,
                    created_by=created_by,
                    created_at=now,
                    expires_at=now + UPLOAD_EXPIRES_AFTER_S,
                    file_expires_after_s=plan.expires_after_s,
                ),
            )

        return UploadState(await write_to_the_end(self._database, write))

    async def require_pending(self, tenant: TenantId, public_id: str, *, reach: FileReach) -> UploadSession:
        """Return an upload that can be continued. Raises ``UploadNotFound``, and ``InvalidRequest`` if it has ended."""
        return await self._database.read(lambda connection: self._pending(connection, tenant, public_id, reach))

    def _pending(self, connection: Connection, tenant: TenantId, public_id: str, reach: FileReach) -> UploadSession:
        upload = upload_rows.find_upload(connection, tenant, public_id, reach=reach)
        status = upload.status
        if status is UploadStatus.PENDING and upload.expires_at <= self._clock():
            status = UploadStatus.EXPIRED
        if status is not UploadStatus.PENDING:
            raise InvalidRequest(f"The upload '{public_id}' is {status}. Create a new upload.", param="upload_id")
        return upload

    async def add_part(
        self,
        tenant: TenantId,
        public_id: str,
        receiving: UploadInProgress,
        *,
        reach: FileReach,
        require_caller: Callable[[Connection], None] = lambda _: None,
    ) -> UploadPart:
        """Store received bytes as a part. When this returns, the part survives any crash.

        Raises:
            UploadNotFound: the caller has no such upload.
            InvalidRequest: the upload has ended, or has more parts or bytes than it can need.
            QuotaExceeded: the tenant may not store the part.
        """
        sha256 = await receiving.finish()
        size_bytes = receiving.incoming.size_bytes
        if not size_bytes:
            raise invalid_value("data", "Expected at least 1 byte")

        def write(connection: Connection) -> UploadPart:
            require_caller(connection)
            upload = self._pending(connection, tenant, public_id, reach)
            count, stored = upload_rows.count_parts(connection, upload.id)
            if count >= MAX_UPLOAD_PARTS:
                raise InvalidRequest(f"An upload has at most {MAX_UPLOAD_PARTS} parts. Send larger parts.")
            if size_bytes > upload.size_bytes or stored + size_bytes > 2 * upload.size_bytes:
                # twice: a client that got no answer sends a part again
                raise InvalidRequest(
                    f"The parts have more bytes than the {upload.size_bytes} that were announced.", param="data"
                )
            self._quotas.check_bytes(connection, tenant, size_bytes)
            return upload_rows.add_part(
                connection,
                upload,
                public_id=f"part_{secrets.token_hex(12)}",
                size_bytes=size_bytes,
                sha256=sha256,
                now=int(self._clock()),
            )

        async with self._removals.locked(tenant, sha256), self._removals.storing(tenant, sha256):
            await anyio.to_thread.run_sync(self._blobs.publish, receiving.incoming, tenant, sha256)
            return await write_to_the_end(self._database, write)

    async def complete(
        self,
        tenant: TenantId,
        public_id: str,
        part_ids: Sequence[str],
        *,
        md5: str | None = None,
        reach: FileReach,
        require_caller: Callable[[Connection], None] = lambda _: None,
    ) -> UploadState:
        """Make a file of the parts, in the order of ``part_ids``; a repetition returns the same file.

        Raises:
            UploadNotFound: the caller has no such upload, or the upload has no such part.
            InvalidRequest: the upload was cancelled or has expired, a part is named twice, or the bytes are not as many
                as were announced or do not have the checksum ``md5``.
            QuotaExceeded: the tenant may not store the file.
        """
        found = await self._database.read(
            lambda connection: (
                self._ended(connection, tenant, public_id, reach)
                or self._chosen(connection, tenant, public_id, part_ids, reach)
            )
        )
        if isinstance(found, UploadState):
            return found
        upload, parts = found
        async with self._files.receiving() as receiving:
            try:
                media_type = await anyio.to_thread.run_sync(
                    lambda: self._join(upload, parts, receiving.opened(), md5=md5)
                )
            except (FileNotFoundError, CryptoFailure) as error:
                ended = await self._database.read(lambda connection: self._ended(connection, tenant, public_id, reach))
                if ended is not None:  # completed by another request, which removed the parts
                    return ended
                await self.require_pending(tenant, public_id, reach=reach)  # cancelled meanwhile
                raise StoredDataDamaged("A stored part is damaged. Create a new upload.") from error
            sha256 = await receiving.finish()
            state, unused = await self._register(
                upload, receiving.incoming, sha256, media_type, reach=reach, require_caller=require_caller
            )
        for digest in unused:
            await self._removals.finish(tenant, digest)
        return state

    def _chosen(
        self, connection: Connection, tenant: TenantId, public_id: str, part_ids: Sequence[str], reach: FileReach
    ) -> tuple[UploadSession, list[UploadPart]]:
        upload = self._pending(connection, tenant, public_id, reach)
        parts = {part.public_id: part for part in upload_rows.parts_of(connection, upload.id)}
        if len(set(part_ids)) < len(part_ids):
            raise invalid_value("part_ids", "Expected each part once")
        for part_id in part_ids:
            if part_id not in parts:
                raise UploadNotFound(f"The upload has no part '{part_id[:100]}'.", param="part_ids")
        chosen = [parts[part_id] for part_id in part_ids]
        size_bytes = sum(part.size_bytes for part in chosen)
        if size_bytes != upload.size_bytes:
            raise InvalidRequest(
                f"The parts have {size_bytes} bytes together, and {upload.size_bytes} were announced.", param="part_ids"
            )
        return upload, chosen

    def _join(
        self, upload: UploadSession, parts: Sequence[UploadPart], incoming: IncomingFile, *, md5: str | None
    ) -> str:
        """Write the parts one after the other; returns the media type. Blocks."""
        digest = hashlib.md5(usedforsecurity=False)
        head, tail = b"", b""
        for part in parts:
            for piece in self._blobs.chunks(upload.tenant, part.sha256):
                incoming.write(piece)
                digest.update(piece)
                if len(head) < HEAD_BYTES:
                    head += piece[: HEAD_BYTES - len(head)]
                tail = (tail + piece[-TAIL_BYTES:])[-TAIL_BYTES:]
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise invalid_value("md5", "The checksum of the joined parts is another one")
        return stored_media_type(upload.media_type, upload.filename, head=head, tail=tail)

    async def _register(
        self,
        upload: UploadSession,
        incoming: IncomingFile,
        sha256: str,
        media_type: str,
        *,
        reach: FileReach,
        require_caller: Callable[[Connection], None],
    ) -> tuple[UploadState, list[str]]:
        """Write the file and end the upload in one transaction; returns the stored parts that are not used any more."""
        tenant = upload.tenant
        unused: list[str] = []
        now = int(self._clock())

        def write(connection: Connection) -> UploadedFile:
            require_caller(connection)
            current = upload_rows.find_upload(connection, tenant, upload.public_id, reach=reach)
            if current.status is UploadStatus.COMPLETED and current.file_id is not None:  # by another request
                file = file_rows.get_file_by_row_id(connection, current.file_id)
                if file is not None:
                    return file
            self._pending(connection, tenant, upload.public_id, reach)
            unused.extend(upload_rows.end_upload(connection, current, UploadStatus.COMPLETED, now=now))
            file = self._files.insert(
                connection,
                tenant,
                FileUpload(
                    filename=upload.filename,
                    media_type=media_type,
                    purpose=FilePurpose(upload.purpose),
                    expires_after_s=upload.file_expires_after_s,
                ),
                sha256=sha256,
                size_bytes=incoming.size_bytes,
                created_by=upload.created_by,
                now=now,
            )
            upload_rows.set_file(connection, current, file.id)
            return file

        async with self._removals.locked(tenant, sha256):
            file = await self._files.store(tenant, incoming, sha256, write)
            if file.sha256 != sha256:  # another request completed the upload with its parts in another order
                await self._removals.finish_locked(tenant, sha256)
        ended = msgspec.structs.replace(upload, status=UploadStatus.COMPLETED, file_id=file.id)
        return UploadState(ended, file), unused

    def _ended(self, connection: Connection, tenant: TenantId, public_id: str, reach: FileReach) -> UploadState | None:
        """The upload if it was completed before and its file exists."""
        upload = upload_rows.find_upload(connection, tenant, public_id, reach=reach)
        if upload.status is not UploadStatus.COMPLETED or upload.file_id is None:
            return None
        file = file_rows.get_file_by_row_id(connection, upload.file_id)
        return None if file is None else UploadState(upload, file)

    async def cancel(self, tenant: TenantId, public_id: str, *, reach: FileReach) -> UploadState:
        """End an upload and remove its parts; a repetition changes nothing.

        Raises:
            UploadNotFound: the caller has no such upload.
            InvalidRequest: the upload was completed or has expired.
        """
        unused: list[str] = []

        def write(connection: Connection) -> UploadSession:
            upload = upload_rows.find_upload(connection, tenant, public_id, reach=reach)
            if upload.status is UploadStatus.CANCELLED:
                return upload
            upload = self._pending(connection, tenant, public_id, reach)
            unused.extend(upload_rows.end_upload(connection, upload, UploadStatus.CANCELLED, now=int(self._clock())))
            return msgspec.structs.replace(upload, status=UploadStatus.CANCELLED)

        upload = await write_to_the_end(self._database, write)
        for sha256 in unused:
            await self._removals.finish(tenant, sha256)
        return UploadState(upload)

    async def sweep_expired(self) -> int:
        """End the uploads whose time is over, and forget those that ended long ago; returns the number of expired."""
        swept = 0

        def write(connection: Connection) -> tuple[int, list[tuple[TenantId, str]]]:
            now = int(self._clock())
            expired = upload_rows.expired_uploads(connection, now=now, limit=_SWEPT_AT_ONCE)
            unused = [
                (upload.tenant, sha256)
                for upload in expired
                for sha256 in upload_rows.end_upload(connection, upload, UploadStatus.EXPIRED, now=now)
            ]
            upload_rows.forget_uploads(connection, ended_before=now - _KEEP_ENDED_S)
            return len(expired), unused

        while True:
            count, unused = await self._database.write(write)
            for tenant, sha256 in unused:
                await self._removals.finish(tenant, sha256)
            swept += count
            if count < _SWEPT_AT_ONCE:
                break
        if swept:
            logger.info("removed %d expired uploads", swept)
        return swept

    async def next_expiry(self) -> int | None:
        """When the next upload expires, in Unix seconds."""
        return await self._database.read(upload_rows.next_expiry)
