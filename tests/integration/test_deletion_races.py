"""Deletions of tenants, collections and documents while other requests and jobs are in progress: nothing is left."""

import threading
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from ragsvc.config import Settings
from ragsvc.core.access.principal import Scope
from ragsvc.core.documents import AttachedFile
from ragsvc.core.errors import StorageFull, TenantNotFound
from ragsvc.store import tenant_rows as rows
from ragsvc.store.blobs import QUARANTINE
from ragsvc.store.directory_backup import back_up_directory
from ragsvc.wiring import health_checks
from ragsvc.wiring.health_checks import CheckState
from tests.support.administered_ingest import AdministeredIngest
from tests.support.engines import SQLITE, engine
from tests.support.file_places import StoredFiles
from tests.support.in_process_ingest import InProcessIngest, LineParser
from tests.support.stored_documents import ACME


async def require_no_tenant(service: AdministeredIngest) -> None:
    with pytest.raises(TenantNotFound):
        await service.tenants.tenant(ACME)
    assert [service.count(table) for table in ("api_keys", "collections", "documents", "jobs")] == [0] * 4
    assert service.stored_texts() == []


def test_an_upload_that_was_authenticated_before_the_deletion_stores_nothing(tmp_path: Path) -> None:
    """The upload is stopped between its authentication and its first byte, in the thread that makes its file."""

    async def main() -> None:
        async with (
            AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service,
            service.client() as client,
        ):
            key = await service.key()
            await service.add("The walrus sleeps.", collection="one")
            inside, may_go_on = threading.Event(), threading.Event()
            make_file = service.ingest.blobs.incoming

            def incoming(**options: int):
                inside.set()
                assert may_go_on.wait(30)
                return make_file(**options)

            service.ingest.blobs.incoming = incoming  # type: ignore[method-assign]
            statuses: list[int] = []

            async def upload() -> None:
                headers = {"authorization": f"Bearer {key.text}", "content-type": "text/plain"}
                reply = await client.post("/v1/rag/documents", content=b"Late.", headers=headers)
                statuses.append(reply.status_code)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upload)
                assert await anyio.to_thread.run_sync(inside.wait, 30)
                await service.tenants.delete_tenant(ACME)
                may_go_on.set()
            assert statuses == [409]
            await require_no_tenant(service)

    anyio.run(main)


def test_a_key_that_a_deleted_tenant_asked_for_before_is_not_created(tmp_path: Path) -> None:
    """The request of a tenant's administrator is stopped between its authentication and the end of its body."""

    async def main() -> None:
        async with (
            AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service,
            service.client() as client,
        ):
            key = await service.key(scopes=frozenset({Scope.TENANT_ADMIN}))
            received, may_end = anyio.Event(), anyio.Event()

            async def slow_body():
                yield b'{"label": "late",'
                received.set()
                await may_end.wait()
                yield b' "requests_per_minute": 1, "requests_per_hour": 1}'

            replies = []

            async def create() -> None:
                headers = {"authorization": f"Bearer {key.text}", "content-type": "application/json"}
                replies.append(await client.post("/v1/keys", content=slow_body(), headers=headers))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(create)
                await received.wait()
                await service.tenants.delete_tenant(ACME)
                may_end.set()
            assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (409, "conflict")
            await require_no_tenant(service)

    anyio.run(main)


class AttachingParser(LineParser):
    """Attaches a file to every document whose text begins with "Parent"."""

    async def parse(self, path, **options):
        parsed = await super().parse(path, **options)
        if path.read_bytes().startswith(b"Parent"):
            parsed.extraction.attached_files.append(AttachedFile(name="a.txt", data=b"The secret attachment."))
        return parsed


class Gate:
    """Stops calls of a blocking function in their thread, before or after the function, until it is opened."""

    def __init__(self, function, *, when=lambda *_: True, after: bool = False) -> None:
        self._function = function
        self._when = when
        self._after = after
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self, *arguments):
        result = self._function(*arguments) if self._after else None
        if self._when(*arguments):
            self._reached.set()
            assert self._open.wait(30)
        return result if self._after else self._function(*arguments)

    async def reached(self) -> None:
        assert await anyio.to_thread.run_sync(self._reached.wait, 30)

    def open(self) -> None:
        self._open.set()


def is_attachment(incoming, *_: object) -> bool:
    return incoming.path.exists() and b"attachment" in incoming.path.read_bytes()


@pytest.mark.parametrize("whole", ["document", "collection", "tenant"])
def test_the_attached_file_of_a_deleted_document_is_not_kept(tmp_path: Path, whole: str) -> None:
    """The document is deleted while its attached file is being stored: after the check, before its row."""

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            ingest = service.ingest
            ingest.ingest._parser = AttachingParser()
            gate = ingest.blobs.publish = Gate(ingest.blobs.publish, when=is_attachment)  # type: ignore[method-assign]
            document = await ingest.upload("Parent\nline", filename="p.txt")
            await gate.reached()
            async with anyio.create_task_group() as tasks:
                if whole == "document":
                    tasks.start_soon(ingest.documents.delete, ACME, document.public_id)
                elif whole == "collection":
                    tasks.start_soon(service.tenants.delete_collection, ACME, document.collection)
                else:
                    tasks.start_soon(service.tenants.delete_tenant, ACME)
                while service.count("jobs"):
                    await anyio.sleep(0.01)
                gate.open()
            with anyio.fail_after(30):
                while service.stored_texts() or ingest.ingest._scopes:
                    await anyio.sleep(0.01)
            assert [service.count(table) for table in ("documents", "jobs", "file_removals")] == [0] * 3

    anyio.run(main)


@pytest.mark.parametrize("after", [False, True], ids=["before it is stored", "after it is stored"])
def test_a_cancelled_upload_leaves_no_file_without_a_document(tmp_path: Path, *, after: bool) -> None:
    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            ingest = service.ingest
            gate = ingest.blobs.publish = Gate(ingest.blobs.publish, after=after)  # type: ignore[method-assign]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: ingest.upload("The secret upload.", filename="p.txt"))
                await gate.reached()
                tasks.cancel_scope.cancel()
                gate.open()
            assert service.stored_texts() == ["The secret upload."] * service.count("documents")

    anyio.run(main)


def test_an_upload_that_is_cancelled_while_its_row_is_written_is_stored_completely(tmp_path: Path) -> None:
    """The row is committed although its caller has left; the file must not be removed before."""

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            gate = Gate(lambda: None)
            async with anyio.create_task_group() as tasks:
                service.database.post(lambda connection: gate())
                await gate.reached()
                tasks.start_soon(lambda: service.ingest.upload("The upload.", filename="p.txt"))
                while not service.stored_texts():
                    await anyio.sleep(0.01)
                await anyio.sleep(0.1)  # now its write waits behind the other
                tasks.cancel_scope.cancel()
                gate.open()
            assert service.stored_texts() == ["The upload."] * service.count("documents")

    anyio.run(main)


def test_a_file_of_two_collections_is_removed_when_both_documents_are_deleted_at_once(tmp_path: Path) -> None:
    """A collection is deleted; between its file and its row, the other document with the same bytes is deleted."""

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            await service.add("The secret text.", collection="one")
            other = await service.add("The secret text.", collection="two")
            keep_or_remove = service.ingest.documents.remove_file

            async def remove_file(tenant, sha256):
                removed = await keep_or_remove(tenant, sha256)
                await service.ingest.documents.delete(ACME, other)
                return removed

            service.ingest.documents.remove_file = remove_file  # type: ignore[method-assign]
            report = await service.tenants.delete_collection(ACME, "one")
            assert (report.documents, report.files, report.file_bytes) == (1, 1, len("The secret text."))
            assert service.stored_texts() == []
            assert [service.count(table) for table in ("documents", "file_removals")] == [0, 0]

    anyio.run(main)


@pytest.mark.local_files  # a folder in the place of the file
def test_a_file_that_cannot_be_removed_does_not_stop_a_deletion_and_is_removed_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            await service.add("The secret text.", collection="one")
            await service.add("Another text.", collection="one")
            document = await service.ingest.add("The upload.", filename="a.txt")
            path = service.ingest.blobs.path(ACME, document.sha256)
            path.unlink()
            path.mkdir()  # cannot be unlinked, whoever runs this
            report = await service.tenants.delete_tenant(ACME)
            assert (report.documents, report.files) == (3, 2)
            assert [service.count(table) for table in ("documents", "file_removals")] == [0, 1]
            path.rmdir()
            path.write_text("The upload.")
            await service.ingest.ingest.file_removals.finish_all()
            assert service.stored_texts() == []

    anyio.run(main)


def test_an_interrupted_deletion_of_a_tenant_leaves_no_copy_and_no_stray_file(tmp_path: Path) -> None:
    """The disk is full after the first transaction: the tenant does not exist any more, so no request can go on."""

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            await service.add("The secret text.", collection="one")
            stored = StoredFiles(tmp_path / "data")
            stored.write(service.ingest.blobs.name(ACME, "ab" + "0" * 62), b"A stray secret.")
            stored.write(f"{QUARANTINE}/2026-01-01/{ACME}/ab/secret", b"A secret in quarantine.")
            copy = tmp_path / "data" / "ragsvc.sqlite.before-0002"
            copy.write_text("Rows from before an upgrade.")
            remove = service.tenants._remove

            async def fail_once(*_: object) -> None:
                service.tenants._remove = remove
                raise StorageFull("The disk is full.")

            service.tenants._remove = fail_once
            with pytest.raises(StorageFull):
                await service.tenants.delete_tenant(ACME, remove_copies=True)
            with pytest.raises(TenantNotFound):
                await service.tenants.tenant(ACME)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.tenants.finish_deletions)
                with anyio.fail_after(30):
                    while service.count("collections"):
                        await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            assert (stored.names(QUARANTINE), service.stored_texts()) == ([], [])
            assert copy.exists() is (engine.name != SQLITE)

    anyio.run(main)


def test_the_deletion_of_a_tenants_last_collection_keeps_its_files_in_quarantine(tmp_path: Path) -> None:
    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            await service.add("The text.", collection="one")
            stored, quarantined = StoredFiles(tmp_path / "data"), f"{QUARANTINE}/2026-01-01/{ACME}/ab/unknown"
            stored.write(quarantined, b"A file that the database forgot.")
            await service.tenants.delete_collection(ACME, "one")
            assert stored.names(QUARANTINE) == [quarantined]

    anyio.run(main)


def test_usage_that_waits_to_be_written_is_not_written_after_the_deletion(tmp_path: Path) -> None:
    """Another write is running; the deletion waits behind it, and the usage of the last request behind both."""

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            key = await service.key()
            assert key.text is not None
            live = await service.access.authenticate(key.text.encode())
            gate = Gate(lambda: None)
            service.database.post(lambda connection: gate())
            await gate.reached()
            service.access.count_request(live.principal, family="search")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.tenants.delete_tenant, ACME)
                await anyio.sleep(0.1)
                tasks.start_soon(lambda: service.access._flush(release=True))
                await anyio.sleep(0.1)
                gate.open()
            assert service.count("usage") == 0
            service.access.count_request(live.principal, family="search")
            await service.access._flush(release=True)
            assert service.count("usage") == 0

    anyio.run(main)


@pytest.mark.sqlite_file
@pytest.mark.local_files
def test_a_backup_during_a_deletion_does_not_miss_the_files_that_are_being_deleted(tmp_path: Path) -> None:
    """The backup is made when the files of a deleted collection were removed and their rows were not."""

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            await service.add("The doomed text.", collection="one")
            await service.add("The kept text.", collection="two")
            made = []
            remove_rows = rows.remove_documents

            def remove_documents(*arguments, **options):
                made.append(back_up_directory(tmp_path / "data", None, tmp_path / "backup"))
                return remove_rows(*arguments, **options)

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(rows, "remove_documents", remove_documents)
                await service.tenants.delete_collection(ACME, "one")
            (result,) = made
            assert (result.manifest.documents, result.manifest.missing) == (1, ())

    anyio.run(main)


@pytest.mark.sqlite_file
@pytest.mark.local_files
def test_doctor_misses_no_file_of_a_deletion_that_was_interrupted(tmp_path: Path) -> None:
    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            await service.add("The doomed text.", collection="one")
            document = await service.ingest.add("The kept text.", filename="a.txt")
            service.database.write_sync(lambda c: rows.mark_collections_deleted(c, ACME, name="one", now=1))
            await service.tenants._documents.remove_file(ACME, sha256(b"The doomed text.").hexdigest())

        def states() -> list[CheckState]:
            settings = Settings(data_dir=tmp_path / "data")
            checks = health_checks.files(settings, None, database_dir=settings.data_dir, deep=False)
            return [check.state for check in checks]

        assert states() == [CheckState.OK]
        service.ingest.blobs.path(ACME, document.sha256).unlink()
        assert states() == [CheckState.FAIL]

    anyio.run(main)
