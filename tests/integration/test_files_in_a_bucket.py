"""The whole service with its files in a bucket of a real S3 server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragsvc.config import Settings
from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.ids import TenantId
from ragsvc.extract.child_process import _child_environment
from ragsvc.store import job_rows
from ragsvc.store.directory_backup import restore_directory
from ragsvc.store.document_rows import get_document
from ragsvc.wiring import health_checks
from ragsvc.wiring.file_storage import open_file_storage
from tests.support.command import ragsvc
from tests.support.s3_server import KEY_ID, SECRET, S3Server, s3_program
from tests.support.service_in_process import ServiceInProcess

pytestmark = pytest.mark.model

TEXT = b"The walrus of the archive sleeps on the third shelf.\n" + b"Other shelves hold maps of islands. " * 400
QUESTION = "Where does the walrus of the archive sleep?"
MASTER_KEY = "11" * 32


def opened(tmp_path: Path, server: S3Server, bucket: str, **settings: str) -> ServiceInProcess:
    return ServiceInProcess(
        tmp_path / "data",
        files_url=f"s3://{bucket}/ragsvc",
        files_endpoint=server.endpoint,
        upload_wait_s="0",
        **settings,
    )


def new_key(service: ServiceInProcess) -> str:
    return service.new_key("acme", Scope.DOCUMENTS_READ, Scope.DOCUMENTS_WRITE, Scope.SEARCH, Scope.CHAT)


def upload(service: ServiceInProcess, key: str, content: bytes, name: str = "archive.txt"):
    return service.request(
        "POST",
        f"/v1/rag/documents?filename={name}",
        key=key,
        content=content,
        headers={"content-type": "text/plain"},
    )


def wait_until(found: Callable[[], bool], what: str, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def status(service: ServiceInProcess, key: str, document: str) -> str:
    return service.request("GET", f"/v1/rag/documents/{document}", key=key).json()["status"]


def wait_until_ready(service: ServiceInProcess, key: str, document: str) -> None:
    events = service.request("GET", f"/v1/rag/documents/{document}/events", key=key).text
    last = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")][-1]
    assert last["status"] == "ready", events


def hits(service: ServiceInProcess, key: str) -> list[str]:
    answer = service.request("POST", "/v1/rag/search", key=key, json={"query": QUESTION})
    assert answer.status_code == 200
    return [hit["document_id"] for hit in answer.json()["data"]]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_document_lives_in_the_bucket_and_leaves_nothing_there(s3_server, tmp_path, encrypted) -> None:
    settings = {}
    if encrypted:
        pytest.importorskip("sqlcipher3")
        settings["master_key"] = MASTER_KEY
    bucket = s3_server.new_bucket()
    with opened(tmp_path, s3_server, bucket, **settings) as service:
        key = new_key(service)
        answer = upload(service, key, TEXT)
        assert answer.status_code in (201, 202), answer.text
        document = answer.json()["id"]
        wait_until_ready(service, key, document)
        assert document in hits(service, key)
        (stored,) = [name for name in s3_server.objects(bucket) if "/blobs/" in name]
        assert ("acme" in stored) is not encrypted
        assert not list((tmp_path / "data").glob("blobs/*"))
        whole = service.request("GET", f"/v1/rag/documents/{document}/content", key=key)
        assert (whole.status_code, whole.content) == (200, TEXT)

    with opened(tmp_path, s3_server, bucket, files_cache_bytes="0", **settings) as service:  # nothing is cached
        content = f"/v1/rag/documents/{document}/content"
        part = service.request("GET", content, key=key, headers={"range": "bytes=4-9"})
        assert (part.status_code, part.content) == (206, b"walrus")
        assert part.headers["content-range"] == f"bytes 4-9/{len(TEXT)}"
        assert service.request("GET", content, key=key).content == TEXT
        assert upload(service, key, TEXT).status_code == 200  # the same bytes are stored once
        assert stored in s3_server.objects(bucket)
        file = service.request(
            "POST", "/v1/files", key=key, data={"purpose": "user_data"}, files={"file": ("a.bin", b"\x00\x01" * 5000)}
        )
        assert file.status_code == 200, file.text
        kept = service.request("GET", f"/v1/files/{file.json()['id']}/content", key=key)
        assert kept.content == b"\x00\x01" * 5000
        assert service.request("DELETE", f"/v1/files/{file.json()['id']}", key=key).status_code == 200
        assert service.request("DELETE", f"/v1/rag/documents/{document}", key=key).status_code == 200
        assert [name for name in s3_server.objects(bucket) if name != "ragsvc/owner.id"] == []
        assert not any(path.is_file() for path in (tmp_path / "data" / "file_cache").rglob("*"))


def test_a_store_that_is_gone_for_a_while_is_said_so_and_fails_no_document(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "s3"
    folder.mkdir()
    server = S3Server(s3_program(), folder)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.start()
    try:
        bucket = server.new_bucket()
        with opened(tmp_path, server, bucket, files_cache_bytes="0") as service:
            key = new_key(service)
            first = upload(service, key, TEXT).json()["id"]
            wait_until_ready(service, key, first)
            doomed = upload(service, key, b"A text that is deleted meanwhile.", "doomed.txt").json()["id"]
            wait_until_ready(service, key, doomed)
            server.stop()
            refused = upload(service, key, b"Something new.", "new.txt")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            download = service.request("GET", f"/v1/rag/documents/{first}/content", key=key)
            assert (download.status_code, download.json()["error"]["code"]) == (503, "storage_unavailable")
            queue_again(service, first)
            wait_until(lambda: bool(service.services.ingest._not_before), "the queued job was not tried")
            assert status(service, key, first) in ("queued", "processing")
            assert service.request("DELETE", f"/v1/rag/documents/{doomed}", key=key).status_code == 200
            other = upload(service, key, TEXT, "again.txt")  # the same bytes: whether they are stored is not known
            assert other.status_code == 503
            asked = service.request(
                "POST",
                "/v1/chat/completions",
                key=key,
                json={"model": "local/chat-model", "messages": [{"role": "user", "content": "Good day"}]},
            )
            assert asked.status_code == 200
            assert service.request("POST", "/v1/rag/search", key=key, json={"query": QUESTION}).status_code == 200
            assert len(server_faults(service)) == 1
            server.start()
            wait_until(lambda: status(service, key, first) == "ready", "the queued document was not ingested")
            assert first in hits(service, key)
            added = upload(service, key, b"Something new.", "new.txt")
            assert added.status_code in (201, 202)
            wait_until_ready(service, key, added.json()["id"])
            assert service.request("GET", f"/v1/rag/documents/{first}/content", key=key).content == TEXT
            wait_until(lambda: len(server.objects(bucket)) == 3, "the deleted file is still in the bucket")
            assert server_faults(service) == []
    finally:
        server.stop()


def queue_again(service: ServiceInProcess, public_id: str) -> None:
    """Queue a document, as its mended file does."""

    def write(connection) -> None:
        job_rows.requeue(connection, get_document(connection, TenantId("acme"), public_id), password=None, now=1)

    async def run() -> None:
        await service.services.database.write(write)
        service.services.ingest.kick()

    service.portal.call(run)


def server_faults(service: ServiceInProcess) -> list[str]:
    """The findings about the store that an operator sees."""
    key = service.new_key("operator", Scope.ADMIN)
    found = service.request("GET", "/v1/service/findings", key=key).json()["data"]
    return [finding["words"] for finding in found if finding["name"] == "store of the files"]


def test_a_place_that_cannot_be_used_ends_the_start_with_one_line_that_holds_no_secret(
    s3_server, tmp_path, monkeypatch, caplog
) -> None:
    bucket = s3_server.new_bucket()

    def problem(name: str, data: str = "data", **variables: str) -> str:
        with monkeypatch.context() as patch:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            settings = Settings(
                data_dir=tmp_path / data, files_url=f"s3://{name}/ragsvc", files_endpoint=s3_server.endpoint
            )
            settings.data_dir.mkdir(exist_ok=True)
            with pytest.raises(ConfigurationError) as caught:
                open_file_storage(settings)
        assert "\n" not in caught.value.message
        for text in (caught.value.message, caplog.text, repr(settings), str(settings.redacted())):
            assert SECRET not in text
            assert "wrong-secret" not in text
        return caught.value.message

    at = f"at {s3_server.endpoint} cannot be used"
    assert problem("no-such-bucket") == f"files_url: s3://no-such-bucket/ragsvc {at}: there is no such bucket"
    assert "AWS_SECRET_ACCESS_KEY does not belong" in problem(bucket, AWS_SECRET_ACCESS_KEY="wrong-secret")
    assert "does not know AWS_ACCESS_KEY_ID" in problem(bucket, AWS_ACCESS_KEY_ID="wrong-id")
    good = Settings(data_dir=tmp_path / "data", files_url=f"s3://{bucket}/ragsvc", files_endpoint=s3_server.endpoint)
    storage = open_file_storage(good)
    assert KEY_ID not in repr(storage)
    assert open_file_storage(good).find("owner.id") is not None
    assert "holds the files of another data directory" in problem(bucket, data="other")
    with pytest.raises(ConfigurationError, match=r"are at s3://.*: set files_url"):
        open_file_storage(Settings(data_dir=tmp_path / "data"))
    used = tmp_path / "used"
    (used / "blobs" / "acme" / "ab").mkdir(parents=True)
    (used / "blobs" / "acme" / "ab" / "abcd").write_bytes(b"a document")
    assert "is empty, and the files of this data directory are in" in problem(s3_server.new_bucket(), data="used")
    assert not set(_child_environment()) & {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


def test_a_store_that_nobody_listens_for_is_said_so(tmp_path, monkeypatch) -> None:
    pytest.importorskip("obstore", reason="needs the extra 's3'")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings = Settings(data_dir=tmp_path, files_url="s3://bucket", files_endpoint="http://127.0.0.1:9")
    with pytest.raises(
        ConfigurationError, match=r"s3://bucket at http://127.0.0.1:9 cannot be used: Connection refused"
    ):
        open_file_storage(settings)


@pytest.mark.sqlite_file
@pytest.mark.timeout(600)
def test_a_backup_says_that_it_lacks_the_files_and_a_restored_directory_finds_them(s3_server, tmp_path) -> None:
    bucket = s3_server.new_bucket()
    place = {"RAGSVC_FILES_URL": f"s3://{bucket}/ragsvc", "RAGSVC_FILES_ENDPOINT": s3_server.endpoint}
    with opened(tmp_path, s3_server, bucket) as service:
        key = new_key(service)
        document = upload(service, key, TEXT).json()["id"]
        wait_until_ready(service, key, document)
        saved = ragsvc("backup", tmp_path / "archive", env={"RAGSVC_DATA_DIR": str(tmp_path / "data")})
    assert (saved.code, "1 documents" in saved.out) == (0, True), saved.err
    said = " ".join(saved.err.split())  # without the breaks of lines
    assert f"The uploaded files are at s3://{bucket}/ragsvc and are not in it" in said
    assert "missing" not in said
    restored = tmp_path / "restored" / "data"
    restored.parent.mkdir()
    manifest = restore_directory(tmp_path / "archive", restored)
    assert (manifest.files_at, manifest.missing) == (f"s3://{bucket}/ragsvc", ())

    def checks(settings: Settings) -> dict[str, str]:
        found = health_checks.files(settings, None, database_dir=restored, deep=True)
        return {check.name: f"{check.state.value}: {check.words}" for check in found}

    at = f"at s3://{bucket}/ragsvc"
    assert "fail: not compared" in checks(Settings(data_dir=restored))["stored files"]
    settings = Settings.from_env({**place, "RAGSVC_DATA_DIR": str(restored)})
    assert checks(settings) == {
        "stored files": f"ok: 1 {at}, each belongs to a document",
        "file contents": "ok: all hashes match",
    }
    with opened(tmp_path / "restored", s3_server, bucket) as service:
        assert document in hits(service, key)
        content = service.request("GET", f"/v1/rag/documents/{document}/content", key=key)
        assert (content.status_code, content.content) == (200, TEXT)
        (stored,) = service.services.blobs.entries()
        altered = tmp_path / "altered"
        altered.write_bytes(TEXT[:-1] + b"!")
        service.services.blobs.files.put(altered, stored.name, is_intact=lambda: False)
        damaged = service.request("GET", f"/v1/rag/documents/{document}/content", key=key)
        assert (damaged.status_code, damaged.json()["error"]["code"]) == (500, "stored_data_damaged")
        assert checks(settings)["file contents"].startswith("fail: 1 files differ from their hash")
        service.services.blobs.files.delete(stored.name)
        assert f"fail: 1 documents or files have no stored file {at}" in checks(settings)["stored files"]
        assert upload(service, key, TEXT).status_code == 200  # stores the file again
        mended = service.request("GET", f"/v1/rag/documents/{document}/content", key=key)
        assert (mended.status_code, mended.content) == (200, TEXT)
