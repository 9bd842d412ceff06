"""Vector stores, files and documents over ``AdministeredIngest``, with a clock that a test moves."""

from __future__ import annotations

import time

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.files import FilePurpose, UploadedFile
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.ports.parsing import ChunkingOptions
from ragsvc.core.vector_stores import FileCounts
from ragsvc.services.file_service import FileService, FileUpload
from ragsvc.services.search import SearchService
from ragsvc.services.store_activity import StoreActivity
from ragsvc.services.store_files import StoreFileDraft, StoreFileService
from ragsvc.services.tenant_export import TenantExport
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.services.vector_stores import StoreDraft, VectorStoreService
from tests.support.administered_ingest import AdministeredIngest
from tests.support.in_process_ingest import InProcessIngest


class StoreServices(AdministeredIngest):
    """The services behind ``/v1/files`` and ``/v1/vector_stores``; ``later_s`` is added to their time."""

    def __init__(
        self, ingest: InProcessIngest, *, quotas: TenantQuotas | None = None, sweep_interval_s: float = 30
    ) -> None:
        self.later_s = 0.0
        self.activity = StoreActivity(self.now)
        ingest.searcher = SearchService(
            database=ingest.database, spaces=ingest.spaces, settled=ingest.lag.settled, searched=self.activity.note
        )
        super().__init__(ingest)
        self.files = FileService(
            database=ingest.database,
            blobs=ingest.blobs,
            ingest=ingest.ingest,
            hub=ingest.hub,
            index_lag=ingest.lag,
            clock=self.now,
        )
        self.export = TenantExport(ingest.database, ingest.blobs)
        quotas = quotas or TenantQuotas()
        self.stores = VectorStoreService(
            database=ingest.database,
            searcher=ingest.searcher,
            tenants=self.tenants,
            quotas=quotas,
            activity=self.activity,
            require_key=self.access.require_key,
            forget_collections=ingest.searcher.forget_collections,
            clock=self.now,
            sweep_interval_s=sweep_interval_s,
        )
        self.store_files = StoreFileService(
            database=ingest.database,
            stores=self.stores,
            documents=ingest.documents,
            ingest=ingest.ingest,
            quotas=quotas,
            activity=self.activity,
            max_queued=200,
            require_key=self.access.require_key,
            chunking=ChunkingOptions(),
            clock=self.now,
        )

    def now(self) -> float:
        return time.time() + self.later_s

    async def principal(self, tenant: TenantId) -> Principal:
        """A caller of the tenant with a key of its own."""
        issued = await self.key(tenant)
        return Principal(KeyId(issued.key.id), tenant, "quickstart", frozenset(DEFAULT_SCOPES))

    async def file(
        self, principal: Principal, text: str, *, name: str = "a.txt", kind: str = "text/plain"
    ) -> UploadedFile:
        async with self.files.receiving() as receiving:
            await receiving.write(text.encode())
            upload = FileUpload(filename=name, media_type=kind, purpose=FilePurpose.ASSISTANTS)
            return await self.files.add(principal.tenant, receiving, upload, created_by=principal.key_id)

    async def store(self, principal: Principal, *files: UploadedFile, **draft: object) -> str:
        """A new store with files, whose ingest may be in progress."""
        created = await self.stores.create(principal, StoreDraft(**draft))  # type: ignore[arg-type]
        if files:
            drafts = [StoreFileDraft(file_id=file.public_id) for file in files]
            await self.store_files.attach(principal, created.public_id, drafts)
        return created.public_id

    async def counts(self, principal: Principal, store: str) -> FileCounts:
        return (await self.stores.get(principal, store)).counts
