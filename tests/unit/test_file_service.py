"""Files, the documents made from them, and uploads in parts: rows, bytes, expiry, isolation, kills between steps."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.core.errors import FileNotFound, InvalidRequest, PolicyDenied, UploadNotFound
from ragsvc.core.files import WHOLE_TENANT, FilePurpose, FileReach, UploadedFile
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.crypto.at_rest import MasterKey, MasterKeys
from ragsvc.services.document_service import Upload
from ragsvc.services.expiry_sweep import ExpirySweep
from ragsvc.services.file_service import FileUpload
from ragsvc.services.upload_service import UploadPlan
from ragsvc.store import attachment_rows, document_listing, document_rows, file_rows, job_rows, tenant_rows
from ragsvc.store.blobs import BlobStore, IncomingFile
from ragsvc.store.data_keys import read_data_keys
from ragsvc.store.directory_backup import back_up_directory, restore_directory
from ragsvc.store.encrypt_directory import encrypt_directory, rotate_master_key
from ragsvc.store.file_sweep import sweep_now
from tests.support.in_process_ingest import InProcessIngest
from tests.support.stored_documents import ACME, OTHER

pytestmark = pytest.mark.anyio

HOUR = 3600


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def add_file(
    service: InProcessIngest,
    text: str,
    *,
    tenant: TenantId = ACME,
    filename: str = "a.txt",
    expires_after_s: int | None = None,
    created_by: KeyId | None = None,
) -> UploadedFile:
    async with service.files.receiving() as receiving:
        await receiving.write(text.encode())
        upload = FileUpload(
            filename=filename,
            media_type="text/plain",
            purpose=FilePurpose.ASSISTANTS,
            expires_after_s=expires_after_s,
        )
        return await service.files.add(tenant, receiving, upload, created_by=created_by)


async def attach(service: InProcessIngest, file: UploadedFile, *, collection: str = "default") -> Document:
    """Make a document of a file, or link the document of the collection that has its bytes."""

    def write(connection: Connection) -> Document:
        place = document_rows.ensure_collection(connection, file.tenant, collection, now=1)
        known = document_rows.find_by_sha256(connection, place.id, file.sha256)
        if known is not None:
            file_rows.link(connection, known.id, file.id, now=1)
            return known
        new = document_rows.NewDocument(
            public_id=f"doc_{secrets.token_hex(12)}",
            tenant=file.tenant,
            collection=place,
            filename=file.filename,
            media_type=file.media_type,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            metadata={},
            created_at=1,
            file_id=file.id,
        )
        document = document_rows.insert_document(connection, new)
        job_rows.enqueue(connection, document.id, file.tenant, password=None, now=1)
        return document

    document = await service.database.write(write)
    service.ingest.kick()
    return await service.documents.wait(file.tenant, document.public_id, timeout_s=60)


async def content(service: InProcessIngest, tenant: TenantId, public_id: str) -> bytes:
    _, stored = await service.files.content(tenant, public_id)
    assert isinstance(stored, Path)
    return stored.read_bytes()


def stored_texts(blobs: BlobStore) -> list[str]:
    return sorted(path.read_text() for path in blobs.folder.glob("*/??/*"))


def count(service: InProcessIngest, table: str) -> int:
    return service.database.read_sync(lambda c: c.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608


async def test_a_deleted_file_leaves_every_collection_in_one_transaction(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        file = await add_file(service, "the harbour is deep")
        documents = [await attach(service, file, collection=name) for name in ("default", "second")]
        assert {document.status for document in documents} == {DocumentStatus.READY}
        assert await service.found("harbour") == ["a.txt"]
        await service.files.delete(ACME, file.public_id)
        assert count(service, "documents") == 0
        assert await service.found("harbour") == []
        assert (count(service, "files"), count(service, "document_files")) == (0, 0)
        logged = "SELECT count(DISTINCT collection_id) FROM index_log WHERE op = 'delete'"
        deletions = service.database.read_sync(lambda c: c.exec_driver_sql(logged).scalar_one())
        assert deletions == 2
        assert stored_texts(service.blobs) == []


async def test_a_failed_deletion_deletes_nothing(tmp_path: Path) -> None:
    """The transaction as a whole: a fault at its last statement takes back the documents of both collections."""
    async with InProcessIngest(tmp_path).running() as service:
        file = await add_file(service, "the harbour is deep")
        for name in ("default", "second"):
            await attach(service, file, collection=name)
        service.database.write_sync(
            lambda c: c.exec_driver_sql(
                "CREATE TRIGGER stop BEFORE DELETE ON files BEGIN SELECT RAISE(ABORT, 'stop'); END"
            )
        )
        with pytest.raises(Exception, match="stop"):
            await service.files.delete(ACME, file.public_id)
        assert (count(service, "documents"), count(service, "files")) == (2, 1)
        assert await service.found("harbour") == ["a.txt"]
        assert await content(service, ACME, file.public_id) == b"the harbour is deep"


async def test_a_document_of_two_files_stays_with_the_second(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        first = await add_file(service, "the harbour is deep")
        second = await add_file(service, "the harbour is deep", filename="b.txt")
        document = await attach(service, first)
        assert await attach(service, second) == document
        await service.files.delete(ACME, first.public_id)
        assert await service.found("harbour") == ["a.txt"]
        linked = service.database.read_sync(lambda c: file_rows.files_of_document(c, document.id))
        assert [file.public_id for file in linked] == [second.public_id]
        await service.files.delete(ACME, second.public_id)
        assert await service.found("harbour") == []
        assert stored_texts(service.blobs) == []


async def test_an_upload_of_a_document_keeps_it_when_the_file_is_deleted(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        file = await add_file(service, "the harbour is deep")
        document = await attach(service, file)
        assert (await service.add("the harbour is deep", filename="mine.txt")).id == document.id
        await service.files.delete(ACME, file.public_id)
        assert await service.found("harbour") == ["mine.txt"]
        await service.documents.delete(ACME, document.public_id)
        assert (count(service, "files"), stored_texts(service.blobs)) == (0, [])


async def mail_with_attachment(service: InProcessIngest) -> tuple[Document, Document]:
    mail = await service.add("a mail with a plan", filename="mail.txt")
    attached = await service.add("the harbour is deep", filename="plan.txt")
    service.database.write_sync(lambda c: attachment_rows.link(c, mail.id, attached.id, brought=True))
    return mail, attached


@pytest.mark.parametrize("file_first", [True, False])
async def test_an_attached_document_goes_with_the_last_of_its_mail_and_its_file(
    tmp_path: Path, file_first: bool
) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        mail, attached = await mail_with_attachment(service)
        file = await add_file(service, "the harbour is deep", filename="mine.txt")
        assert (await attach(service, file)).id == attached.id
        if file_first:
            await service.files.delete(ACME, file.public_id)
        else:
            await service.documents.delete(ACME, mail.public_id)
            listed, _ = await service.files.list_page(ACME, limit=10)
            assert [entry.public_id for entry in listed] == [file.public_id]
        assert await service.found("harbour") == ["plan.txt"]
        if file_first:
            await service.documents.delete(ACME, mail.public_id)
        else:
            await service.files.delete(ACME, file.public_id)
        assert await service.found("harbour") == []
        assert (count(service, "documents"), count(service, "files")) == (0, 0)
        assert stored_texts(service.blobs) == []


async def test_a_file_outlives_its_documents(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        file = await add_file(service, "the harbour is deep")
        document = await attach(service, file)
        await service.documents.delete(ACME, document.public_id)
        assert await content(service, ACME, file.public_id) == b"the harbour is deep"
        await attach(service, file)
        assert await service.found("harbour") == ["a.txt"]


async def test_a_file_expires_at_its_time_with_its_documents(tmp_path: Path) -> None:
    clock = Clock()
    async with InProcessIngest(tmp_path, clock=clock).running() as service:
        kept = await add_file(service, "kept")
        file = await add_file(service, "the harbour is deep", expires_after_s=HOUR)
        later = await add_file(service, "later", expires_after_s=2 * HOUR)
        await attach(service, file)
        sweep = ExpirySweep([service.files, service.uploads], clock=clock)
        assert await sweep.sweep() == 60
        clock.now += HOUR - 10
        assert await sweep.sweep() == 10
        assert (await service.files.get(ACME, file.public_id)).expires_at == int(clock.now) + 10
        clock.now += 10
        with pytest.raises(FileNotFound):  # before the sweep
            await service.files.get(ACME, file.public_id)
        with pytest.raises(FileNotFound):
            await service.files.delete(ACME, file.public_id)
        listed, _ = await service.files.list_page(ACME, limit=10)
        assert [entry.public_id for entry in listed] == [later.public_id, kept.public_id]
        assert stored_texts(service.blobs) == ["kept", "later", "the harbour is deep"]
        await sweep.sweep()
        assert stored_texts(service.blobs) == ["kept", "later"]
        assert await service.found("harbour") == []
        assert count(service, "documents") == 0


async def begin_upload(service: InProcessIngest, size_bytes: int, *, tenant: TenantId = ACME) -> str:
    plan = UploadPlan(filename="a.txt", media_type="text/plain", size_bytes=size_bytes, purpose=FilePurpose.ASSISTANTS)
    return (await service.uploads.create(tenant, plan)).upload.public_id


async def add_part(service: InProcessIngest, upload: str, text: str, *, tenant: TenantId = ACME) -> str:
    async with service.files.receiving() as receiving:
        await receiving.write(text.encode())
        return (await service.uploads.add_part(tenant, upload, receiving, reach=WHOLE_TENANT)).public_id


async def test_an_upload_expires_after_an_hour_and_is_forgotten_later(tmp_path: Path) -> None:
    clock = Clock()
    async with InProcessIngest(tmp_path, clock=clock).running() as service:
        upload = await begin_upload(service, 3)
        part = await add_part(service, upload, "abc")
        clock.now += HOUR - 1
        assert await service.uploads.sweep_expired() == 0
        clock.now += 1
        for act in (
            lambda: add_part(service, upload, "abc"),
            lambda: service.uploads.complete(ACME, upload, [part], reach=WHOLE_TENANT),
            lambda: service.uploads.cancel(ACME, upload, reach=WHOLE_TENANT),
        ):
            with pytest.raises(InvalidRequest, match="expired"):
                await act()
        assert await service.uploads.sweep_expired() == 1
        assert stored_texts(service.blobs) == []
        with pytest.raises(InvalidRequest, match="expired"):
            await add_part(service, upload, "abc")
        clock.now += HOUR + 1
        await service.uploads.sweep_expired()
        with pytest.raises(UploadNotFound):
            await add_part(service, upload, "abc")
        assert (count(service, "uploads"), count(service, "upload_parts")) == (0, 0)


async def test_completions_at_the_same_time_make_one_file(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        upload = await begin_upload(service, 6)
        parts = [await add_part(service, upload, text) for text in ("abc", "def")]
        made: list[str] = []

        async def complete() -> None:
            state = await service.uploads.complete(ACME, upload, parts, reach=WHOLE_TENANT)
            assert state.file is not None
            made.append(state.file.public_id)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(complete)
        assert len(set(made)) == 1
        assert stored_texts(service.blobs) == ["abcdef"]


class SlowReads(BlobStore):
    """Stored files; a read waits until ``before_read`` returns, once for each thread that reads."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before_read: Callable[[], None] = lambda: None

    def chunks(self, tenant: TenantId, sha256: str) -> Iterator[bytes]:
        self.before_read()
        return super().chunks(tenant, sha256)


async def test_a_completion_that_is_repeated_while_the_first_runs_returns_its_file(tmp_path: Path) -> None:
    """A client that got no answer in time: the first completion removes the parts while the second reads them."""
    folder = tmp_path / "data"
    folder.mkdir()
    blobs = SlowReads(folder)
    async with InProcessIngest(folder, blobs=blobs).running() as service:
        upload = await begin_upload(service, 6)
        parts = [await add_part(service, upload, text) for text in ("abc", "def")]
        reading, removed = threading.Event(), threading.Event()

        def wait_in_the_second() -> None:
            reading.set()
            assert removed.wait(20)

        second: list[str] = []

        async def repeat() -> None:
            state = await service.uploads.complete(ACME, upload, parts, reach=WHOLE_TENANT)
            assert state.file is not None
            second.append(state.file.public_id)

        blobs.before_read = wait_in_the_second
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(repeat)
            await anyio.to_thread.run_sync(reading.wait)
            blobs.before_read = lambda: None
            first = await service.uploads.complete(ACME, upload, parts, reach=WHOLE_TENANT)
            removed.set()
        assert first.file is not None
        assert second == [first.file.public_id]
        assert stored_texts(blobs) == ["abcdef"]


async def test_completions_in_two_orders_leave_the_bytes_of_one_file(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        upload = await begin_upload(service, 6)
        parts = [await add_part(service, upload, text) for text in ("abc", "def")]
        texts: set[bytes] = set()

        async def complete(order: list[str]) -> None:
            state = await service.uploads.complete(ACME, upload, order, reach=WHOLE_TENANT)
            assert state.file is not None
            texts.add(await content(service, ACME, state.file.public_id))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(complete, parts)
            tasks.start_soon(complete, parts[::-1])
        (text,) = texts
        assert stored_texts(service.blobs) == [text.decode()]


async def test_an_upload_of_one_part_keeps_the_bytes_of_the_part(tmp_path: Path) -> None:
    """The file has the stored bytes of its only part, which is removed at the same time."""
    async with InProcessIngest(tmp_path).running() as service:
        upload = await begin_upload(service, 3)
        state = await service.uploads.complete(
            ACME, upload, [await add_part(service, upload, "abc")], reach=WHOLE_TENANT
        )
        assert state.file is not None
        assert await content(service, ACME, state.file.public_id) == b"abc"


async def test_a_key_that_is_limited_to_collections_deletes_no_other_documents(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        key = FileReach(collections=("reports",), created_by=KeyId("key_limited"))
        file = await add_file(service, "the harbour is deep", created_by=KeyId("key_limited"))
        await attach(service, file, collection="reports")
        await attach(service, file, collection="private")
        with pytest.raises(PolicyDenied):
            await service.files.delete(ACME, file.public_id, reach=key)
        assert count(service, "documents") == 2
        other = await add_file(service, "other", created_by=KeyId("key_other"))
        with pytest.raises(FileNotFound):
            await service.files.get(ACME, other.public_id, reach=key)
        await attach(service, other, collection="reports")
        assert await service.files.get(ACME, other.public_id, reach=key) == other
        await service.files.delete(ACME, other.public_id, reach=key)


class KilledBlobs(BlobStore):
    """Stored files; ``at`` runs before and after each change, where a kill can happen."""

    def __init__(self, root: Path, at: Callable[[], None]) -> None:
        super().__init__(root)
        self.at = at

    def publish(self, incoming: IncomingFile, tenant: TenantId, sha256: str) -> None:
        self.at()
        super().publish(incoming, tenant, sha256)
        self.at()

    def remove(self, tenant: TenantId, sha256: str) -> None:
        self.at()
        super().remove(tenant, sha256)
        self.at()


async def test_a_kill_at_any_step_leaves_files_rows_and_bytes_that_agree(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    copies: list[tuple[Path, frozenset[str], frozenset[str]]] = []
    acknowledged: set[str] = set()
    deleted: set[str] = set()

    def copy() -> None:
        copies.append((tmp_path / f"copy{len(copies)}", frozenset(acknowledged), frozenset(deleted)))
        service.copy_as_if_killed(copies[-1][0])

    blobs = KilledBlobs(folder, lambda: None)
    service = InProcessIngest(folder, blobs=blobs)
    async with service.running():
        texts = {}
        oldest = await add_file(service, "oldest")  # of a database without a row, no file is moved to quarantine
        texts[oldest.public_id] = "oldest"
        acknowledged.add(oldest.public_id)
        blobs.at = copy
        for number in range(2):
            file = await add_file(service, f"harbour {number}")
            texts[file.public_id] = f"harbour {number}"
            acknowledged.add(file.public_id)
            await attach(service, file)
            await attach(service, file, collection="second")
        upload = await begin_upload(service, 8)
        parts = [await add_part(service, upload, text) for text in ("abcd", "efgh")]
        copy()
        done = await service.uploads.complete(ACME, upload, parts, reach=WHOLE_TENANT)
        assert done.file is not None
        texts[done.file.public_id] = "abcdefgh"
        acknowledged.add(done.file.public_id)
        first = next(public_id for public_id, text in texts.items() if text == "harbour 0")
        acknowledged.discard(first)  # either state is right while it is deleted
        await service.files.delete(ACME, first)
        deleted.add(first)
        copy()
        cancelled = await begin_upload(service, 3)
        await add_part(service, cancelled, "xyz")
        await service.uploads.cancel(ACME, cancelled, reach=WHOLE_TENANT)
        copy()
    assert len(copies) > 15
    for place, kept, gone in copies:
        again = InProcessIngest(place)
        sweep_now(again.blobs, again.database, 30)
        async with again.running():
            await again.ingest.file_removals.finish_all()
            for public_id in kept:
                assert (await content(again, ACME, public_id)).decode() == texts[public_id]
            listed, _ = await again.files.list_page(ACME, limit=100)
            assert not {file.public_id for file in listed} & gone
            references = again.database.read_sync(document_rows.referenced_blobs)
            on_disk = {path.name for path in again.blobs.folder.glob("*/??/*")}
            assert on_disk == {sha256 for _, sha256 in references}
            for table, missing in (
                ("documents", "id NOT IN (SELECT document_id FROM document_files)"),
                ("files", "implicit AND id NOT IN (SELECT file_id FROM document_files)"),
                ("document_files", "file_id NOT IN (SELECT id FROM files)"),
                ("upload_parts", "upload_id NOT IN (SELECT id FROM uploads WHERE status = 'pending')"),
            ):
                assert count(again, f"{table} WHERE {missing}") == 0
            await again.idle()
            documents = sum(texts[public_id].startswith("harbour") for public_id in kept)
            assert count(again, "documents WHERE status = 'ready'") >= documents  # of a file, until both were made
        shutil.rmtree(place)


async def test_bytes_without_a_row_are_moved_to_quarantine_and_those_of_files_are_not(tmp_path: Path) -> None:
    service = InProcessIngest(tmp_path)
    async with service.running():
        for number in range(3):
            await add_file(service, f"file {number}")
        upload = await begin_upload(service, 3)
        await add_part(service, upload, "abc")
        stray = service.blobs.path(ACME, "0" * 64)
        stray.parent.mkdir(parents=True)
        stray.write_text("stray")
        report = sweep_now(service.blobs, service.database, 30)
        assert (report.quarantined, report.removed, report.refused) == (1, 0, 0)
        assert stored_texts(service.blobs) == ["abc", "file 0", "file 1", "file 2"]


class Expected:
    """What a tenant should have by the operations that were acknowledged, and these operations."""

    def __init__(self, service: InProcessIngest, tenant: TenantId) -> None:
        self.service = service
        self.tenant = tenant
        self.foreign = self
        self.files: dict[str, str] = {}
        """Public id to content, of files that did not come with a document."""
        self.documents: dict[str, str] = {}
        self.links: dict[str, set[str]] = {}
        """Document to the files that it was made from; the implicit one is ``""``."""
        self.parts: dict[str, str] = {}
        self.upload: str | None = None

    async def add_file(self, which: int) -> None:
        text = f"text {which}"  # the same contents in both tenants
        self.files[(await add_file(self.service, text, tenant=self.tenant)).public_id] = text

    async def add_document(self, which: int) -> None:
        text = f"text {which}"
        async with self.service.documents.receiving() as receiving:
            await receiving.write(text.encode())
            upload = Upload(filename="a.txt", media_type="text/plain")
            document = (await self.service.documents.add(self.tenant, receiving, upload)).document
        self.documents[document.public_id] = text
        self.links.setdefault(document.public_id, set()).add("")

    async def delete_file(self, which: int) -> None:
        for public_id in self.foreign.files:
            with pytest.raises(FileNotFound):
                await self.service.files.delete(self.tenant, public_id)
        if self.files:
            public_id = sorted(self.files)[which % len(self.files)]
            await self.service.files.delete(self.tenant, public_id)
            del self.files[public_id]
            for document_id, files in list(self.links.items()):
                files.discard(public_id)
                if not files:
                    del self.links[document_id], self.documents[document_id]

    async def delete_document(self, which: int) -> None:
        if self.documents:
            document_id = sorted(self.documents)[which % len(self.documents)]
            await self.service.documents.delete(self.tenant, document_id)
            del self.documents[document_id], self.links[document_id]

    async def attach(self, which: int) -> None:
        if self.files:
            public_id = sorted(self.files)[which % len(self.files)]
            document = await attach(self.service, await self.service.files.get(self.tenant, public_id))
            self.documents[document.public_id] = self.files[public_id]
            self.links.setdefault(document.public_id, set()).add(public_id)

    async def add_part(self, which: int) -> None:
        text = f"text {which}"
        if self.foreign.upload is not None:
            with pytest.raises(UploadNotFound):
                await add_part(self.service, self.foreign.upload, text, tenant=self.tenant)
        if self.upload is None:
            self.upload = await begin_upload(self.service, 2 * len(text), tenant=self.tenant)
        if len(self.parts) < 2:
            self.parts[await add_part(self.service, self.upload, text, tenant=self.tenant)] = text

    async def complete(self, which: int) -> None:
        del which
        if self.upload is None or len(self.parts) < 2:
            return
        if self.foreign.parts:
            with pytest.raises(UploadNotFound):
                await self.service.uploads.complete(
                    self.tenant, self.upload, list(self.foreign.parts), reach=WHOLE_TENANT
                )
        state = await self.service.uploads.complete(self.tenant, self.upload, list(self.parts), reach=WHOLE_TENANT)
        assert state.file is not None
        self.files[state.file.public_id] = "".join(self.parts.values())
        self.parts, self.upload = {}, None

    async def compare(self) -> None:
        """Compare everything that the tenant can see, and its bytes, with what it should have."""
        service, tenant = self.service, self.tenant
        listed, _ = await service.files.list_page(tenant, limit=1000)
        assert {file.public_id for file in listed if not file.implicit} == set(self.files)
        assert sum(file.implicit for file in listed) == sum("" in files for files in self.links.values())
        for public_id, text in self.files.items():
            assert (await content(service, tenant, public_id)).decode() == text
        for public_id in self.foreign.files:
            with pytest.raises(FileNotFound):
                await service.files.content(tenant, public_id)
        found, _ = await service.documents.list_page(tenant, which=document_listing.DocumentFilter(), limit=100)
        assert {document.public_id for document in found} == set(self.documents)
        implicit = sum(len(self.documents[document]) for document, files in self.links.items() if "" in files)
        total = implicit + sum(map(len, self.files.values())) + sum(map(len, self.parts.values()))
        assert service.database.read_sync(lambda c: tenant_rows.stored_bytes(c, tenant)) == total
        stored = {*self.files.values(), *self.documents.values(), *self.parts.values()}
        digests = {hashlib.sha256(text.encode()).hexdigest() for text in stored}
        assert set(service.blobs.stored_names(tenant)) == digests


OPERATIONS = (
    Expected.add_file,
    Expected.add_document,
    Expected.delete_file,
    Expected.delete_document,
    Expected.attach,
    Expected.add_part,
    Expected.complete,
)


@pytest.mark.timeout(120)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.sampled_from([ACME, OTHER]), st.integers(0, 3)),
        min_size=4,
        max_size=25,
    )
)
def test_two_tenants_never_see_a_foreign_file_count_or_byte(
    operations: list[tuple[Callable[[Expected, int], Awaitable[None]], TenantId, int]],
) -> None:
    async def run(folder: Path) -> None:
        async with InProcessIngest(folder).running() as service:
            expected = {tenant: Expected(service, tenant) for tenant in (ACME, OTHER)}
            expected[ACME].foreign, expected[OTHER].foreign = expected[OTHER], expected[ACME]
            for operate, tenant, which in operations:
                await operate(expected[tenant], which)
            for state in expected.values():
                await state.compare()

    with TemporaryDirectory() as folder:
        anyio.run(run, Path(folder))


async def test_the_bytes_of_a_tenant_are_those_that_it_sees_while_it_is_deleted(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        await attach(service, await add_file(service, "a file of 20 bytes.."), collection="second")
        await service.add("a document of 23 bytes.", filename="b.txt")

        def stored() -> int:
            return service.database.read_sync(lambda c: tenant_rows.stored_bytes(c, ACME))

        assert stored() == 43
        service.database.write_sync(lambda c: tenant_rows.mark_collections_deleted(c, ACME, name="default", now=2))
        assert stored() == 20  # the file of the document goes with its collection
        service.database.write_sync(lambda c: tenant_rows.mark_collections_deleted(c, ACME, now=2))
        assert stored() == 20  # the file that was uploaded itself stays
        service.database.write_sync(lambda c: file_rows.mark_files_deleted(c, ACME, now=2))
        assert stored() == 0


async def files_and_parts(folder: Path) -> tuple[str, str, str, str]:
    """Make a directory with a document, a file and an upload with a part; returns the ids of the last three."""
    async with InProcessIngest(folder).running() as service:
        await service.add("the document zwiebelfisch", filename="b.txt")
        file = await add_file(service, "the file zwiebelfisch")
        upload = await begin_upload(service, len("the part zwiebelfisch") + 1)
        part = await add_part(service, upload, "the part zwiebelfisch")
        return file.public_id, file.sha256, upload, part


async def test_an_encrypted_directory_holds_no_byte_of_files_and_parts(tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3")
    file_id, sha256, upload, part = await files_and_parts(tmp_path)
    shutil.rmtree(tmp_path / "derived", ignore_errors=True)
    master = MasterKey.from_bytes(bytes(range(32)).hex().encode())
    assert encrypt_directory(tmp_path, master) == 3
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"zwiebelfisch" in path.read_bytes()] == []
    keys = read_data_keys(tmp_path, MasterKeys(master))
    memory = tmp_path / "memory"
    memory.mkdir()
    blobs = BlobStore(tmp_path, keys, memory_folder=memory)
    async with InProcessIngest(tmp_path, blobs=blobs, key=keys.database_key).running() as service:
        assert not sweep_now(blobs, service.database, 30).quarantined
        _, pieces = await service.files.content(ACME, file_id)
        assert not isinstance(pieces, Path)
        assert b"".join(pieces) == b"the file zwiebelfisch"
        parts = [part, await add_part(service, upload, "!")]
        done = await service.uploads.complete(ACME, upload, parts, reach=WHOLE_TENANT)
        assert done.file is not None
        assert b"".join(blobs.chunks(ACME, done.file.sha256)) == b"the part zwiebelfisch!"
        await service.files.delete(ACME, file_id)
        assert not blobs.path(ACME, sha256).exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"zwiebelfisch" in path.read_bytes()] == []
    rotated = MasterKey.from_bytes(bytes(range(1, 33)).hex().encode())
    rotate_master_key(tmp_path, master, rotated)
    again = BlobStore(tmp_path, read_data_keys(tmp_path, MasterKeys(rotated)))
    assert b"".join(again.chunks(ACME, done.file.sha256)) == b"the part zwiebelfisch!"


async def test_a_backup_restores_files_and_parts(tmp_path: Path) -> None:
    data, archive, restored = (tmp_path / name for name in ("data", "archive", "restored"))
    file_id, _, upload, part = await files_and_parts(data)
    assert back_up_directory(data, None, archive).manifest.missing == ()
    restored.mkdir()
    restore_directory(archive, restored)
    async with InProcessIngest(restored).running() as service:
        assert await content(service, ACME, file_id) == b"the file zwiebelfisch"
        parts = [part, await add_part(service, upload, "!")]
        done = await service.uploads.complete(ACME, upload, parts, reach=WHOLE_TENANT)
        assert done.file is not None
        assert await content(service, ACME, done.file.public_id) == b"the part zwiebelfisch!"
