"""Files of vector stores: documents made from stored files, one by one or in batches.

A document and its ingest are those of the document services. Files with equal bytes share a document of a store.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.principal import Principal
from ragsvc.core.documents import Collection, Document, Page
from ragsvc.core.errors import FailureReason, Overloaded
from ragsvc.core.file_types import READABLE, document_media_type
from ragsvc.core.files import FileReach, UploadedFile
from ragsvc.core.ids import KeyId, new_document_id
from ragsvc.core.ports.parsing import ChunkingOptions
from ragsvc.core.vector_stores import FileBatch, StoreFile, StoreFileStatus
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.document_service import DocumentService
from ragsvc.services.ingest_jobs import IngestService
from ragsvc.services.store_activity import StoreActivity
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.services.vector_stores import VectorStoreService
from ragsvc.store import document_rows, file_rows, job_rows, passage_rows
from ragsvc.store import store_file_rows as rows
from ragsvc.store.database import Database


class StoreFileDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A file to add to a vector store; attributes of ``None`` leave those that the document has."""

    file_id: str
    attributes: Mapping[str, Any] | None = None


def _each_once(drafts: Sequence[StoreFileDraft]) -> list[StoreFileDraft]:
    """The files in order, each once with the last attributes given."""
    return list({draft.file_id: draft for draft in drafts}.values())


class StoreFileService:
    """The files of all vector stores. Belongs to one event loop."""

    def __init__(
        self,
        *,
        database: Database,
        stores: VectorStoreService,
        documents: DocumentService,
        ingest: IngestService,
        quotas: TenantQuotas,
        activity: StoreActivity,
        max_queued: int,
        require_key: Callable[[Connection, KeyId], None],
        chunking: ChunkingOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``require_key`` runs in the transaction of new documents; it raises if the key was deleted.

        ``chunking`` is how the parser cuts every document.
        """
        self.chunking = chunking
        self._database = database
        self._stores = stores
        self._documents = documents
        self._ingest = ingest
        self._quotas = quotas
        self._activity = activity
        self._max_queued = max_queued
        self._require_key = require_key
        self._clock = clock

    # -- add ---------------------------------------------------------------------------------------------------

    async def check(
        self, principal: Principal, drafts: Sequence[StoreFileDraft], *, store_id: str | None = None
    ) -> None:
        """Check that a store, if one is given, and files exist for the caller.

        Raises:
            VectorStoreNotFound, FileNotFound: the first that does not.
        """

        def read(connection: Connection) -> None:
            if store_id is not None:
                self._stores.usable(connection, principal, store_id)
            self._files(connection, principal, drafts)

        await self._database.read(read)

    async def attach(self, principal: Principal, store_id: str, drafts: Sequence[StoreFileDraft]) -> list[StoreFile]:
        """Make documents of files in a vector store and queue them; files that the store has get the attributes.

        All of the files are added, or none. A file whose document has failed is tried again. When this returns, the
        files survive any crash.

        Raises:
            FileNotFound: the caller has no such file; nothing is added.
            VectorStoreNotFound: there is no such store for the key.
            QuotaExceeded: the tenant may store no more documents.
            Overloaded: too many documents are queued.
        """
        unique = _each_once(drafts)

        def write(connection: Connection) -> list[StoreFile]:
            store, files = self._begin(connection, principal, store_id, unique)
            self._add(connection, store, list(zip(files, unique, strict=True)))
            return rows.find_store_files(connection, store, [file.id for file in files])

        attached = await write_to_the_end(self._database, write)
        self._ingest.kick()
        self._documents.notify_many(principal.tenant)
        return attached

    async def create_batch(self, principal: Principal, store_id: str, drafts: Sequence[StoreFileDraft]) -> FileBatch:
        """Add files to a vector store as a batch, as ``attach`` does: the batch with all of its files, or nothing."""
        unique = _each_once(drafts)
        public_id = f"vsfb_{secrets.token_hex(12)}"

        def write(connection: Connection) -> FileBatch:
            store, files = self._begin(connection, principal, store_id, unique)
            batch_id = rows.insert_batch(connection, store, public_id, now=int(self._clock()))
            self._add(connection, store, list(zip(files, unique, strict=True)))
            rows.add_to_batch(connection, store, [file.id for file in files], batch_id)
            return rows.find_batch(connection, store, public_id)

        batch = await write_to_the_end(self._database, write)
        self._ingest.kick()
        self._documents.notify_many(principal.tenant)
        return batch

    def _begin(
        self, connection: Connection, principal: Principal, store_id: str, drafts: Sequence[StoreFileDraft]
    ) -> tuple[Collection, list[UploadedFile]]:
        """The store and the files, if they exist for the caller and there is room for them."""
        self._require_key(connection, principal.key_id)
        store = self._stores.usable(connection, principal, store_id)
        files = self._files(connection, principal, drafts)
        self._activity.note(store.id)
        self._check_room(connection, principal, store, drafts)
        return store, files

    def _check_room(
        self, connection: Connection, principal: Principal, store: Collection, drafts: Sequence[StoreFileDraft]
    ) -> None:
        """Refuse files that the queue or the quota of the tenant has no room for, before any of them is added."""
        waiting = job_rows.waiting_count(connection)
        if waiting and waiting + len(drafts) > self._max_queued:
            raise Overloaded("Too many documents are queued. Try again later.", retry_after_s=10)
        known = rows.count_known_files(connection, store, [draft.file_id for draft in drafts])
        self._quotas.check_document(connection, principal.tenant, store.name, 0, count=len(drafts) - known)

    def _files(
        self, connection: Connection, principal: Principal, drafts: Sequence[StoreFileDraft]
    ) -> list[UploadedFile]:
        reach = FileReach(collections=principal.allowed_collections, created_by=principal.key_id)
        ids = [draft.file_id for draft in drafts]
        return file_rows.find_files(connection, principal.tenant, ids, now=int(self._clock()), reach=reach)

    def _add(
        self, connection: Connection, store: Collection, added: Sequence[tuple[UploadedFile, StoreFileDraft]]
    ) -> None:
        """Make documents of files, or add the files to documents with the same bytes.

        All are added in one transaction, which keeps other writers waiting: 2000 files take a few statements.
        """
        now = int(self._clock())
        digests = list(dict.fromkeys(file.sha256 for file, _ in added))
        known = document_rows.documents_by_sha256(connection, store.id, digests)
        attributes = {file.sha256: draft.attributes for file, draft in added if draft.attributes is not None}
        new: dict[str, document_rows.DocumentOfStoredFile] = {}
        again: dict[str, Document] = {}
        for file, _ in added:
            document = known.get(file.sha256)
            if document is None and file.sha256 not in new:
                new[file.sha256] = self._document_of(file, attributes.get(file.sha256))
            elif document is not None and document.failure_code is not None and self._unreadable(file) is None:
                again[file.sha256] = document
        ids = document_rows.insert_documents_of_files(connection, store, list(new.values()), now=now)
        readable = [ids[sha256] for sha256, document in new.items() if document.failure is None]
        small = {
            ids[sha256]
            for sha256, document in new.items()
            if job_rows.is_small(document.media_type, document.file.size_bytes)
        }
        job_rows.enqueue_new(connection, readable, store.tenant, now=now, small=small)
        for sha256, document in known.items():
            if sha256 in attributes:
                rows.replace_attributes(connection, document.id, attributes[sha256], now=now)
        for document in again.values():
            job_rows.requeue(connection, document, password=None, now=now)
        ids |= {sha256: document.id for sha256, document in known.items()}
        file_rows.link_all(connection, store.id, [(ids[file.sha256], file.id) for file, _ in added], now=now)

    def _document_of(
        self, file: UploadedFile, attributes: Mapping[str, Any] | None
    ) -> document_rows.DocumentOfStoredFile:
        return document_rows.DocumentOfStoredFile(
            public_id=new_document_id(),
            file=file,
            media_type=document_media_type(file.media_type) or file.media_type,
            metadata=attributes or {},
            failure=self._unreadable(file),
        )

    def _unreadable(self, file: UploadedFile) -> tuple[FailureReason, str] | None:
        """Why no document can be made of a file, whatever it contains."""
        if document_media_type(file.media_type) is None:
            message = f"Files of type '{file.media_type[:100]}' cannot be read. Readable are: {READABLE}."
            return FailureReason.UNSUPPORTED_FILE, message
        limit = self._documents.max_document_bytes
        if file.size_bytes > limit:
            message = f"The file has {file.size_bytes} bytes; documents may have {limit}."
            return FailureReason.FILE_TOO_LARGE, message
        return None

    # -- read --------------------------------------------------------------------------------------------------

    async def get(self, principal: Principal, store_id: str, file_id: str) -> StoreFile:
        """A file of a vector store. Raises ``VectorStoreNotFound``, ``VectorStoreFileNotFound``."""

        def read(connection: Connection) -> StoreFile:
            return rows.find_store_file(connection, self._stores.usable(connection, principal, store_id), file_id)

        return await self._database.read(read)

    async def list_page(
        self,
        principal: Principal,
        store_id: str,
        *,
        limit: int,
        batch_id: str | None = None,
        status: StoreFileStatus | None = None,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> tuple[list[StoreFile], bool]:
        """One page of the files of a vector store or of a batch, and whether more follow.

        Raises:
            VectorStoreNotFound, FileBatchNotFound, VectorStoreFileNotFound: the store, batch or cursor does not exist.
        """

        def read(connection: Connection) -> tuple[list[StoreFile], bool]:
            store = self._stores.usable(connection, principal, store_id)
            batch = None if batch_id is None else rows.find_batch(connection, store, batch_id)
            return rows.list_store_files(
                connection,
                store,
                batch_id=None if batch is None else batch.id,
                status=status,
                limit=limit,
                after=after,
                before=before,
                descending=descending,
            )

        return await self._database.read(read)

    async def batch(self, principal: Principal, store_id: str, batch_id: str) -> FileBatch:
        """A batch with exact counts. Raises ``VectorStoreNotFound``, ``FileBatchNotFound``."""

        def read(connection: Connection) -> FileBatch:
            return rows.find_batch(connection, self._stores.usable(connection, principal, store_id), batch_id)

        return await self._database.read(read)

    async def pages(self, principal: Principal, store_id: str, file_id: str) -> tuple[StoreFile, list[Page]]:
        """A file and the text of its pages, none before it is completed. Raises as ``get`` does."""

        def read(connection: Connection) -> tuple[StoreFile, list[Page]]:
            store = self._stores.usable(connection, principal, store_id)
            file = rows.find_store_file(connection, store, file_id)
            is_ready = file.status is StoreFileStatus.COMPLETED
            return file, passage_rows.pages_of(connection, file.document_id) if is_ready else []

        return await self._database.read(read)

    # -- change ------------------------------------------------------------------------------------------------

    async def set_attributes(
        self, principal: Principal, store_id: str, file_id: str, attributes: Mapping[str, Any]
    ) -> StoreFile:
        """Replace the attributes of a file, which are the metadata of its document. Raises as ``get`` does."""

        def write(connection: Connection) -> tuple[StoreFile, Document]:
            store = self._stores.usable(connection, principal, store_id)
            file = rows.find_store_file(connection, store, file_id)
            rows.replace_attributes(connection, file.document_id, attributes, now=int(self._clock()))
            document = document_rows.get_document(connection, principal.tenant, file.document_public_id)
            return rows.find_store_file(connection, store, file_id), document

        changed, document = await self._database.write(write)
        self._documents.notify(document)
        return changed

    async def detach(self, principal: Principal, store_id: str, file_id: str) -> None:
        """Remove a file from a vector store, with its document unless another file has it; the file itself stays.

        Raises:
            VectorStoreNotFound, VectorStoreFileNotFound: there is no such store or file for the key.
        """

        def read(connection: Connection) -> tuple[StoreFile, UploadedFile | None]:
            store = self._stores.usable(connection, principal, store_id)
            found = rows.find_store_file(connection, store, file_id)
            return found, file_rows.get_file_by_row_id(connection, found.file_row_id)

        found, file = await self._database.read(read)
        if file is not None:
            await self._documents.separate(principal.tenant, found.document_public_id, file)

    async def cancel_batch(self, principal: Principal, store_id: str, batch_id: str) -> FileBatch:
        """Cancel a batch: files whose ingest has not begun are cancelled, the others are finished.

        Raises:
            VectorStoreNotFound, FileBatchNotFound: there is no such store or batch for the key.
        """

        def write(connection: Connection) -> list[str]:
            store = self._stores.usable(connection, principal, store_id)
            batch = rows.find_batch(connection, store, batch_id)
            if batch.cancelled or batch.status is not StoreFileStatus.IN_PROGRESS:
                return []
            now = int(self._clock())
            queued = rows.cancel_batch(connection, batch.id, now=now)
            for part in rows.chunks_of([row_id for row_id, _ in queued]):
                job_rows.cancel_queued(connection, part, now=now)
            return [public_id for _, public_id in queued]

        for public_id in await self._database.write(write):
            self._documents.wake(public_id)
        self._documents.notify_many(principal.tenant)
        return await self.batch(principal, store_id, batch_id)
