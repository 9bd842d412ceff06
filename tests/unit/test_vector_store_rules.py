"""Counts, shared bytes, batches and the expiry of vector stores, with real rows, files and indexes."""

from __future__ import annotations

import errno
import io
import json
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import CollectionNotFound, FileNotFound, VectorStoreFileNotFound, VectorStoreNotFound
from ragsvc.core.ids import CollectionId
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.core.vector_stores import SECONDS_PER_DAY, FileBatch, FileCounts, StoreFileStatus
from ragsvc.services.store_files import StoreFileDraft
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store.tenant_rows import TenantLimits
from tests.support.in_process_ingest import InProcessIngest, ObservedEmbedder
from tests.support.store_services import StoreServices
from tests.support.stored_documents import ACME, OTHER

pytestmark = pytest.mark.anyio

Running = tuple[StoreServices, Principal]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def running(folder: Path, embedder: ObservedEmbedder | None = None) -> AsyncIterator[Running]:
    services = StoreServices(InProcessIngest(folder / "data", embedder=embedder))
    async with services.running():
        yield services, await services.principal(ACME)


def completed(number: int, **others: int) -> FileCounts:
    return FileCounts(completed=number, total=number + sum(others.values()), **others)


async def searched(services: StoreServices, principal: Principal, store: str, text: str) -> list[str]:
    """Texts of the passages that a word search of a store finds."""
    found = await services.stores.search(principal, store, [SearchQuery(text=text, mode=SearchMode.LEXICAL)])
    return [passage.hit.passage.text for passage in found]


async def test_files_with_equal_bytes_are_two_files_of_a_store_and_one_document(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        first = await services.file(principal, "harbour lights", name="one.txt")
        second = await services.file(principal, "harbour lights", name="two.txt")
        store = await services.store(principal, first, second)
        await services.ingest.idle()
        assert await services.counts(principal, store) == completed(2)
        listed, more = await services.store_files.list_page(principal, store, limit=10, descending=False)
        assert ([file.file_id for file in listed], more) == ([first.public_id, second.public_id], False)
        assert len({file.document_id for file in listed}) == 1
        state = await services.stores.get(principal, store)
        assert state.usage_bytes == 2 * len("harbour lights")
        await services.store_files.detach(principal, store, first.public_id)
        assert await services.counts(principal, store) == completed(1)
        assert await searched(services, principal, store, "harbour") == ["harbour lights"]
        (hit,) = await services.stores.search(principal, store, [SearchQuery(text="harbour", mode=SearchMode.LEXICAL)])
        assert hit.file.file_id == second.public_id
        await services.store_files.detach(principal, store, second.public_id)
        assert await services.counts(principal, store) == FileCounts()
        assert await searched(services, principal, store, "harbour") == []
        assert services.count("documents") == 0
        assert services.stored_texts() == ["harbour lights"]  # the files stay
        assert (await services.files.get(ACME, first.public_id)).filename == "one.txt"


async def test_the_deletion_of_a_file_removes_it_from_every_store(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        doomed = await services.file(principal, "harbour lights")
        kept = await services.file(principal, "mountain paths")
        stores = [await services.store(principal, doomed, kept, name=f"store {number}") for number in range(3)]
        await services.ingest.idle()
        await services.files.delete(ACME, doomed.public_id)
        for store in stores:
            assert await services.counts(principal, store) == completed(1)
            assert await searched(services, principal, store, "harbour") == []
            assert await searched(services, principal, store, "mountain") == ["mountain paths"]
            with pytest.raises(VectorStoreFileNotFound):
                await services.store_files.get(principal, store, doomed.public_id)
        assert services.stored_texts() == ["mountain paths"]


async def test_counts_are_exact_while_files_are_ingested(tmp_path: Path) -> None:
    """Whenever it is asked, the store counts every file once, and completed files only grow."""
    gate = anyio.Event()
    embedder = ObservedEmbedder(lambda texts: gate.wait())
    async with running(tmp_path, embedder) as (services, principal):
        files = [await services.file(principal, f"text number {number}") for number in range(12)]
        image = await services.file(principal, "not an image", name="a.bin", kind="application/octet-stream")
        store = await services.store(principal, *files, image)
        assert await services.counts(principal, store) == FileCounts(in_progress=12, failed=1, total=13)
        state = await services.stores.get(principal, store)
        assert state.usage_bytes == sum(file.size_bytes for file in (*files, image))
        gate.set()
        seen: list[FileCounts] = []
        while services.ingest.jobs():
            seen.append(await services.counts(principal, store))
            listed, _ = await services.store_files.list_page(principal, store, limit=100)
            assert len(listed) == 13
            await anyio.sleep(0)
        seen.append(await services.counts(principal, store))
        for counts in seen:
            assert counts.in_progress + counts.completed + counts.failed + counts.cancelled == counts.total == 13
            assert counts.failed == 1
        assert [counts.completed for counts in seen] == sorted(counts.completed for counts in seen)
        assert seen[-1] == completed(12, failed=1)


async def test_a_batch_is_cancelled_as_far_as_it_has_not_begun(tmp_path: Path) -> None:
    begun, gate = anyio.Event(), anyio.Event()

    async def wait(_texts: list[str]) -> None:
        begun.set()
        await gate.wait()

    async with running(tmp_path, ObservedEmbedder(wait)) as (services, principal):  # two workers
        files = [await services.file(principal, f"text number {number}") for number in range(6)]
        shared = files[5]
        store = await services.store(principal)
        drafts = [StoreFileDraft(file_id=file.public_id) for file in files[:5]]
        batch = await services.store_files.create_batch(principal, store, drafts)
        assert batch.status is StoreFileStatus.IN_PROGRESS
        assert batch.counts == FileCounts(in_progress=5, total=5)
        await services.store_files.attach(principal, store, [StoreFileDraft(file_id=shared.public_id)])
        with anyio.fail_after(20):
            await begun.wait()
            while services.ingest.ingest.running_count() < 2:
                await anyio.sleep(0.01)
        cancelled = await services.store_files.cancel_batch(principal, store, batch.public_id)
        assert cancelled.status is StoreFileStatus.CANCELLED
        assert cancelled.counts == FileCounts(in_progress=2, cancelled=3, total=5)
        gate.set()
        await services.ingest.idle()
        ended = await services.store_files.batch(principal, store, batch.public_id)
        assert (ended.status, ended.counts) == (StoreFileStatus.CANCELLED, completed(2, cancelled=3))
        assert await services.counts(principal, store) == completed(3, cancelled=3)
        listed, _ = await services.store_files.list_page(
            principal, store, limit=10, batch_id=batch.public_id, status=StoreFileStatus.CANCELLED, descending=False
        )
        assert [file.file_id for file in listed] == [file.public_id for file in files[2:5]]
        assert await searched(services, principal, store, f"number {4}") != []
        await services.store_files.attach(principal, store, [StoreFileDraft(file_id=files[4].public_id)])  # again
        await services.ingest.idle()
        assert await services.counts(principal, store) == completed(4, cancelled=2)


async def test_a_store_expires_after_its_last_use_and_is_removed(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        file = await services.file(principal, "harbour lights")
        store = await services.store(principal, file, name="brief", expires_after_days=2)
        lasting = await services.store(principal, file, name="lasting")
        await services.ingest.idle()
        services.later_s = 1.5 * SECONDS_PER_DAY
        assert await searched(services, principal, store, "harbour") == ["harbour lights"]  # a use
        services.later_s = 3 * SECONDS_PER_DAY
        await services.stores.sweep()
        assert (await services.stores.get(principal, store)).expired is False
        services.later_s = 4 * SECONDS_PER_DAY
        expired = await services.stores.get(principal, store)
        assert (expired.expired, expired.counts) == (True, FileCounts())
        with pytest.raises(VectorStoreNotFound, match="has expired"):
            await searched(services, principal, store, "harbour")
        await services.stores.sweep()
        assert (await services.stores.get(principal, store)).expired
        assert [
            (entry.public_id, entry.expired) for entry in (await services.stores.list_page(principal, limit=9))[0]
        ] == [(lasting, False), (store, True)]
        with pytest.raises(VectorStoreNotFound, match="has expired"):
            await services.store_files.list_page(principal, store, limit=10)
        with pytest.raises(CollectionNotFound):
            await services.tenants.collection(ACME, "brief")
        assert services.count("documents") == 1
        assert services.stored_texts() == ["harbour lights"]
        assert await searched(services, principal, lasting, "harbour") == ["harbour lights"]
        again = await services.store(principal, name="brief")
        assert (await services.stores.get(principal, again)).collection == "brief"
        await services.stores.delete(principal, store)
        with pytest.raises(VectorStoreNotFound, match="no vector store"):
            await services.stores.get(principal, store)
        services.later_s = 40 * SECONDS_PER_DAY
        await services.stores.change(principal, lasting, {"expires_after_days": 1})
        services.later_s = 42 * SECONDS_PER_DAY
        await services.stores.sweep()
        assert services.count("expired_stores") == 1


async def test_a_search_costs_no_write(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        store = await services.store(principal, await services.file(principal, "harbour lights"))
        await services.ingest.idle()
        await services.stores.sweep()

        def stored() -> int:
            statement = "SELECT last_active_at FROM collections"
            return services.database.read_sync(lambda c: c.exec_driver_sql(statement).scalar_one())

        before = stored()
        services.later_s = 1000
        for _ in range(5):
            await searched(services, principal, store, "harbour")
        assert stored() == before
        assert (await services.stores.get(principal, store)).last_active_at >= before + 1000
        await services.stores.sweep()
        assert stored() >= before + 1000


async def test_uses_are_written_when_the_service_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        store = await services.store(principal, name="used")
        services.later_s = 500
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(services.stores.run)
            await anyio.sleep(0.1)
            services.later_s = 1000
            with pytest.raises(VectorStoreFileNotFound):
                await services.store_files.get(principal, store, "file-0")
            services.activity.note((await services.stores.get(principal, store)).id)
            tasks.cancel_scope.cancel()
        assert services.activity.pending() == {}


@pytest.mark.parametrize("name", ["taken", " padded ", "line\nbreak", "/slash", "x" * 600, "", None])
async def test_any_name_of_a_store_gives_a_legal_unique_collection(tmp_path: Path, name: str | None) -> None:
    async with running(tmp_path) as (services, principal):
        await services.store(principal, name="taken")
        created = await services.stores.get(principal, await services.store(principal, name=name))
        assert created.name == name
        assert created.collection != "taken"
        assert created.collection.isprintable()
        assert len(created.collection) <= 512
        found = await services.tenants.collection(ACME, created.collection)
        assert found.documents == 0


async def test_a_tenant_is_deleted_with_its_stores(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        other = await services.principal(OTHER)
        kept = await services.store(other, await services.file(other, "harbour lights"))
        file = await services.file(principal, "mountain paths")
        await services.store(principal, file, name="one")
        expiring = await services.store(principal, file, expires_after_days=1)
        drafts = [StoreFileDraft(file_id=file.public_id)]
        await services.store_files.create_batch(principal, await services.store(principal), drafts)
        await services.ingest.idle()
        services.later_s = 2 * SECONDS_PER_DAY
        await services.stores.sweep()
        assert (await services.stores.get(principal, expiring)).expired
        await services.tenants.delete_tenant(ACME)
        for table, left in (("collections", 1), ("files", 1), ("document_files", 1), ("documents", 1)):
            assert services.count(table) == left, table
        assert services.count("expired_stores") == services.count("file_batches") == 0
        assert services.stored_texts() == ["harbour lights"]
        assert await services.counts(other, kept) == completed(1)
        with pytest.raises(VectorStoreNotFound):
            await services.stores.get(principal, expiring)


async def test_every_id_of_another_tenant_is_unknown(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        other = await services.principal(OTHER)
        file = await services.file(principal, "mountain paths")
        store = await services.store(principal, file)
        drafts = [StoreFileDraft(file_id=file.public_id)]
        batch = (await services.store_files.create_batch(principal, store, drafts)).public_id
        own_store = await services.store(other)
        await services.ingest.idle()
        calls: Mapping[str, Callable[[], object]] = {
            "get": lambda: services.stores.get(other, store),
            "after": lambda: services.stores.list_page(other, limit=1, after=store),
            "change": lambda: services.stores.change(other, store, {"display_name": "x"}),
            "delete": lambda: services.stores.delete(other, store),
            "search": lambda: searched(services, other, store, "mountain"),
            "files": lambda: services.store_files.list_page(other, store, limit=1),
            "file": lambda: services.store_files.get(other, store, file.public_id),
            "attributes": lambda: services.store_files.set_attributes(other, store, file.public_id, {}),
            "pages": lambda: services.store_files.pages(other, store, file.public_id),
            "detach": lambda: services.store_files.detach(other, store, file.public_id),
            "batch": lambda: services.store_files.batch(other, store, batch),
            "cancel": lambda: services.store_files.cancel_batch(other, store, batch),
            "attach": lambda: services.store_files.attach(other, store, drafts),
        }
        for call in calls.values():
            with pytest.raises(VectorStoreNotFound, match="There is no vector store"):
                await call()  # type: ignore[misc]
        for attach in (services.store_files.attach, services.store_files.create_batch):
            with pytest.raises(FileNotFound):
                await attach(other, own_store, drafts)
        with pytest.raises(VectorStoreFileNotFound):
            await services.store_files.get(other, own_store, file.public_id)
        assert await services.counts(other, own_store) == FileCounts()
        assert await services.counts(principal, store) == completed(1)


async def test_an_export_has_the_stores_with_their_files(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        file = await services.file(principal, "harbour lights")
        brief = await services.store(principal, expires_after_days=1)
        store = await services.store(principal, file, name="reports", metadata={"team": "a"})
        await services.ingest.idle()
        services.later_s = 2 * SECONDS_PER_DAY
        await services.stores.sweep()
        other = await services.principal(OTHER)
        await services.store(other, name="foreign")
        archive = io.BytesIO(b"".join([piece async for piece in services.export.chunks(ACME)]))
        with tarfile.open(fileobj=archive) as members:
            stores = json.load(members.extractfile("vector_stores.json"))  # type: ignore[arg-type]
        document = (await services.store_files.get(principal, store, file.public_id)).document_public_id
        assert [(entry["store"]["public_id"], entry["store"]["expired"], entry["files"]) for entry in stores] == [
            (brief, True, []),
            (store, False, [[file.public_id, document]]),
        ]
        assert stores[1]["store"]["metadata"] == {"team": "a"}


async def test_a_document_gets_its_own_file_again_while_another_store_has_that_file(tmp_path: Path) -> None:
    """The file that came with a document was removed from its collection, and is still in another store."""
    async with running(tmp_path) as (services, principal):
        document = await services.add("harbour lights", collection="reports")
        stores, _ = await services.stores.list_page(principal, limit=1)
        reports = stores[0].public_id
        (own,), _ = await services.store_files.list_page(principal, reports, limit=1)
        other = await services.store(principal)
        await services.store_files.attach(principal, other, [StoreFileDraft(file_id=own.file_id)])
        uploaded = await services.file(principal, "harbour lights")
        await services.store_files.attach(principal, reports, [StoreFileDraft(file_id=uploaded.public_id)])
        await services.store_files.detach(principal, reports, own.file_id)
        assert await services.add("harbour lights", collection="reports") == document
        await services.files.delete(ACME, uploaded.public_id)
        assert await services.counts(principal, reports) == completed(1)
        await services.ingest.idle()
        assert await services.counts(principal, other) == completed(1)
        await services.ingest.documents.delete(ACME, document)
        assert await services.counts(principal, reports) == FileCounts()
        assert (await services.store_files.get(principal, other, own.file_id)).filename == "a.txt"


class FaultyDisk(StoreServices):
    """Services whose indexes cannot be removed from the disk while ``faults`` are left."""

    faults = 2

    def _drop_indexes(self, collection: CollectionId) -> int:
        if self.faults:
            self.faults -= 1
            raise OSError(errno.EIO, "Input/output error")
        return super()._drop_indexes(collection)


async def test_a_fault_of_the_disk_does_not_end_the_expiry_of_stores(tmp_path: Path) -> None:
    """The failure of a background task ends the service."""
    services = FaultyDisk(InProcessIngest(tmp_path / "data"), sweep_interval_s=0.01)
    async with services.running(), anyio.create_task_group() as tasks:
        principal = await services.principal(ACME)
        tasks.start_soon(services.stores.run)
        for day in range(1, 4):
            store = await services.store(principal, expires_after_days=1)
            services.later_s = 2 * day * SECONDS_PER_DAY
            with anyio.fail_after(20):
                while services.count(f"expired_stores WHERE public_id = '{store}'") == 0:
                    await anyio.sleep(0.01)
        with anyio.fail_after(20):
            while services.count("collections"):
                await anyio.sleep(0.01)
        assert services.faults == 0
        tasks.cancel_scope.cancel()


async def test_an_expired_store_is_forgotten_though_no_other_expires(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        store = await services.store(principal, name="brief", expires_after_days=1)
        services.later_s = 2 * SECONDS_PER_DAY
        await services.stores.sweep()
        services.later_s = 30 * SECONDS_PER_DAY
        await services.stores.sweep()
        assert (await services.stores.get(principal, store)).expired
        services.later_s = 32 * SECONDS_PER_DAY
        await services.stores.sweep()
        with pytest.raises(VectorStoreNotFound, match="no vector store"):
            await services.stores.get(principal, store)
        assert services.count("expired_stores") == 0


async def test_a_file_that_a_batch_names_twice_counts_once_for_the_quota(tmp_path: Path) -> None:
    services = StoreServices(InProcessIngest(tmp_path / "data"), quotas=TenantQuotas(TenantLimits(max_documents=1)))
    async with services.running():
        principal = await services.principal(ACME)
        file = await services.file(principal, "harbour lights")
        drafts = [StoreFileDraft(file_id=file.public_id)] * 2
        store = await services.store(principal)
        batch = await services.store_files.create_batch(principal, store, drafts)
        assert batch.counts.total == 1


async def test_a_batch_is_added_with_all_of_its_files_or_not_at_all(tmp_path: Path) -> None:
    """A fault of the disk in the middle stands for a kill: nothing is left of what no client was told of."""
    async with running(tmp_path) as (services, principal):
        files = [await services.file(principal, f"text {number}", name=f"{number}.txt") for number in range(120)]
        store = await services.store(principal)
        drafts = [StoreFileDraft(file_id=file.public_id) for file in files]
        fault = (
            "CREATE TRIGGER fault BEFORE INSERT ON batch_files WHEN (SELECT count(*) FROM batch_files) >= 60 "
            "BEGIN SELECT RAISE(ABORT, 'fault'); END"
        )
        services.database.write_sync(lambda c: c.exec_driver_sql(fault))
        with pytest.raises(IntegrityError):
            await services.store_files.create_batch(principal, store, drafts)
        for table in ("file_batches", "batch_files", "document_files", "documents", "jobs"):
            assert services.count(table) == 0, table
        services.database.write_sync(lambda c: c.exec_driver_sql("DROP TRIGGER fault"))
        missing = StoreFileDraft(file_id="file-" + "0" * 24)
        with pytest.raises(FileNotFound):
            await services.store_files.create_batch(principal, store, [*drafts, missing])
        assert services.count("file_batches") == services.count("documents") == 0
        batch = await services.store_files.create_batch(principal, store, drafts)
        assert batch.counts.total == 120
        await services.files.delete(ACME, files[-1].public_id)
        await services.ingest.idle()
        assert (await services.store_files.batch(principal, store, batch.public_id)).counts == completed(119)
        assert await services.counts(principal, store) == completed(119)


async def test_the_files_of_a_batch_with_equal_bytes_share_a_document_and_the_last_attributes(tmp_path: Path) -> None:
    async with running(tmp_path) as (services, principal):
        texts = ("harbour", "harbour", "lights")
        files = [await services.file(principal, text) for text in texts]
        picture = await services.file(principal, "pixels", kind="application/zip")
        store = await services.store(principal)
        drafts = [
            StoreFileDraft(file_id=files[0].public_id, attributes={"n": 1}),
            StoreFileDraft(file_id=files[1].public_id, attributes={"n": 2}),
            StoreFileDraft(file_id=files[2].public_id),
            StoreFileDraft(file_id=picture.public_id),
        ]
        batch = await services.store_files.create_batch(principal, store, drafts)
        await services.ingest.idle()
        batch = await services.store_files.batch(principal, store, batch.public_id)
        assert batch.counts == completed(3, failed=1)
        listed, _ = await services.store_files.list_page(principal, store, limit=9, descending=False)
        assert [file.attributes for file in listed] == [{"n": 2}, {"n": 2}, {}, {}]
        assert [file.failure_code for file in listed] == [None, None, None, "unsupported_file"]
        assert len({file.document_public_id for file in listed}) == services.count("documents") == 3
        again = [StoreFileDraft(file_id=file.public_id, attributes={"n": 3}) for file in (files[0], files[2])]
        await services.store_files.create_batch(principal, store, again)
        listed, _ = await services.store_files.list_page(principal, store, limit=9, descending=False)
        assert [file.attributes for file in listed] == [{"n": 3}, {"n": 3}, {"n": 3}, {}]


@pytest.mark.parametrize("kind", ["application/json", "text/x-python", "application/typescript"])
async def test_files_of_code_and_data_are_read_as_text(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path) as (services, principal):
        file = await services.file(principal, '{"harbour": "lights"}', name="a.json", kind=kind)
        store = await services.store(principal, file)
        await services.ingest.idle()
        assert await services.counts(principal, store) == completed(1)
        assert await searched(services, principal, store, "harbour") == ['{"harbour": "lights"}']
        assert (await services.files.get(ACME, file.public_id)).media_type == kind


async def test_batches_with_common_files_count_them_both(tmp_path: Path) -> None:
    """A later batch takes no files from an earlier one, whose client still polls it."""
    gate = anyio.Event()
    embedder = ObservedEmbedder(lambda texts: gate.wait())
    async with running(tmp_path, embedder) as (services, principal):
        files = [await services.file(principal, f"text number {number}") for number in range(8)]
        drafts = [StoreFileDraft(file_id=file.public_id) for file in files]
        store = await services.store(principal)
        first = await services.store_files.create_batch(principal, store, drafts)
        second = await services.store_files.create_batch(principal, store, drafts[4:])

        async def state(batch: FileBatch) -> tuple[StoreFileStatus, int, int]:
            now = await services.store_files.batch(principal, store, batch.public_id)
            return now.status, now.counts.in_progress, now.counts.total

        assert await state(first) == (StoreFileStatus.IN_PROGRESS, 8, 8)
        assert await state(second) == (StoreFileStatus.IN_PROGRESS, 4, 4)
        cancelled = await services.store_files.cancel_batch(principal, store, second.public_id)
        assert cancelled.counts.cancelled == 0  # the first batch is to be finished
        gate.set()
        await services.ingest.idle()
        assert await services.counts(principal, store) == completed(8)
        assert await state(first) == (StoreFileStatus.COMPLETED, 0, 8)
        listed, _ = await services.store_files.list_page(principal, store, limit=10, batch_id=first.public_id)
        assert {file.file_id for file in listed} == {file.public_id for file in files}
        await services.store_files.detach(principal, store, files[7].public_id)
        await services.files.delete(ACME, files[6].public_id)
        assert [(await state(batch))[2] for batch in (first, second)] == [6, 2]
        await services.stores.delete(principal, store)
        assert services.count("batch_files") == services.count("file_batches") == 0


EQUAL_FILES = 3000


@pytest.fixture
def few_parameters() -> Iterator[None]:
    """Statements may have 1000 parameters instead of 32,766 or 250,000, so that fewer files show the same."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1000)

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


async def test_a_document_of_very_many_equal_files_is_found_and_deleted(tmp_path: Path, few_parameters: None) -> None:
    """Otherwise a tenant stops the removal of every deleted collection, and with it the service at each start."""
    async with running(tmp_path) as (services, principal):
        file = await services.file(principal, "harbour lights", name="first.txt")
        stores = [await services.store(principal, file) for _ in range(3)]
        await services.ingest.idle()
        names = "public_id, tenant, filename, media_type, size_bytes, sha256, purpose, status, created_at, implicit"
        copies = (
            f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {EQUAL_FILES}) "  # noqa: S608 - constants
            f"INSERT INTO files ({names}) SELECT 'file-copy' || n, {names.partition(', ')[2]} FROM files, n"
        )
        links = (
            "INSERT INTO document_files SELECT d.id, f.id, d.created_at + 1, d.collection_id FROM files f, documents d "
            "WHERE f.public_id LIKE 'file-copy%'"
        )
        for statement in (copies, links):
            services.database.write_sync(lambda c, s=statement: c.exec_driver_sql(s))
        assert (await services.counts(principal, stores[0])).completed == EQUAL_FILES + 1
        query = SearchQuery(text="harbour", mode=SearchMode.LEXICAL)
        (hit,) = await services.stores.search(principal, stores[0], [query])
        assert hit.file.filename == "first.txt"
        document = (await services.store_files.get(principal, stores[0], file.public_id)).document_public_id
        await services.store_files.detach(principal, stores[0], file.public_id)
        assert (await services.counts(principal, stores[0])).completed == EQUAL_FILES
        await services.ingest.documents.delete(ACME, document)
        assert await services.counts(principal, stores[0]) == FileCounts()
        await services.stores.delete(principal, stores[1])
        await services.tenants.delete_tenant(ACME)
        assert services.count("files") == services.count("documents") == 0
