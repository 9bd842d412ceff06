"""Tenants and collections over HTTP against the real service: their contents, limits, export and total deletion."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest
import tantivy
from sqlalchemy import Connection

from ragsvc.core.ids import TenantId
from ragsvc.services.key_administration import Actor, KeyDraft
from ragsvc.store.database import Database
from ragsvc.store.provider_rows import put_key
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.conftest import NO_LIMITS, Tenant
from tests.support.administered_ingest import AdministeredIngest
from tests.support.engines import engine, texts_of_rows
from tests.support.file_places import StoredFiles, stored_bytes
from tests.support.in_process_ingest import InProcessIngest
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.model

SECRET_WORD = "zwiebelfischgeheimnis"
SECRET = f"The {SECRET_WORD} of the harbour is hidden below the northern pier."
OTHER = "The lighthouse of the island is painted in red and white."


@pytest.fixture
def fresh(tmp_path: Path, service: RunningService) -> Iterator[RunningService]:
    """A service of its own, whose data directory a test can search; its model is that of the shared service."""
    data_dir = tmp_path / "data"
    shutil.copytree(service.data_dir / "models", data_dir / "models")
    admin = create_key(data_dir, tenant="operator", extra=("--scope", "admin"))
    running = RunningService(data_dir)
    running.admin_key = admin
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0


@pytest.fixture
def join(fresh: RunningService) -> Iterator[Callable[[str], Tenant]]:
    """Adds a tenant to the fresh service."""
    made: list[Tenant] = []

    def make(name: str) -> Tenant:
        with fresh.client(fresh.admin_key) as admin:
            reply = admin.post("/v1/keys", json={"tenant": name, "label": name, **NO_LIMITS})
        assert reply.status_code == 201, reply.text
        made.append(Tenant(fresh, name, reply.json()["key"]))
        return made[-1]

    yield make
    for tenant in made:
        tenant.http.close()


def files_with(folder: Path, needle: bytes) -> list[str]:
    """What is kept of a data directory and contains some bytes, in its content or name."""
    return sorted(name for name, content in stored_bytes(folder) if needle in name.encode() or needle in content)


def terms_with(folder: Path, prefix: str) -> list[str]:
    """Folders of word indexes whose dictionary has a term with this beginning."""
    found = []
    for meta in folder.rglob("meta.json"):
        index = tantivy.Index.open(str(meta.parent))
        searcher = index.searcher()
        if any(searcher.terms_with_prefix(field, prefix) for field in ("text", "context")):
            found.append(str(meta.parent.relative_to(folder)))
    return found


def fill(tenant: Tenant) -> None:
    tenant.add_text(SECRET, filename=f"{SECRET_WORD}.txt", collection="harbour")
    tenant.add_text(SECRET + " Twice.", filename="second.txt")
    reply = tenant.upload(text_pdf([[SECRET]]), filename="third.pdf", metadata=json.dumps({"note": SECRET_WORD}))
    assert reply.status_code == 201


def test_a_deleted_tenant_leaves_no_byte_of_its_text_in_any_file(fresh: RunningService, join) -> None:
    doomed, kept = join("doomed"), join("kept")
    fill(doomed)
    kept.add_text(OTHER, filename="lighthouse.txt")
    assert doomed.search(SECRET_WORD, mode="lexical")
    assert files_with(fresh.data_dir, SECRET_WORD.encode())
    assert terms_with(fresh.data_dir, SECRET_WORD[:10])
    with fresh.client(fresh.admin_key) as admin:
        reply = admin.delete("/v1/tenants/doomed")
        assert reply.status_code == 200, reply.text
        removed = reply.json()["removed"]
        assert admin.get("/v1/tenants/doomed").status_code == 404
        assert [tenant["name"] for tenant in admin.get("/v1/tenants").json()["data"]] == ["kept", "operator"]
        assert admin.get("/v1/keys", params={"tenant": "doomed"}).json()["data"] == []
    assert (removed["collections"], removed["documents"], removed["files"], removed["keys"]) == (2, 3, 3, 1)
    assert removed["passages"] == removed["vectors"] >= 3
    assert (removed["pages"], removed["indexes"], removed["log_emptied"]) == (3, 2, engine.erases_at_once)
    assert files_with(fresh.data_dir, SECRET_WORD.encode()) == []
    assert files_with(fresh.data_dir, b"doomed") == []
    assert terms_with(fresh.data_dir, SECRET_WORD[:10]) == []
    assert doomed.http.get("/v1/rag/documents").status_code == 401
    assert kept.search("lighthouse", mode="lexical")
    assert fresh.stop() == 0
    assert files_with(fresh.data_dir, SECRET_WORD.encode()) == []


def test_a_deleted_collection_leaves_no_byte_of_its_text_and_its_name_is_free(fresh: RunningService, join) -> None:
    tenant = join("acme")
    tenant.add_text(SECRET, filename="one.txt", collection="harbour/north")
    tenant.add_text(OTHER, filename="two.txt", collection="island")
    assert tenant.search(SECRET_WORD, collection="harbour/north")
    listed = tenant.http.get("/v1/rag/collections").json()["data"]
    assert [(entry["name"], entry["documents"], entry["ready"]) for entry in listed] == [
        ("harbour/north", 1, 1),
        ("island", 1, 1),
    ]
    refused = tenant.http.delete("/v1/rag/collections/harbour/north", params={"only_if_empty": True})
    assert refused.status_code == 409
    reply = tenant.http.delete("/v1/rag/collections/harbour/north")
    assert reply.status_code == 200, reply.text
    assert reply.json()["removed"]["documents"] == 1
    assert files_with(fresh.data_dir, SECRET_WORD.encode()) == []
    assert terms_with(fresh.data_dir, SECRET_WORD[:10]) == []
    gone = tenant.http.post("/v1/rag/search", json={"query": SECRET_WORD, "collection": "harbour/north"})
    assert gone.status_code == 404
    assert len(tenant.http.get("/v1/rag/documents").json()["data"]) == 1
    assert tenant.http.delete("/v1/rag/collections/harbour/north").status_code == 404
    tenant.add_text("A new text about tugboats.", filename="new.txt", collection="harbour/north")
    (hit,) = tenant.search("tugboats", collection="harbour/north", mode="lexical")
    assert hit["filename"] == "new.txt"


def test_empty_collections_can_be_removed(new_tenant) -> None:
    tenant = new_tenant()
    document = tenant.add_text(OTHER, collection="emptied")
    assert tenant.http.delete(f"/v1/rag/documents/{document}").status_code == 200
    reply = tenant.http.delete("/v1/rag/collections/emptied", params={"only_if_empty": True})
    assert (reply.status_code, reply.json()["removed"]["collections"]) == (200, 1)
    assert tenant.http.get("/v1/rag/collections").json()["data"] == []


def test_a_deletion_that_a_kill_interrupts_is_finished_by_the_next_start(fresh: RunningService, join) -> None:
    doomed = join("doomed")
    for number in range(60):
        doomed.upload(f"{SECRET} {number}".encode(), filename=f"{number}.txt", kind="text/plain", wait_s=0)
    doomed.add_text(SECRET + " last", filename="last.txt")

    def delete() -> None:
        with fresh.client(fresh.admin_key) as admin, pytest.raises(httpx.TransportError):
            admin.delete("/v1/tenants/doomed")

    deletion = threading.Thread(target=delete)
    deletion.start()
    deadline = time.monotonic() + 30
    while doomed.http.get("/v1/rag/documents").status_code != 401 and time.monotonic() < deadline:
        pass
    fresh.kill()
    deletion.join()
    again = RunningService(fresh.data_dir)
    try:
        deadline = time.monotonic() + 60
        while files_with(fresh.data_dir, SECRET_WORD.encode()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert files_with(fresh.data_dir, SECRET_WORD.encode()) == []
        with again.client(fresh.admin_key) as admin:
            assert [tenant["name"] for tenant in admin.get("/v1/tenants").json()["data"]] == ["operator"]
    finally:
        assert again.stop() == 0


def test_an_upload_that_ends_after_the_deletion_of_its_tenant_is_refused(fresh: RunningService, join) -> None:
    doomed = join("doomed")
    doomed.add_text(OTHER)
    may_end = threading.Event()

    def slow_body() -> Iterator[bytes]:
        yield SECRET.encode()
        may_end.wait(30)
        yield b" The end."

    replies = []

    def upload() -> None:
        headers = {"content-type": "text/plain"}
        replies.append(doomed.http.post("/v1/rag/documents", content=slow_body(), headers=headers))

    uploading = threading.Thread(target=upload)
    uploading.start()
    time.sleep(0.5)
    with fresh.client(fresh.admin_key) as admin:
        assert admin.delete("/v1/tenants/doomed").status_code == 200
        may_end.set()
        uploading.join()
        assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (409, "conflict")
        assert admin.get("/v1/tenants/doomed").status_code == 404
    assert files_with(fresh.data_dir, SECRET_WORD.encode()) == []


def test_quotas_of_a_tenant_name_the_limit_and_count_what_is_stored(service: RunningService, new_tenant) -> None:
    tenant = new_tenant()
    first = tenant.add_text(OTHER, collection="a")
    with service.client(service.admin_key) as admin:
        path = f"/v1/tenants/{tenant.name}"
        shown = admin.get(path).json()
        assert (shown["documents"], shown["bytes"], shown["limits"]["max_documents"]) == (1, len(OTHER), None)

        def set_limits(**limits: int | None) -> None:
            assert admin.patch(path, json=limits).status_code == 200

        def refused(text: str, **query: object) -> str:
            reply = tenant.upload(text.encode(), kind="text/plain", filename="more.txt", **query)
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "quota_exceeded"), reply.text
            return reply.json()["error"]["message"]

        set_limits(max_documents=1)
        assert "may have 1." in refused("Another text.", collection="a")
        set_limits(max_documents=None, max_bytes=len(OTHER) + 5)
        assert f"may store {len(OTHER) + 5}" in refused("Another text.", collection="a")
        set_limits(max_bytes=None, max_collections=1)
        assert "1 collections and may have 1" in refused("Another text.", collection="b")
        assert [entry["name"] for entry in tenant.http.get("/v1/rag/collections").json()["data"]] == ["a"]
        tenant.add_text("Another text.", collection="a")
        set_limits(max_documents=2)
        tenant.http.delete(f"/v1/rag/documents/{first}")
        tenant.add_text("A third text.", collection="a")
        assert admin.patch(path, json={"max_documents": -1}).status_code == 400
        assert admin.patch("/v1/tenants/nobody", json={"max_documents": 1}).status_code == 404


def test_an_export_is_a_tar_archive_of_everything_without_secrets(service: RunningService, new_tenant) -> None:
    tenant = new_tenant()
    pdf = text_pdf([["The harbour."]])
    name = f"Zwölf {'lang ' * 30}.pdf"
    document = tenant.upload(pdf, filename=name, metadata=json.dumps({"year": 2024})).json()
    tenant.add_text(OTHER, filename="../escape.txt")
    with service.client(service.admin_key) as admin:
        reply = admin.get(f"/v1/tenants/{tenant.name}/export")
        assert admin.get("/v1/tenants/nobody/export").status_code == 404
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(reply.content)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        content = archive.extractfile(f"files/{document['id']}/{name}")
        assert content is not None
        assert content.read() == pdf
        described = json.load(archive.extractfile(f"documents/{document['id']}.json"))  # type: ignore[arg-type]
        assert (described["filename"], described["metadata"]) == (name, {"year": 2024})
        (key,) = json.load(archive.extractfile("keys.json"))  # type: ignore[arg-type]
    assert key["tenant"] == tenant.name
    assert not [field for field in key if "secret" in field]
    assert all(".." not in Path(member).parts for member in members)
    assert {"tenant.json", "collections.json", "usage.json", "missing.json"} <= set(members)


def test_a_limited_administrator_cannot_export_other_collections(service: RunningService, new_tenant) -> None:
    tenant = new_tenant(scopes=["tenant.admin"], allowed_collections=["open"])
    reply = tenant.http.get(f"/v1/tenants/{tenant.name}/export")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "policy_denied")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads of the service in /proc")
def test_collections_cost_no_threads_beyond_those_that_are_open(tmp_path: Path, service: RunningService) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(service.data_dir / "models", data_dir / "models")
    key = create_key(data_dir)
    settings = {"RAGSVC_MAX_OPEN_COLLECTIONS": "8", "RAGSVC_MAX_COLLECTIONS_PER_TENANT": "60"}
    running = RunningService(data_dir, env=settings)
    threads = Path(f"/proc/{running.process.pid}/task")
    try:
        with running.client(key) as client:

            def upload(number: int) -> int:
                path = f"/v1/rag/documents?collection=c{number}&filename=a.txt"
                text = f"The harbour number {number}.".encode()
                return client.post(path, content=text, headers={"content-type": "text/plain"}).status_code

            assert upload(0) == 201
            before = len(list(threads.iterdir()))
            assert [upload(number) for number in range(1, 60)] == [201] * 59
            assert upload(60) == 403
            deadline = time.monotonic() + 20
            while len(list(threads.iterdir())) > before + 12 and time.monotonic() < deadline:
                time.sleep(0.2)
            assert len(list(threads.iterdir())) <= before + 12
            for number in range(60):
                found = client.post("/v1/rag/search", json={"query": f"harbour {number}", "collection": f"c{number}"})
                assert found.json()["data"][0]["quote"] == f"The harbour number {number}."
    finally:
        assert running.stop() == 0
    again = RunningService(data_dir, env=settings)
    try:
        time.sleep(1)
        assert len(list(Path(f"/proc/{again.process.pid}/task").iterdir())) <= before + 12
    finally:
        assert again.stop() == 0


def test_a_tenant_of_an_encrypted_directory_is_deleted_with_its_files(tmp_path: Path, service: RunningService) -> None:
    pytest.importorskip("sqlcipher3")
    data_dir = tmp_path / "data"
    shutil.copytree(service.data_dir / "models", data_dir / "models")
    settings = {"RAGSVC_MASTER_KEY": "7f" * 32}
    admin_key = create_key(data_dir, tenant="operator", extra=("--scope", "admin"), settings=settings)
    running = RunningService(data_dir, env=settings)
    try:
        with running.client(admin_key) as admin:
            made = admin.post("/v1/keys", json={"tenant": "doomed", "label": "doomed", **NO_LIMITS}).json()
            doomed = Tenant(running, "doomed", made["key"])
            doomed.add_text(SECRET)
            doomed.http.close()
            assert len(StoredFiles(data_dir).names()) == 1
            removed = admin.delete("/v1/tenants/doomed").json()["removed"]
            assert (removed["documents"], removed["files"], removed["log_emptied"]) == (1, 1, engine.erases_at_once)
            assert StoredFiles(data_dir).names() == []
    finally:
        assert running.stop() == 0


def rows_with(database: Database, needle: str) -> dict[str, int]:
    """Number of rows of each table that contain a text."""

    def read(connection: Connection) -> dict[str, int]:
        tables = texts_of_rows(connection).items()
        found = {table: sum(needle.encode() in row for row in rows) for table, rows in tables}
        return {table: count for table, count in found.items() if count}

    return database.read_sync(read)


def test_the_deletion_of_a_tenant_includes_what_is_left_of_its_former_keys(tmp_path: Path) -> None:
    async def use_and_delete_a_key(service: AdministeredIngest) -> None:
        key = await service.keys.create(KeyDraft(tenant=ACME, label="Ms Miller's laptop"), actor=Actor())
        assert key.text is not None
        live = await service.access.authenticate(key.text.encode())
        service.access.count_request(live.principal, family="search")
        await service.access._flush(release=True)
        await service.keys.delete(key.key.id, actor=Actor())

    async def main() -> None:
        async with AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service:
            other = await service.key(TenantId("other"))
            await use_and_delete_a_key(service)
            assert [tenant.name for tenant in await service.tenants.tenants()] == ["acme", "other"]
            report = await service.tenants.delete_tenant(ACME)  # only usage and audit entries
            assert (report.keys, report.audit_entries, report.usage_rows) == (0, 2, 1)
            assert [tenant.name for tenant in await service.tenants.tenants()] == ["other"]
            await use_and_delete_a_key(service)
            await service.key()
            report = await service.tenants.delete_tenant(ACME)
            assert (report.keys, report.audit_entries, report.usage_rows) == (1, 3, 1)
            assert rows_with(service.database, "Miller") == rows_with(service.database, '"acme"') == {}
            assert rows_with(service.database, ACME) == {}
            assert len(await service.keys.audit(other.key.id, before=None, limit=10)) == 1
            service.database.write_sync(lambda c: put_key(c, ACME, "openai", b"sealed", now=1))
            report = await service.tenants.delete_tenant(ACME)  # only the key for a provider
            assert (report.provider_keys, rows_with(service.database, ACME)) == (1, {})

    anyio.run(main)
