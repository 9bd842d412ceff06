"""Deletions of collections while the disk has faults: they end, or are tried again."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from ragsvc.core.ids import CollectionId
from ragsvc.services.access_control import Access
from ragsvc.services.tenant_administration import TenantAdministration
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import tenant_rows
from tests.support.in_process_ingest import InProcessIngest
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def administration(service: InProcessIngest) -> TenantAdministration:
    def drop_indexes(collection_id: CollectionId) -> int:
        service.indexes.drop(collection_id)
        return 1

    return TenantAdministration(
        database=service.database,
        documents=service.documents,
        ingest=service.ingest,
        access=Access(service.database, monotonic=time.monotonic),
        quotas=TenantQuotas(),
        drop_indexes=drop_indexes,
        forget_collections=service.searcher.forget_collections,
        forget_provider_keys=lambda _: None,
    )


def count(service: InProcessIngest, table: str) -> int:
    statement = f"SELECT count(*) FROM {table}"  # noqa: S608 - names of tables in this file
    return service.database.read_sync(lambda c: c.exec_driver_sql(statement).scalar_one())


async def make_irremovable(service: InProcessIngest, text: str) -> Path:
    """Store a document whose file cannot be unlinked, whoever runs this."""
    document = await service.add(text, filename="a.txt")
    path = service.blobs.path(ACME, document.sha256)
    path.unlink()
    path.mkdir()
    return path


async def remove_later(service: InProcessIngest, path: Path) -> None:
    path.rmdir()
    path.write_text("The walrus sleeps.")
    await service.ingest.file_removals.finish_all()
    assert not path.exists()
    with anyio.fail_after(30):
        while count(service, "file_removals"):
            await anyio.sleep(0.01)


async def test_a_file_that_cannot_be_removed_does_not_stop_the_deletion_of_its_collection(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        path = await make_irremovable(service, "The walrus sleeps.")
        await service.add("The meadow is green.", filename="b.txt")
        report = await administration(service).delete_collection(ACME, "default")
        assert (report.documents, report.files, report.collections) == (2, 1, 1)
        assert (count(service, "documents"), count(service, "file_removals")) == (0, 1)
        await remove_later(service, path)


async def test_an_unfinished_deletion_goes_on_after_a_fault_of_a_file(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service, anyio.create_task_group() as tasks:
        path = await make_irremovable(service, "The walrus sleeps.")
        tenants = administration(service)
        await service.database.write(lambda c: tenant_rows.mark_collections_deleted(c, ACME, now=1))  # killed here
        tasks.start_soon(tenants.finish_deletions)
        with anyio.fail_after(30):
            while count(service, "collections"):
                await anyio.sleep(0.01)
        assert (count(service, "documents"), count(service, "file_removals")) == (0, 1)
        tasks.cancel_scope.cancel()
    service = InProcessIngest(tmp_path)
    await remove_later(service, path)
    service.close()
