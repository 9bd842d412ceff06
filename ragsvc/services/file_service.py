"""Upload, read, list and delete files, which documents can be made from, and remove those that have expired."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.defaults import DEFAULT_MAX_FILE_BYTES, MAX_FILENAME_LENGTH
from ragsvc.core.errors import FileNotFound, PolicyDenied, StoredDataDamaged
from ragsvc.core.files import FILE_ID_PREFIX, WHOLE_TENANT, FilePurpose, FileReach, UploadedFile
from ragsvc.core.ids import CollectionId, KeyId, TenantId
from ragsvc.core.validation import check_text_length
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.document_service import UploadInProgress
from ragsvc.services.idempotency import IdempotentRequest, once, recall
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.ingest_jobs import IngestService
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import file_rows
from ragsvc.store.blobs import BlobStore, FileContent, IncomingFile
from ragsvc.store.database import Database
from ragsvc.store.disk_space import DiskSpace
from ragsvc.store.file_deletion_rows import DeletedFile, delete_file
from ragsvc.store.file_removal_rows import forget_removal

logger = logging.getLogger(__name__)

_BATCH_EXPIRES_AFTER_S: Final = 30 * 86_400
"""Files of batches expire unless the client says otherwise (OpenAI: ``POST /v1/files``)."""

_SWEPT_AT_ONCE: Final = 100
_DEFAULT_NAME: Final = "file"


class _NewDocuments(Exception):
    """A document was made meanwhile from the file that is being deleted, in another collection."""


class FileUpload(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a file. ``filename`` is ``None`` if the client gave none."""

    filename: str | None = None
    media_type: str
    purpose: FilePurpose
    expires_after_s: int | None = None


class FileService:
    """The files of all tenants; every method takes the tenant on whose behalf it is called."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        ingest: IngestService,
        hub: ProgressHub,
        index_lag: IndexLag,
        max_file_bytes: int = DEFAULT_MAX_FILE_BYTES,
        quotas: TenantQuotas | None = None,
        space: DiskSpace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``space`` refuses files while the disk is full."""
        self._database = database
        self._blobs = blobs
        self._ingest = ingest
        self._hub = hub
        self._index_lag = index_lag
        self._quotas = quotas or TenantQuotas()
        self._space = space
        self._clock = clock
        self.max_file_bytes = max_file_bytes

    # -- upload ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def receiving(
        self, *, limit_bytes: int | None = None, what: str = "file"
    ) -> AsyncGenerator[UploadInProgress]:
        """Receive bytes; at the end of the block their temporary file is removed unless it was stored.

        ``limit_bytes`` is ``max_file_bytes`` by default; ``what`` names the bytes in errors.

        Raises:
            TooLarge: when the limit is exceeded.
            StorageFull: the disk is full.
        """
        if self._space is not None:
            self._space.check()
        limit = self.max_file_bytes if limit_bytes is None else limit_bytes
        receiving = UploadInProgress(
            lambda: self._blobs.incoming(limit_bytes=limit, what=what), limit_bytes=limit, what=what
        )
        try:
            yield receiving
        finally:
            await receiving.discard()

    async def add(
        self,
        tenant: TenantId,
        receiving: UploadInProgress,
        upload: FileUpload,
        *,
        created_by: KeyId | None = None,
        identify: Callable[..., IdempotentRequest | None] = lambda *_: None,
        require_caller: Callable[[Connection], None] = lambda _: None,
    ) -> UploadedFile:
        """Store received bytes as a file. When this returns, the bytes and the row survive any crash.

        ``identify`` makes the identity of a repeatable request from the SHA-256 and the parameters; a repetition
        returns the file and changes nothing. ``require_caller`` runs in the transaction of the file; it raises if the
        caller may not store it any more.

        Raises:
            FileNotFound: a repetition, and the file was deleted in between.
            QuotaExceeded: the tenant may not store the file.
        """
        if upload.filename is not None:
            check_text_length("filename", upload.filename, maximum=MAX_FILENAME_LENGTH)
        sha256 = await receiving.finish()
        request = identify(sha256.encode(), msgspec.json.encode(upload))
        async with self._ingest.file_locks.of(tenant, sha256):
            now = int(self._clock())
            known = await self._database.read(lambda connection: recall(connection, request, now=now, kind=str))
            if known is not None:
                return await self.get(tenant, known)

            def register(connection: Connection) -> UploadedFile:
                require_caller(connection)
                file = self.insert(
                    connection,
                    tenant,
                    upload,
                    sha256=sha256,
                    size_bytes=receiving.incoming.size_bytes,
                    created_by=created_by,
                    now=now,
                )
                once(connection, request, now=now, kind=str, change=lambda: file.public_id)
                return file

            return await self.store(tenant, receiving.incoming, sha256, register)

    async def store(
        self,
        tenant: TenantId,
        incoming: IncomingFile,
        sha256: str,
        register: Callable[[Connection], UploadedFile],
    ) -> UploadedFile:
        """Publish finished bytes and write the row that refers to them; the caller holds the lock of the bytes."""
        async with self._ingest.file_removals.storing(tenant, sha256):
            await anyio.to_thread.run_sync(self._blobs.publish, incoming, tenant, sha256)
            return await write_to_the_end(self._database, register)

    def insert(
        self,
        connection: Connection,
        tenant: TenantId,
        upload: FileUpload,
        *,
        sha256: str,
        size_bytes: int,
        created_by: KeyId | None,
        now: int,
    ) -> UploadedFile:
        """Insert a file whose bytes are stored, in the transaction of the caller. Raises ``QuotaExceeded``."""
        self._quotas.check_file(connection, tenant, size_bytes)
        forget_removal(connection, tenant, sha256)
        expires_after_s = upload.expires_after_s
        if expires_after_s is None and upload.purpose is FilePurpose.BATCH:
            expires_after_s = _BATCH_EXPIRES_AFTER_S
        return file_rows.insert_file(
            connection,
            file_rows.NewFile(
                public_id=f"{FILE_ID_PREFIX}{secrets.token_hex(12)}",
                tenant=tenant,
                filename=upload.filename or _DEFAULT_NAME,
                media_type=upload.media_type,
                size_bytes=size_bytes,
                sha256=sha256,
                purpose=upload.purpose,
                created_at=now,
                created_by=created_by,
                expires_at=None if expires_after_s is None else now + expires_after_s,
            ),
        )

    # -- read --------------------------------------------------------------------------------------------------

    async def get(self, tenant: TenantId, public_id: str, *, reach: FileReach = WHOLE_TENANT) -> UploadedFile:
        """Return a file. Raises ``FileNotFound``."""
        now = int(self._clock())
        return await self._database.read(
            lambda connection: file_rows.find_file(connection, tenant, public_id, now=now, reach=reach)
        )

    async def list_page(
        self,
        tenant: TenantId,
        *,
        reach: FileReach = WHOLE_TENANT,
        purpose: str | None = None,
        limit: int,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> tuple[list[UploadedFile], bool]:
        """One page of files, and whether more follow. Raises ``FileNotFound`` for an unknown cursor."""
        now = int(self._clock())
        return await self._database.read(
            lambda connection: file_rows.list_files(
                connection,
                tenant,
                now=now,
                reach=reach,
                purpose=purpose,
                limit=limit,
                after=after,
                before=before,
                descending=descending,
            )
        )

    async def content(
        self, tenant: TenantId, public_id: str, *, reach: FileReach = WHOLE_TENANT
    ) -> tuple[UploadedFile, FileContent]:
        """The stored bytes: their path, or a reader if they are encrypted or stored elsewhere.

        Raises:
            FileNotFound: the caller has no such file.
            StoredDataDamaged: the bytes are missing or were altered.
            StorageUnavailable: the bytes are stored elsewhere and cannot be fetched.
        """
        file = await self.get(tenant, public_id, reach=reach)
        try:
            await anyio.to_thread.run_sync(self._blobs.check, tenant, file.sha256)
        except StoredDataDamaged as error:
            await self.get(tenant, public_id, reach=reach)  # deleted meanwhile
            raise StoredDataDamaged("The stored bytes of this file are damaged. Upload the file again.") from error
        return file, self._blobs.content(tenant, file.sha256)

    # -- delete ------------------------------------------------------------------------------------------------

    async def delete(self, tenant: TenantId, public_id: str, *, reach: FileReach = WHOLE_TENANT) -> UploadedFile:
        """Delete a file and, in the same transaction, the documents made from it; then its bytes.

        When this returns, no search finds its documents. A document that was made from another file as well stays.

        Raises:
            FileNotFound: the caller has no such file.
            PolicyDenied: the file has documents in collections that the caller may not use.
        """
        file = await self.get(tenant, public_id, reach=reach)
        deleted: DeletedFile | None = None
        with anyio.CancelScope(shield=True):
            deleted = await self._delete_everywhere(file, reach)
        if deleted is None:
            raise FileNotFound(f"There is no file '{public_id[:100]}'.", param="file_id")
        return deleted.file

    async def _delete_everywhere(self, file: UploadedFile, reach: FileReach) -> DeletedFile | None:
        """Delete a file with its documents; ``None`` if it was deleted meanwhile."""
        while True:
            known = await self._database.read(lambda connection: _collections_of(connection, file, reach))
            with contextlib.suppress(_NewDocuments):
                return await self._delete_in(known, file, reach)

    async def _delete_in(self, known: set[CollectionId], file: UploadedFile, reach: FileReach) -> DeletedFile | None:
        """Delete a file whose documents are in these collections, and make searches wait for the indexes of them."""

        def write(connection: Connection) -> DeletedFile | None:
            current = file_rows.get_file_by_row_id(connection, file.id)
            if current is None:
                return None
            if not _collections_of(connection, file, reach) <= known:
                raise _NewDocuments
            return delete_file(connection, current, now=int(self._clock()))

        async with AsyncExitStack() as committing:
            for collection_id in sorted(known):
                await committing.enter_async_context(self._index_lag.committing(collection_id))
            async with self._ingest.file_locks.of(file.tenant, file.sha256):
                deleted = await self._database.write(write)
                if deleted is None:
                    return None
                for entry in deleted.documents:
                    self._ingest.stop_work_on(entry.document.id)
                await self._ingest.file_removals.finish_locked(file.tenant, file.sha256)
        await self._finish(deleted)
        return deleted

    async def _finish(self, deleted: DeletedFile) -> None:
        """Remove the bytes of attachments that were deleted as well, and wake the requests that wait."""
        for entry in deleted.documents:
            if entry.blob_unused and entry.document.sha256 != deleted.file.sha256:
                await self._ingest.file_removals.finish(entry.document.tenant, entry.document.sha256)
        for entry in deleted.documents:
            self._hub.notify_deletion(entry.document)

    # -- expiry ------------------------------------------------------------------------------------------------

    async def sweep_expired(self) -> int:
        """Delete the files whose time is over, with their documents; returns their number."""
        swept = 0
        while expired := await self._database.read(
            lambda connection: file_rows.expired_files(connection, now=int(self._clock()), limit=_SWEPT_AT_ONCE)
        ):
            for file in expired:
                with anyio.CancelScope(shield=True):
                    await self._delete_everywhere(file, WHOLE_TENANT)
                swept += 1
        if swept:
            logger.info("deleted %d expired files", swept)
        return swept

    async def next_expiry(self) -> int | None:
        """When the next file expires, in Unix seconds."""
        return await self._database.read(file_rows.next_file_expiry)


def _collections_of(connection: Connection, file: UploadedFile, reach: FileReach) -> set[CollectionId]:
    """The collections with documents of a file. Raises ``PolicyDenied`` if the caller may not use one of them."""
    documents = file_rows.documents_of_file(connection, file.id)
    if reach.collections and any(document.collection not in reach.collections for document in documents):
        raise PolicyDenied(
            "The file has documents in collections that this key may not use. Delete it with another key.",
            param="file_id",
        )
    return {document.collection_id for document in documents}
