"""Vector stores (OpenAI: ``/v1/vector_stores``): collections under another name, searched and expired here.

Documents, quotas and deletion are those of the collection services; this module keeps none of its own.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.principal import Principal, allows_collection, require_collection
from ragsvc.core.defaults import MAX_COLLECTION_NAME_LENGTH
from ragsvc.core.documents import Collection
from ragsvc.core.errors import Overloaded, ShuttingDown, StorageFull, VectorStoreNotFound
from ragsvc.core.ids import DocumentId, KeyId, TenantId, new_store_id
from ragsvc.core.ports.searcher import Searcher
from ragsvc.core.retrieval.search_values import SearchHit, SearchQuery
from ragsvc.core.vector_stores import SECONDS_PER_DAY, FileCounts, StoreFile, VectorStore
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.disk_faults import logging_disk_faults
from ragsvc.services.store_activity import StoreActivity
from ragsvc.services.tenant_administration import TenantAdministration
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import document_rows, store_file_rows
from ragsvc.store import vector_store_rows as rows
from ragsvc.store.database import Database
from ragsvc.store.vector_store_rows import NewStore

logger = logging.getLogger(__name__)

_SWEEP_INTERVAL_S: Final = 30.0
_REMEMBERED_DAYS: Final = 30
"""How long clients still see a vector store that has expired."""


class StoreDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A vector store to create."""

    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] = {}
    expires_after_days: int | None = None


class StorePassage(msgspec.Struct, frozen=True):
    """A passage that a search found, and the file of the store that it is from."""

    file: StoreFile
    hit: SearchHit


class VectorStoreService:
    """The vector stores of all tenants. Belongs to one event loop."""

    def __init__(
        self,
        *,
        database: Database,
        searcher: Searcher,
        tenants: TenantAdministration,
        quotas: TenantQuotas,
        activity: StoreActivity,
        require_key: Callable[[Connection, KeyId], None],
        forget_collections: Callable[[TenantId], None],
        clock: Callable[[], float] = time.time,
        sweep_interval_s: float = _SWEEP_INTERVAL_S,
    ) -> None:
        """``require_key`` runs in the transaction of a new store; it raises if the key was deleted.

        ``forget_collections`` removes the names of a tenant's collections from caches.
        """
        self._database = database
        self._searcher = searcher
        self._tenants = tenants
        self._quotas = quotas
        self._activity = activity
        self._require_key = require_key
        self._forget_collections = forget_collections
        self._clock = clock
        self._sweep_interval_s = sweep_interval_s

    # -- create, read, change, delete --------------------------------------------------------------------------

    async def create(self, principal: Principal, draft: StoreDraft) -> VectorStore:
        """Create an empty vector store. Its collection gets the name of the store if that is legal and free.

        Raises:
            PolicyDenied: the key is limited to collections, and this is none of them.
            QuotaExceeded: the tenant may have no more collections.
        """
        public_id = new_store_id()
        now = int(self._clock())

        def write(connection: Connection) -> VectorStore:
            self._require_key(connection, principal.key_id)
            name = _collection_name(connection, principal.tenant, draft.name, public_id)
            require_collection(principal, name)
            self._quotas.check_collection(connection, principal.tenant, name)
            new = NewStore(
                public_id=public_id,
                collection=name,
                name=draft.name,
                description=draft.description,
                metadata=draft.metadata,
                expires_after_days=draft.expires_after_days,
            )
            rows.insert_store(connection, principal.tenant, new, now=now)
            return rows.load_store(connection, principal.tenant, public_id)

        store = await write_to_the_end(self._database, write)
        self._forget_collections(principal.tenant)
        return store

    async def get(self, principal: Principal, public_id: str) -> VectorStore:
        """A vector store with exact counts, also one that has expired. Raises ``VectorStoreNotFound``."""
        store = await self._database.read(lambda connection: rows.load_store(connection, principal.tenant, public_id))
        if not allows_collection(principal, store.collection):
            raise rows.not_found(public_id)
        return self._present(store)

    async def list_page(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> tuple[list[VectorStore], bool]:
        """One page of the vector stores that the key may use, and whether more follow.

        Raises:
            VectorStoreNotFound: the store ``after`` or ``before`` does not exist.
        """
        stores, more = await self._database.read(
            lambda connection: rows.list_stores(
                connection,
                principal.tenant,
                collections=principal.allowed_collections,
                limit=limit,
                after=after,
                before=before,
                descending=descending,
            )
        )
        return [self._present(store) for store in stores], more

    async def change(self, principal: Principal, public_id: str, values: Mapping[str, Any]) -> VectorStore:
        """Change ``display_name``, ``description``, ``metadata`` or ``expires_after_days``.

        The collection keeps its name. Raises ``VectorStoreNotFound``, also for a store that has expired.
        """

        def write(connection: Connection) -> VectorStore:
            store = self.usable(connection, principal, public_id)
            rows.change_store(connection, store.id, values, now=int(self._clock()))
            return rows.load_store(connection, principal.tenant, public_id)

        return self._present(await self._database.write(write))

    async def delete(self, principal: Principal, public_id: str) -> None:
        """Delete a vector store with its collection; files that were uploaded by themselves stay.

        Raises:
            VectorStoreNotFound: the tenant has no such vector store.
        """
        store = await self.get(principal, public_id)
        if store.expired:
            await self._database.write(
                lambda connection: rows.delete_expired_store(connection, principal.tenant, public_id)
            )
        with contextlib.suppress(VectorStoreNotFound):  # expired and already removed
            found = await self._database.read(
                lambda connection: rows.find_store(connection, principal.tenant, public_id)
            )
            await self._tenants.delete_collection(principal.tenant, found.name)

    def usable(self, connection: Connection, principal: Principal, public_id: str) -> Collection:
        """The collection of a vector store that has not expired and that the key may use.

        Raises:
            VectorStoreNotFound: there is no such store for the key.
        """
        store = rows.find_store(connection, principal.tenant, public_id)
        if not allows_collection(principal, store.name):
            raise rows.not_found(public_id)
        expiry = rows.expiry_of(connection, store.id)
        if expiry is not None:
            last_active_at, days = expiry
            if self._activity.latest(store.id, last_active_at) + days * SECONDS_PER_DAY <= self._clock():
                raise rows.not_found(public_id, expired=True)
        return store

    def _present(self, store: VectorStore) -> VectorStore:
        """The store with uses that are not written yet; expired as soon as its time is over."""
        if store.expired:
            return store
        latest = self._activity.latest(store.id, store.last_active_at)
        store = msgspec.structs.replace(store, last_active_at=latest)
        if store.expires_at is None or store.expires_at > self._clock():
            return store
        return msgspec.structs.replace(store, expired=True, counts=FileCounts(), usage_bytes=0)

    # -- search ------------------------------------------------------------------------------------------------

    async def search(self, principal: Principal, public_id: str, queries: Sequence[SearchQuery]) -> list[StorePassage]:
        """The passages that any of the queries finds, each once with its best score, best first.

        The queries are alike but for their texts; the collection that they name is replaced by that of the store.

        Raises:
            VectorStoreNotFound: there is no such store for the key, or it has expired.
        """
        store = await self._database.read(lambda connection: self.usable(connection, principal, public_id))
        best: dict[int, SearchHit] = {}
        for query in queries:
            result = await self._searcher.search(
                principal.tenant, msgspec.structs.replace(query, collection=store.name)
            )
            for hit in result.hits:
                known = best.get(hit.passage.id)
                if known is None or known.score < hit.score:
                    best[hit.passage.id] = hit
        hits = sorted(best.values(), key=lambda hit: -hit.score)[: queries[0].top_k]
        documents = {DocumentId(hit.passage.document_id) for hit in hits}
        files = await self._database.read(
            lambda connection: store_file_rows.files_of_documents(connection, documents, store)
        )
        return [  # a file can have been removed from the store since
            StorePassage(files[hit.passage.document_id], hit) for hit in hits if hit.passage.document_id in files
        ]

    # -- expiry ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write uses and remove stores whose time is over, until cancelled.

        A fault of the disk is logged: the deletion is finished as every other one, and the sweep is tried again.
        """
        try:
            while True:
                with logging_disk_faults(logger, "expired vector stores could not be removed"):
                    await self.sweep()
                await anyio.sleep(self._sweep_interval_s)
        finally:
            with anyio.CancelScope(shield=True):
                await self._write_uses()

    async def sweep(self) -> None:
        """Write uses, then remove stores whose time is over. The documents follow as after every deletion."""
        if not await self._write_uses():
            return
        now = int(self._clock())
        expired_before = now - _REMEMBERED_DAYS * SECONDS_PER_DAY

        def write(connection: Connection) -> list[tuple[TenantId, Any]]:
            rows.forget_expired_stores(connection, expired_before=expired_before)
            return rows.expire_stores(connection, now=now)

        if not await self._database.read(
            lambda connection: rows.is_anything_due(connection, now=now, expired_before=expired_before)
        ):
            return
        with contextlib.suppress(StorageFull, Overloaded, ShuttingDown):
            for tenant, _ in await write_to_the_end(self._database, write):
                self._forget_collections(tenant)
                logger.info("a vector store of tenant %s has expired", tenant)
            await self._tenants.remove_deleted()

    async def _write_uses(self) -> bool:
        """Write the uses in memory; ``False`` if that is not possible now."""
        pending = self._activity.pending()
        if pending:
            try:
                await self._database.write(lambda connection: rows.note_use(connection, pending))
            except (StorageFull, Overloaded, ShuttingDown):
                return False
            self._activity.written(pending)
        return True


def _collection_name(connection: Connection, tenant: TenantId, wanted: str | None, public_id: str) -> str:
    """The name of a store as that of its collection if it is legal and free, otherwise one with the id of the store."""
    if not wanted:
        return public_id
    is_legal = wanted == wanted.strip() and wanted.isprintable() and not {"", ".", ".."} & set(wanted.split("/"))
    if is_legal and len(wanted) <= MAX_COLLECTION_NAME_LENGTH:
        if not document_rows.has_collection(connection, tenant, wanted):
            return wanted
        suffix = f" ({public_id})"
        return wanted[: MAX_COLLECTION_NAME_LENGTH - len(suffix)] + suffix
    return public_id
