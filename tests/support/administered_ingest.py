"""The document services of ``InProcessIngest`` with keys, the administration of tenants, and their routes in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.ids import CollectionId, TenantId
from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.document_service import DocumentService, Upload
from ragsvc.services.key_administration import Actor, IssuedKey, KeyAdministration, KeyDraft
from ragsvc.services.tenant_administration import TenantAdministration
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.web.app import create_app
from ragsvc.web.routes import documents as document_routes
from tests.support.file_places import StoredFiles
from tests.support.in_process_ingest import InProcessIngest
from tests.support.stored_documents import ACME


class AdministeredServices(NamedTuple):
    access: Access
    keys: KeyAdministration
    readiness: Readiness
    registry: CollectorRegistry
    documents: DocumentService
    settings: Settings


class AdministeredIngest:
    """Keys and tenants over an ``InProcessIngest``."""

    def __init__(self, ingest: InProcessIngest) -> None:
        self.ingest = ingest
        self._stored = StoredFiles(ingest.folder)
        self.database = ingest.database
        self.access = Access(ingest.database)
        self.keys = KeyAdministration(self.access)
        self.tenants = TenantAdministration(
            database=ingest.database,
            documents=ingest.documents,
            ingest=ingest.ingest,
            access=self.access,
            quotas=TenantQuotas(),
            drop_indexes=self._drop_indexes,
            forget_collections=ingest.searcher.forget_collections,
            forget_provider_keys=lambda tenant: None,
        )

    def _drop_indexes(self, collection: CollectionId) -> int:
        self.ingest.indexes.drop(collection)
        return 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AdministeredIngest]:
        async with self.ingest.running(), self.access.running():
            yield self

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of an application with the routes of documents and keys."""
        services = AdministeredServices(
            self.access, self.keys, Readiness(), CollectorRegistry(), self.ingest.documents, Settings()
        )
        app = create_app(services, route_handlers=document_routes.route_handlers)
        transport = httpx.ASGITransport(app)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client

    async def key(self, tenant: TenantId = ACME, **options: object) -> IssuedKey:
        draft = KeyDraft(tenant=tenant, label="quickstart", limits=self.keys.limits(), **options)  # type: ignore[arg-type]
        return await self.keys.create(draft, actor=Actor())

    async def add(self, text: str, *, collection: str, tenant: TenantId = ACME) -> str:
        """Upload a text and wait until it is ready; returns its public id."""
        async with self.ingest.documents.receiving() as receiving:
            await receiving.write(text.encode())
            upload = Upload(filename="a.txt", media_type="text/plain", collection=collection)
            document = (await self.ingest.documents.add(tenant, receiving, upload)).document
        await self.ingest.documents.wait(tenant, document.public_id, timeout_s=60)
        return document.public_id

    def count(self, table: str) -> int:
        """Number of rows of a table."""
        return self.database.read_sync(lambda c: c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608

    def stored_texts(self) -> list[str]:
        """The content of every stored file."""
        return sorted(content.decode() for _, content in self._stored.contents())
