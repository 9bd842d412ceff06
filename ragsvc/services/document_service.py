"""Upload, read, list, change, retry and delete documents, and wait for their ingest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.defaults import DEFAULT_COLLECTION, MAX_FILENAME_LENGTH
from ragsvc.core.documents import Document, DocumentStatus, Page, Problem, ProblemCode, StoredPassage
from ragsvc.core.errors import (
    Conflict,
    DocumentNotFound,
    FailureReason,
    Overloaded,
    StorageFull,
    StoredDataDamaged,
    UnsupportedMediaType,
)
from ragsvc.core.file_names import default_filename
from ragsvc.core.file_types import HEAD_BYTES, MEDIA_TYPES, READABLE, TAIL_BYTES
from ragsvc.core.files import UploadedFile
from ragsvc.core.ids import TenantId, new_document_id
from ragsvc.core.validation import MAX_INTEGER, check_collection_name, check_number, check_text_length, invalid_value
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.arrivals import Arrival, Arrivals
from ragsvc.services.idempotency import IdempotentRequest, once, recall
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.ingest_jobs import IngestService, stored_file_damaged
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import attachment_rows, file_rows, passage_rows
from ragsvc.store import document_rows as rows
from ragsvc.store import job_rows as jobs
from ragsvc.store.blobs import BlobStore, FileContent, IncomingFile, check_size
from ragsvc.store.database import Database
from ragsvc.store.disk_space import DiskSpace
from ragsvc.store.document_changes import change_document
from ragsvc.store.document_listing import (
    DocumentCounts,
    DocumentFilter,
    DocumentOrder,
    count_documents_by_kind,
    list_documents,
)
from ragsvc.store.document_rows import DeletedDocument
from ragsvc.store.file_deletion_rows import separate_file
from ragsvc.store.text_integrity import is_readable

_BUFFER_BYTES = 1 << 20
_ARRIVAL_S = 0.05
"""How long a small upload may wait for others, so that one commit registers all of them."""
_MAX_METADATA_KEYS = 64
_MAX_METADATA_BYTES = 16_384

UpdatedField = Literal["filename", "metadata"]
"""A field of a stored document that a repeated upload can change."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of an upload. ``media_type`` of a text may have a ``charset`` parameter.

    ``filename`` and ``metadata`` are ``None`` if the client gave none.
    """

    filename: str | None = None
    media_type: str
    collection: str = DEFAULT_COLLECTION
    metadata: Mapping[str, Any] | None = None
    password: str | None = None


class UploadResult(msgspec.Struct, frozen=True):
    """The document of an upload; ``created`` is ``False`` if the collection already contained these bytes.

    ``updated`` are the fields of that document which the upload changed.
    """

    document: Document
    created: bool
    updated: tuple[UpdatedField, ...] = ()


class DocumentService:
    """The documents of all tenants; every method takes the tenant on whose behalf it is called."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        ingest: IngestService,
        hub: ProgressHub,
        index_lag: IndexLag,
        max_document_bytes: int,
        max_queued: int,
        quotas: TenantQuotas | None = None,
        space: DiskSpace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``space`` refuses uploads while the disk is full."""
        self._space = space
        self._database = database
        self._blobs = blobs
        self._ingest = ingest
        self._hub = hub
        self._index_lag = index_lag
        self._max_queued = max_queued
        self._quotas = quotas or TenantQuotas()
        self._clock = clock
        self.max_document_bytes = max_document_bytes
        self._arrivals = Arrivals(wait_s=_ARRIVAL_S)

    # -- upload ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def receiving(self, *, announced_bytes: int | None = None) -> AsyncGenerator[UploadInProgress]:
        """Receive an upload; at the end of the block its temporary file is removed unless ``add`` has stored it.

        Raises:
            TooLarge: immediately if ``announced_bytes`` exceeds the limit, otherwise when the limit is exceeded.
            StorageFull: the disk is full.
        """
        if self._space is not None:
            self._space.check()
        limit = self.max_document_bytes
        check_size(announced_bytes or 0, limit_bytes=limit, what="document")
        receiving = UploadInProgress(lambda: self._blobs.incoming(limit_bytes=limit), limit_bytes=limit)
        try:
            yield receiving
        finally:
            await receiving.discard()

    async def add(
        self,
        tenant: TenantId,
        receiving: UploadInProgress,
        upload: Upload,
        *,
        identify: Callable[..., IdempotentRequest | None] = lambda *_: None,
        require_caller: Callable[[Connection], None] = lambda _: None,
    ) -> UploadResult:
        """Store received bytes as a document and queue it; if the collection contains the bytes, update that document.

        The last name given wins: a repeated upload with a file name or with metadata changes these as ``change`` does.
        When this returns, the bytes and the rows survive any crash. ``identify`` makes the identity of a repeatable
        request from the SHA-256 and the parameters; a repetition returns the document and changes nothing.
        ``require_caller`` runs in the transaction of a new document; it raises if the caller may not store it any more.

        Raises:
            DocumentNotFound: a repetition, and the document was deleted in between.
        """
        _check(upload)
        with self._arrivals.expected() as arrival:
            return await self._add(tenant, receiving, upload, arrival, identify=identify, require_caller=require_caller)

    async def _add(
        self,
        tenant: TenantId,
        receiving: UploadInProgress,
        upload: Upload,
        arrival: Arrival,
        *,
        identify: Callable[..., IdempotentRequest | None],
        require_caller: Callable[[Connection], None],
    ) -> UploadResult:
        if not jobs.is_small(upload.media_type, receiving.size_bytes):
            arrival.give_up()  # nobody waits until a large file is written
        sha256 = await receiving.finish()
        request = identify(sha256.encode(), msgspec.json.encode(upload))
        async with self._file_lock(tenant, sha256):
            now = int(self._clock())
            if request is not None:
                known = await self._database.read(lambda connection: recall(connection, request, now=now, kind=str))
                if known is not None:
                    return UploadResult(document=await self.get(tenant, known), created=True)
            return await self._register(
                tenant, receiving.incoming, sha256, upload, arrival, request=request, require_caller=require_caller
            )

    async def _register(
        self,
        tenant: TenantId,
        incoming: IncomingFile,
        sha256: str,
        upload: Upload,
        arrival: Arrival,
        *,
        request: IdempotentRequest | None,
        require_caller: Callable[[Connection], None],
    ) -> UploadResult:
        now = int(self._clock())

        def keep(connection: Connection) -> Document | None:
            document = _find_uploaded(connection, tenant, upload.collection, sha256)
            if document is None:
                return None
            attachment_rows.mark_uploaded(connection, document.id)
            rows.ensure_implicit_file(connection, document, now=now)
            return rows.get_by_row_id(connection, document.id)

        def find_kept(connection: Connection) -> tuple[Document | None, bool]:
            document = _find_uploaded(connection, tenant, upload.collection, sha256)
            kept = document is not None and not document.attached
            return document, kept and document is not None and file_rows.has_implicit_file(connection, document.id)

        existing, kept = await self._database.read(find_kept)
        if existing is not None and not kept:  # from now on it outlives what it is attached to, and its other files
            existing = await self._database.write(keep)
        if existing is not None:
            arrival.give_up()
            with contextlib.suppress(DocumentNotFound):  # deleted meanwhile: the bytes become a new document
                await self._mend_file(existing, incoming)
                again = await self._uploaded_again(existing, upload)
                await self._remember(request, again.document)
                return again

        is_small = upload.password is None and jobs.is_small(upload.media_type, incoming.size_bytes)

        def register(connection: Connection) -> Document:
            if not jobs.has_room(connection, self._max_queued):
                raise Overloaded("Too many documents are queued. Try again later.", retry_after_s=10)
            require_caller(connection)
            self._quotas.check_document(connection, tenant, upload.collection, incoming.size_bytes)
            collection = rows.ensure_collection(connection, tenant, upload.collection, now=now)
            document = rows.insert_document(
                connection,
                rows.NewDocument(
                    public_id=new_document_id(),
                    tenant=tenant,
                    collection=collection,
                    filename=upload.filename or default_filename(upload.media_type),
                    media_type=upload.media_type,
                    size_bytes=incoming.size_bytes,
                    sha256=sha256,
                    metadata=upload.metadata or {},
                    created_at=now,
                ),
            )
            if is_small:
                jobs.enqueue_small(connection, document.id, tenant, now=now)
            else:
                jobs.enqueue(connection, document.id, tenant, password=upload.password, now=now)
            once(connection, request, now=now, kind=str, change=lambda: document.public_id)
            return document

        async with self._ingest.file_removals.storing(tenant, sha256):
            await anyio.to_thread.run_sync(self._blobs.publish, incoming, tenant, sha256)
            await arrival.together()
            document = await write_to_the_end(self._database, register)
        self._ingest.kick(small=is_small)
        self._hub.notify(document)
        return UploadResult(document=document, created=True)

    async def _remember(self, request: IdempotentRequest | None, document: Document) -> None:
        now = int(self._clock())
        if request is not None:
            await self._database.write(
                lambda connection: once(connection, request, now=now, kind=str, change=lambda: document.public_id)
            )

    async def _mend_file(self, existing: Document, incoming: IncomingFile) -> None:
        """Store the bytes again if the file of the document is missing or damaged."""
        if await anyio.to_thread.run_sync(self._blobs.is_intact, existing.tenant, existing.sha256):
            return
        await anyio.to_thread.run_sync(self._blobs.publish, incoming, existing.tenant, existing.sha256)

        def write(connection: Connection) -> None:
            current = rows.get_by_row_id(connection, existing.id)  # deleted or retried while the file was read
            if current is None:
                return
            rows.remove_problem(connection, current.id, ProblemCode.STORED_FILE_DAMAGED)
            if current.failure_code == FailureReason.STORED_FILE_DAMAGED:
                jobs.requeue(connection, current, password=None, now=int(self._clock()))

        await self._database.write(write)
        self._ingest.kick()

    async def _uploaded_again(self, existing: Document, upload: Upload) -> UploadResult:
        """A repeated upload: take its name and metadata; retry a failure if a password is given that was missing.

        Raises:
            DocumentNotFound: the document was deleted meanwhile.
        """
        filename = upload.filename if upload.filename != existing.filename else None
        metadata = upload.metadata if {**existing.metadata, **(upload.metadata or {})} != existing.metadata else None
        document = existing
        if filename is not None or metadata is not None:
            document = await self.change(existing.tenant, existing.public_id, filename=filename, metadata=metadata)
        if upload.password and document.failure_code in ("password_required", "password_wrong"):
            await self.retry(document.tenant, document.public_id, password=upload.password)
        document = await self.get(existing.tenant, existing.public_id)
        updated: list[UpdatedField] = []
        if document.filename != existing.filename:
            updated.append("filename")
        if document.metadata != existing.metadata:
            updated.append("metadata")
        return UploadResult(document=document, created=False, updated=tuple(updated))

    async def remove_file(self, tenant: TenantId, sha256: str) -> bool:
        """Remove a stored file unless a document that is not being deleted has it; returns whether it was removed."""
        return await self._ingest.file_removals.finish(tenant, sha256, ignore_doomed=True)

    async def remove_stray_files(self, tenant: TenantId) -> int:
        """Remove the files of a tenant that no document refers to, for its deletion; returns their number."""
        removed = 0
        for sha256 in await anyio.to_thread.run_sync(self._blobs.stored_names, tenant):
            removed += await self.remove_file(tenant, sha256)
        removed += await anyio.to_thread.run_sync(self._blobs.remove_quarantined, tenant)
        await anyio.to_thread.run_sync(self._blobs.remove_empty_folder, tenant)
        return removed

    def notify(self, document: Document) -> None:
        """Tell the requests that wait for a document, or follow all of its tenant, that it was changed."""
        self._hub.notify(document)

    def wake(self, public_id: str) -> None:
        """Wake the requests that wait for a document, because it was deleted or changed."""
        self._hub.wake(public_id)

    def notify_many(self, tenant: TenantId) -> None:
        """Tell the requests that follow all documents of a tenant that many of them changed or were deleted."""
        self._hub.notify_many(tenant)

    def _file_lock(self, tenant: TenantId, sha256: str) -> asyncio.Lock:
        """A lock that keeps a file from being stored and removed at the same time."""
        return self._ingest.file_locks.of(tenant, sha256)

    # -- read --------------------------------------------------------------------------------------------------

    async def get(self, tenant: TenantId, public_id: str) -> Document:
        """Return a document. Raises ``DocumentNotFound``."""
        return await self._database.read(lambda connection: rows.get_document(connection, tenant, public_id))

    async def list_page(
        self,
        tenant: TenantId,
        *,
        which: DocumentFilter,
        collection: str | None = None,
        parent_id: str | None = None,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
        order: DocumentOrder = DocumentOrder.CREATED,
    ) -> tuple[list[Document], bool]:
        """One page of documents, and whether more follow. Raises ``CollectionNotFound``, ``DocumentNotFound``."""

        def read(connection: Connection) -> tuple[list[Document], bool]:
            return list_documents(
                connection,
                tenant,
                which=_resolved(connection, tenant, which, collection=collection, parent_id=parent_id),
                limit=limit,
                after=after,
                before=before,
                descending=descending,
                order=order,
            )

        return await self._database.read(read)

    async def count(
        self,
        tenant: TenantId,
        *,
        which: DocumentFilter,
        collection: str | None = None,
        parent_id: str | None = None,
    ) -> DocumentCounts:
        """Count the documents of a listing. Raises ``CollectionNotFound``, ``DocumentNotFound``."""

        def read(connection: Connection) -> DocumentCounts:
            resolved = _resolved(connection, tenant, which, collection=collection, parent_id=parent_id)
            return count_documents_by_kind(connection, tenant, which=resolved)

        return await self._database.read(read)

    async def passages(self, tenant: TenantId, public_id: str, *, after: int | None, limit: int) -> list[StoredPassage]:
        """Passages of one document in reading order, after the passage with the ordinal ``after``.

        Raises:
            DocumentNotFound: the tenant has no such document.
            InvalidRequest: the document has no passage ``after``.
        """

        def read(connection: Connection) -> list[StoredPassage]:
            document = rows.get_document(connection, tenant, public_id)
            return passage_rows.passages_of(connection, document.id, after=after, limit=limit)

        return await self._database.read(read)

    async def page(self, tenant: TenantId, public_id: str, number: int) -> Page:
        """The text of a page. Raises ``DocumentNotFound``, also if the document has no such page."""

        def read(connection: Connection) -> Page | None:
            document = rows.get_document(connection, tenant, public_id)
            return passage_rows.page_of(connection, document.id, number) if abs(number) <= MAX_INTEGER else None

        page = await self._database.read(read)
        if page is None:
            shown = number if abs(number) <= MAX_INTEGER else "with this number"
            raise DocumentNotFound(f"The document '{public_id}' has no page {shown}.", param="page")
        if not is_readable(page.text):
            problem = Problem(
                ProblemCode.STORED_TEXT_DAMAGED, "The stored text of this page is damaged.", number, number
            )
            await self._note(await self.get(tenant, public_id), problem)
            raise StoredDataDamaged(f"The stored text of page {number} is damaged. Upload the document again.")
        return page

    async def content(self, tenant: TenantId, public_id: str) -> tuple[Document, FileContent]:
        """The stored file: its path, or a reader if it is encrypted or stored elsewhere.

        Raises:
            DocumentNotFound: the tenant has no such document.
            StoredDataDamaged: the file is missing or was altered; the document then has a problem that says so.
            StorageUnavailable: the file is stored elsewhere and cannot be fetched.
        """
        document = await self.get(tenant, public_id)
        try:
            await anyio.to_thread.run_sync(self._blobs.check, tenant, document.sha256)
        except StoredDataDamaged as error:
            await self._note(document, stored_file_damaged(document, error))
            raise
        return document, self._blobs.content(tenant, document.sha256)

    async def _note(self, document: Document, problem: Problem) -> None:
        """Add a problem to a document; the error that led to it matters more than a failure to write."""
        with contextlib.suppress(StorageFull, Overloaded):
            await self._database.write(lambda connection: rows.add_problem(connection, document.id, problem))

    def eta_s(self, document: Document) -> float | None:
        """Estimated seconds until ready; ``None`` if unknown."""
        return self._ingest.eta_s(document)

    def stop_waiting(self) -> None:
        """End all calls of ``wait`` and ``follow`` with the present state, because the service stops."""
        self._hub.close()

    async def wait(self, tenant: TenantId, public_id: str, *, timeout_s: float) -> Document:
        """Wait until a document is ready or failed, at most ``timeout_s``; returns its latest state."""
        deadline = anyio.current_time() + timeout_s
        with self._hub.watch(public_id) as watch:
            while True:
                document = await self.get(tenant, public_id)
                left = deadline - anyio.current_time()
                if _has_ended(document) or left <= 0 or self._hub.closed:
                    return document
                await watch.changed(timeout_s=left)

    async def follow(self, tenant: TenantId, public_id: str, *, every_s: float) -> AsyncIterator[Document | None]:
        """States of a document as they change, until it is ready, failed or deleted; ``None`` without a change."""
        with self._hub.watch(public_id) as watch:
            previous: Document | None = None
            while True:
                document = await self.get(tenant, public_id)
                yield document if document != previous else None
                if _has_ended(document) or self._hub.closed:
                    return
                previous = document
                await watch.changed(timeout_s=every_s)

    # -- change ------------------------------------------------------------------------------------------------

    async def change(
        self, tenant: TenantId, public_id: str, *, filename: str | None, metadata: Mapping[str, Any] | None
    ) -> Document:
        """Rename a document, or merge into its metadata (``None`` removes a key). Raises ``DocumentNotFound``.

        When this returns, words of the new name find the document and words of the former name do not. Its vectors
        follow in the background; until then, search by meaning uses those of the former name.
        """
        if filename is not None:
            check_text_length("filename", filename, maximum=MAX_FILENAME_LENGTH)

        def merge(current: dict[str, Any]) -> dict[str, Any]:
            merged = {key: value for key, value in {**current, **(metadata or {})}.items() if value is not None}
            _check_metadata(merged)
            return merged

        def write(connection: Connection) -> Document:
            return change_document(
                connection,
                tenant,
                public_id,
                filename=filename,
                change_metadata=None if metadata is None else merge,
                now=int(self._clock()),
            )

        if filename is None:
            document = await self._database.write(write)
            self._hub.notify(document)
            return document
        document = await self.get(tenant, public_id)
        with anyio.CancelScope(shield=True):  # once it is committed, the index has to follow
            async with self._index_lag.committing(document.collection_id):
                document = await self._database.write(write)
        self._ingest.kick()
        self._hub.notify(document)
        return document

    async def retry(self, tenant: TenantId, public_id: str, *, password: str | None = None) -> Document:
        """Ingest a failed document again. Raises ``Conflict`` if it has not failed, and ``DocumentNotFound``."""

        def write(connection: Connection) -> Document:
            document = rows.get_document(connection, tenant, public_id)
            if document.status is not DocumentStatus.FAILED:
                raise Conflict(
                    f"The document '{public_id}' is {document.status}. Only failed documents can be retried."
                )
            jobs.requeue(connection, document, password=password, now=int(self._clock()))
            return rows.get_document(connection, tenant, public_id)

        document = await self._database.write(write)
        self._ingest.kick()
        self._hub.notify(document)
        return document

    async def delete(self, tenant: TenantId, public_id: str) -> Document:
        """Remove a document from rows, files and both indexes; when this returns, no search finds it.

        Raises:
            DocumentNotFound: the tenant has no such document.
        """
        document = await self.get(tenant, public_id)
        with anyio.CancelScope(shield=True):
            await self._delete_everywhere(
                document,
                lambda connection: rows.delete_with_attachments(
                    connection, document.tenant, document.public_id, now=int(self._clock())
                ),
            )
        return document

    async def separate(self, tenant: TenantId, public_id: str, file: UploadedFile) -> None:
        """Remove a file from a document, and the document as ``delete`` does if it has no other file.

        Raises:
            DocumentNotFound: the tenant has no such document.
        """
        document = await self.get(tenant, public_id)
        with anyio.CancelScope(shield=True):
            await self._delete_everywhere(
                document,
                lambda connection: separate_file(connection, document, file, now=int(self._clock())),
            )

    async def _delete_everywhere(
        self, document: Document, delete: Callable[[Connection], list[DeletedDocument]]
    ) -> None:
        """Delete documents in one transaction, ``document`` first, and then what only they used."""
        async with (
            self._index_lag.committing(document.collection_id),
            self._file_lock(document.tenant, document.sha256),
        ):
            deleted = await self._database.write(delete)
            for entry in deleted:
                self._ingest.stop_work_on(entry.document.id)
            await self._ingest.file_removals.finish_locked(document.tenant, document.sha256)
        for entry in deleted[1:]:
            if entry.blob_unused:
                await self._ingest.file_removals.finish(entry.document.tenant, entry.document.sha256)
        for entry in deleted:
            self._hub.notify_deletion(entry.document)


class UploadInProgress:
    """An upload that is being received: buffered, then written and hashed in a worker thread.

    ``make`` makes its file with the first bytes that are written, so that a small upload changes threads once.
    """

    def __init__(self, make: Callable[[], IncomingFile], *, limit_bytes: int, what: str = "document") -> None:
        self._make = make
        self._incoming: IncomingFile | None = None
        self._limit_bytes = limit_bytes
        self._what = what
        self.size_bytes = 0
        self._buffer = bytearray()
        self.head = b""
        self.tail = b""

    @property
    def incoming(self) -> IncomingFile:
        """The file, after ``finish``."""
        assert self._incoming is not None  # noqa: S101 - made by ``finish``
        return self._incoming

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises ``TooLarge`` and ``StorageFull``."""
        self.size_bytes += len(data)
        check_size(self.size_bytes, limit_bytes=self._limit_bytes, what=self._what)
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(data[: HEAD_BYTES - len(self.head)])
        self.tail = (self.tail + bytes(data[-TAIL_BYTES:]))[-TAIL_BYTES:]
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            await anyio.to_thread.run_sync(self._flush)

    def _flush(self) -> IncomingFile:
        if self._incoming is None:
            self._incoming = self._make()
        if self._buffer:
            data, self._buffer = self._buffer, bytearray()
            self._incoming.write(data)
        return self._incoming

    def opened(self) -> IncomingFile:
        """The file, made if necessary, for a caller that writes to it directly. Blocks."""
        return self._flush()

    async def finish(self) -> str:
        """Make all bytes durable; returns their SHA-256 in hex."""
        return await anyio.to_thread.run_sync(lambda: self._flush().finish())

    async def discard(self) -> None:
        """Remove the file unless it was published."""
        incoming = self._incoming
        if incoming is not None and not incoming.published:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(incoming.discard)


def _resolved(
    connection: Connection, tenant: TenantId, which: DocumentFilter, *, collection: str | None, parent_id: str | None
) -> DocumentFilter:
    """The filter with the rows of a collection and of the document that others are attached to."""
    if parent_id is not None:
        parent = rows.get_document(connection, tenant, parent_id)
        which = msgspec.structs.replace(which, attached_to=parent.id)
    if collection is not None:
        found = rows.find_collection(connection, tenant, collection)
        which = msgspec.structs.replace(which, collection_id=found.id)
    return which


def _find_uploaded(connection: Connection, tenant: TenantId, collection: str, sha256: str) -> Document | None:
    """The document of a collection with these bytes, if both exist."""
    if not rows.has_bytes(connection, tenant, collection, sha256):  # a new upload, which takes one statement
        return None
    return rows.find_by_sha256(connection, rows.find_collection(connection, tenant, collection).id, sha256)


def _has_ended(document: Document) -> bool:
    return document.status in (DocumentStatus.READY, DocumentStatus.FAILED)


def _check(upload: Upload) -> None:
    if upload.media_type.partition(";")[0] not in MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"Files of type '{upload.media_type[:100]}' cannot be read. Send one of: {READABLE}.",
            param="file",
        )
    check_collection_name("collection", upload.collection)
    if upload.filename is not None:
        check_text_length("filename", upload.filename, maximum=MAX_FILENAME_LENGTH)
    _check_metadata(upload.metadata or {})


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata) > _MAX_METADATA_KEYS:
        raise invalid_value("metadata", f"Expected `object` of length <= {_MAX_METADATA_KEYS}")
    for key, value in metadata.items():
        if not isinstance(value, str | int | float | bool):
            raise invalid_value("metadata", f"Expected `str`, `int`, `float` or `bool` for the key '{key[:64]}'")
        check_number("metadata", value)
    if len(msgspec.json.encode(metadata)) > _MAX_METADATA_BYTES:
        raise invalid_value("metadata", f"Expected at most {_MAX_METADATA_BYTES} bytes of JSON")
