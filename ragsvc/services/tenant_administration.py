"""Administration of tenants and collections: list, show, limit, delete.

A deletion removes rows, stored files, vectors, and the word index with its dictionary; then the write-ahead log of the
database is emptied, so that no file of the data directory holds the deleted text. Everything is invisible after the
first transaction; the rest continues at the next start if the process ends before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import anyio.to_thread
import msgspec
from sqlalchemy import Connection

from ragsvc.core.errors import CollectionNotFound, Conflict, TenantNotFound
from ragsvc.core.ids import CollectionId, TenantId
from ragsvc.services.access_control import Access, write_to_the_end
from ragsvc.services.disk_faults import logging_disk_faults
from ragsvc.services.document_service import DocumentService
from ragsvc.services.ingest_jobs import IngestService
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import document_rows, file_rows, tenant_budget_rows, upload_rows
from ragsvc.store import tenant_rows as rows
from ragsvc.store.backup import remove_database
from ragsvc.store.database import Database
from ragsvc.store.tenant_budget_rows import TenantBudget
from ragsvc.store.tenant_rows import (
    CollectionHoldings,
    DoomedDocument,
    RemovedAccess,
    TenantHoldings,
    TenantLimits,
)

logger = logging.getLogger(__name__)

_DOCUMENTS_AT_ONCE = 20
_RESUME_INTERVAL_S = 30.0


class DeletionReport(msgspec.Struct, kw_only=True):
    """What a deletion removed. ``uploaded_files`` did not come with a document; ``files`` are files on disk.

    ``log_emptied``: neither the write-ahead log nor the unallocated space of the database holds any of it; otherwise
    readers held the log, and both are emptied within a minute. PostgreSQL frees the space later, so there it is never
    ``True``. ``kept_copies``: copies of the database from before an
    upgrade, which still contain the data.
    """

    collections: int = 0
    documents: int = 0
    pages: int = 0
    passages: int = 0
    vectors: int = 0
    uploaded_files: int = 0
    files: int = 0
    file_bytes: int = 0
    indexes: int = 0
    keys: int = 0
    provider_keys: int = 0
    responses: int = 0
    usage_rows: int = 0
    audit_entries: int = 0
    conversations: int = 0
    feedback: int = 0
    log_emptied: bool = False
    kept_copies: list[str] = []
    removed_copies: list[str] = []


async def _nothing_to_stop(_tenant: TenantId) -> None:
    """For a service without background responses."""


class TenantAdministration:
    """Lists, shows, limits and deletes tenants and collections. Belongs to one event loop."""

    def __init__(
        self,
        *,
        database: Database,
        documents: DocumentService,
        ingest: IngestService,
        access: Access,
        quotas: TenantQuotas,
        drop_indexes: Callable[[CollectionId], int],
        forget_collections: Callable[[TenantId], None],
        forget_provider_keys: Callable[[TenantId], None],
        forget_files: Callable[[TenantId], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``drop_indexes`` removes the indexes of a collection for every model, and returns how many there were.

        ``forget_collections`` removes the names of a tenant's collections from caches, ``forget_provider_keys`` its
        keys for providers, and ``forget_files`` the files of its chats.
        """
        self._database = database
        self._documents = documents
        self._ingest = ingest
        self._access = access
        self._quotas = quotas
        self._drop_indexes = drop_indexes
        self._forget_collections = forget_collections
        self._forget_provider_keys = forget_provider_keys
        self.stop_responses: Callable[[TenantId], Awaitable[None]] = _nothing_to_stop
        """Ends the background responses of a tenant, whose rows have been removed."""
        self._forget_files = forget_files
        self._clock = clock
        self._deleting = anyio.Lock()

    # -- read --------------------------------------------------------------------------------------------------

    async def tenants(self) -> list[TenantHoldings]:
        """Every tenant with what it has, in alphabetical order."""

        def read(connection: Connection) -> list[TenantHoldings]:
            found = [rows.tenant_holdings(connection, name) for name in rows.tenant_names(connection)]
            return [tenant for tenant in found if tenant is not None]

        return await self._database.read(read)

    async def tenant(self, name: TenantId) -> TenantHoldings:
        """What a tenant has. Raises ``TenantNotFound``."""
        found = await self._database.read(lambda connection: rows.tenant_holdings(connection, name))
        if found is None:
            raise TenantNotFound(f"There is no tenant '{name}'.", param="tenant")
        return found

    async def limits(self, name: TenantId) -> TenantLimits:
        """The limits that apply to a tenant: its own, else the defaults of the service."""
        return await self._database.read(lambda connection: self._quotas.of(connection, name))

    async def set_limits(self, name: TenantId, limits: TenantLimits) -> TenantHoldings:
        """Set a tenant's own limits; ``None`` returns to the default."""
        now = int(self._clock())
        await write_to_the_end(
            self._database, lambda connection: rows.set_tenant_limits(connection, name, limits, now=now)
        )
        return await self.tenant(name)

    async def budget(self, name: TenantId) -> TenantBudget:
        """The money budget of a tenant, as of the last write."""
        return await self._database.read(lambda connection: tenant_budget_rows.fetch_budget(connection, name))

    async def change_budget(self, name: TenantId, changes: Mapping[str, int | None]) -> None:
        """Set ``money_per_day``, ``money_balance`` or both, in millionths; ``None`` means unlimited."""
        now = int(self._clock())
        budget = await write_to_the_end(
            self._database,
            lambda connection: tenant_budget_rows.change_budget(connection, name, changes, now=now),
        )
        self._access.take_budget(budget)

    async def collections(self, tenant: TenantId) -> list[CollectionHoldings]:
        """A tenant's collections in alphabetical order."""
        return await self._database.read(lambda connection: rows.collection_holdings(connection, tenant))

    async def collection(self, tenant: TenantId, name: str) -> CollectionHoldings:
        """One collection. Raises ``CollectionNotFound``."""
        for collection in await self.collections(tenant):
            if collection.name == name:
                return collection
        raise CollectionNotFound(f"There is no collection '{name}'.", param="collection")

    # -- delete ------------------------------------------------------------------------------------------------

    async def create_collection(
        self, tenant: TenantId, name: str, *, require_caller: Callable[[Connection], None]
    ) -> tuple[CollectionHoldings, bool]:
        """Create a collection unless the tenant has it; returns it, and whether it is new.

        ``require_caller`` runs in the transaction; it raises if the caller may not create it any more.

        Raises:
            QuotaExceeded: the tenant may have no more collections.
        """

        def create(connection: Connection) -> bool:
            require_caller(connection)
            if document_rows.has_collection(connection, tenant, name):
                return False
            self._quotas.check_collection(connection, tenant, name)
            document_rows.ensure_collection(connection, tenant, name, now=int(self._clock()))
            return True

        created = await self._database.write(create)
        if created:
            self._forget_collections(tenant)
        return await self.collection(tenant, name), created

    async def delete_collection(self, tenant: TenantId, name: str, *, only_if_empty: bool = False) -> DeletionReport:
        """Delete a collection with its documents.

        Raises:
            CollectionNotFound: the tenant has no such collection.
            Conflict: the collection has documents, and ``only_if_empty`` is set.
        """
        report = DeletionReport()

        def mark(connection: Connection) -> list[CollectionId]:
            ids = rows.mark_collections_deleted(connection, tenant, name=name, now=int(self._clock()))
            if not ids:
                raise CollectionNotFound(f"There is no collection '{name}'.", param="collection")
            if only_if_empty and rows.documents_of_collections(connection, ids):
                raise Conflict(f"The collection '{name}' has documents.")
            return ids

        with anyio.CancelScope(shield=True):
            ids = await self._database.write(mark)
            self._forget_collections(tenant)
            await self._finish(ids, report)
        logger.info("deleted a collection of tenant %s: %d documents", tenant, report.documents)
        return report

    async def delete_tenant(self, tenant: TenantId, *, remove_copies: bool = False) -> DeletionReport:
        """Delete everything of a tenant: keys, usage, collections, documents.

        Requests that were authenticated before can store nothing for it afterwards (``Access.require_key``).
        ``remove_copies`` also removes the copies of the database from before upgrades, which contain data of all
        tenants. It also works after the tenant was deleted, as long as a copy contains the tenant.

        Raises:
            TenantNotFound: it has nothing.
        """
        report = DeletionReport()
        try:
            before = await self.tenant(tenant)
        except TenantNotFound:
            if not remove_copies or not await anyio.to_thread.run_sync(self._is_in_copies, tenant):
                raise
            self._handle_copies(report, remove=True)
            logger.warning("deleted the copies of the database, which held the deleted tenant %s", tenant)
            return report

        def mark(connection: Connection) -> tuple[list[CollectionId], RemovedAccess, list[str]]:
            now = int(self._clock())
            access = rows.remove_access(connection, tenant)
            collections = rows.mark_collections_deleted(connection, tenant, now=now)
            report.uploaded_files = file_rows.mark_files_deleted(connection, tenant, now=now)
            return collections, access, upload_rows.remove_uploads_of_tenant(connection, tenant, now=now)

        with anyio.CancelScope(shield=True):
            # before the mark: the background continues the rest, and the tenant does not exist for a second request
            self._handle_copies(report, remove=remove_copies)
            if not before.collections:
                report.files += await self._documents.remove_stray_files(tenant)
            async with self._access.usage_held_back():
                ids, access, parts = await self._database.write(mark)
                for key_id in access.key_ids:
                    self._access.erase(key_id)
                self._access.forget_tenant(tenant)
            self._forget_provider_keys(tenant)
            report.responses = access.responses
            await self.stop_responses(tenant)
            self._forget_files(tenant)
            report.keys, report.provider_keys = len(access.key_ids), access.provider_keys
            report.usage_rows, report.audit_entries = access.usage_rows, access.audit_entries
            report.conversations, report.feedback = access.conversations, access.feedback
            self._forget_collections(tenant)
            for sha256 in parts:
                report.files += await self._ingest.file_removals.finish(tenant, sha256)
            await self._finish(ids, report)
            if not ids:
                report.files += await self._documents.remove_stray_files(tenant)
        logger.warning("deleted tenant %s: %d keys, %d documents", tenant, report.keys, report.documents)
        return report

    async def finish_deletions(self) -> None:
        """Finish deletions that an earlier run began, or that a fault of the disk interrupted. Runs until cancelled."""
        while True:
            with logging_disk_faults(logger, "a deletion could not be finished"):
                await self.remove_deleted()
            await anyio.sleep(_RESUME_INTERVAL_S)

    async def remove_deleted(self) -> None:
        """Remove everything that is marked as deleted: documents and indexes of collections, and files."""
        ids, has_files = await self._database.read(
            lambda connection: (
                rows.deleted_collections(connection),
                bool(file_rows.doomed_files(connection, limit=1)),
            )
        )
        if ids or has_files:
            await self._finish(ids, DeletionReport())

    async def _finish(self, ids: Sequence[CollectionId], report: DeletionReport) -> None:
        """Remove documents and indexes of collections that are marked as deleted, and all files marked as deleted."""
        async with self._deleting:
            if not ids:
                await self._remove_files(report)
                await self._erase_deleted(report)
                return
            documents = await self._database.read(lambda connection: rows.documents_of_collections(connection, ids))
            await self._ingest.stop_work_on_all(documents)
            while doomed := await self._database.read(
                lambda connection: rows.doomed_documents(connection, ids, limit=_DOCUMENTS_AT_ONCE)
            ):
                await self._remove(doomed, report)
            await self._remove_files(report)
            for collection_id in ids:
                report.indexes += await anyio.to_thread.run_sync(self._drop_indexes, collection_id)
            for tenant in await self._database.read(lambda connection: rows.deleted_tenants(connection, ids)):
                report.files += await self._documents.remove_stray_files(tenant)
            await self._database.write(lambda connection: rows.remove_collections(connection, ids))
            report.collections += len(ids)
            await self._erase_deleted(report)

    async def _remove(self, doomed: Sequence[DoomedDocument], report: DeletionReport) -> None:
        """Remove files, then rows: after a crash in between, the rows still name the files that may be left.

        A file that could not be removed, or that another document had which was deleted in the meantime, is removed
        after the rows.
        """
        for tenant, sha256, size_bytes in {(file.tenant, file.sha256, file.size_bytes) for file in doomed}:
            if await self._documents.remove_file(tenant, sha256):
                report.files += 1
                report.file_bytes += size_bytes
        ids = [document.id for document in doomed]
        now = int(self._clock())
        removed = await self._database.write(lambda connection: rows.remove_documents(connection, ids, now=now))
        sizes = {(file.tenant, file.sha256): file.size_bytes for file in doomed}
        for tenant, sha256 in removed.unused_files:
            if await self._ingest.file_removals.finish(tenant, sha256):
                report.files += 1
                report.file_bytes += sizes[tenant, sha256]
        report.documents += len(doomed)
        report.pages += removed.pages
        report.passages += removed.passages
        report.vectors += removed.vectors
        for document in doomed:
            self._documents.wake(document.public_id)
        for tenant in {document.tenant for document in doomed}:
            self._documents.notify_many(tenant)

    async def _remove_files(self, report: DeletionReport) -> None:
        """Remove the files that are marked as deleted and have no documents any more; first rows, then bytes.

        The rows note the removal of the bytes.
        """
        tenants: set[TenantId] = set()
        while doomed := await self._database.read(
            lambda connection: file_rows.doomed_files(connection, limit=_DOCUMENTS_AT_ONCE)
        ):
            unused = await self._database.write(
                lambda connection, files=doomed: file_rows.remove_files(  # type: ignore[misc]
                    connection, files, now=int(self._clock())
                )
            )
            sizes = {(file.tenant, file.sha256): file.size_bytes for file in doomed}
            for tenant, sha256 in unused:
                if await self._ingest.file_removals.finish(tenant, sha256):
                    report.files += 1
                    report.file_bytes += sizes[tenant, sha256]
            tenants |= {file.tenant for file in doomed}
        for tenant in tenants:
            report.files += await self._documents.remove_stray_files(tenant)

    async def _erase_deleted(self, report: DeletionReport) -> None:
        report.log_emptied = await anyio.to_thread.run_sync(self._database.erase_deleted)

    def _is_in_copies(self, tenant: TenantId) -> bool:
        connect = self._database.connect_copy
        return any(rows.copy_has_tenant(copy, tenant, connect) for copy in self._database.older_copies())

    def _handle_copies(self, report: DeletionReport, *, remove: bool) -> None:
        copies = self._database.older_copies()
        if remove:
            for copy in copies:
                remove_database(copy)
            report.removed_copies = [copy.name for copy in copies]
        else:
            report.kept_copies = [copy.name for copy in copies]
