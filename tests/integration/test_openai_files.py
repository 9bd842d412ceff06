"""Files and uploads in parts, with OpenAI's client and over HTTP, against the real service."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from sqlalchemy import update

from ragsvc.core.ports.file_storage import last_part
from ragsvc.store.tables import FileRow, UploadRow, table_of
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.conftest import NO_LIMITS, Tenant
from tests.support.engines import engine, stored_rows
from tests.support.file_places import S3, StoredFiles, file_place, stored_bytes

pytestmark = pytest.mark.model

NOTES = b"# Tides\n\nThe harbour of Zwiebelstadt is dredged in March.\n"


@pytest.fixture
def client(tenant: Tenant) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=tenant.key, base_url=f"{tenant.service.url}/v1", max_retries=0) as made:
        yield made


def client_of(tenant: Tenant) -> openai.OpenAI:
    return openai.OpenAI(api_key=tenant.key, base_url=f"{tenant.service.url}/v1", max_retries=0)


def post_form(tenant: Tenant, file: tuple | None = ("notes.md", NOTES), **fields: str) -> httpx.Response:
    """Upload a file by a form, as any client."""
    files = {} if file is None else {"file": file}
    data = {"purpose": "assistants", **fields}
    if not files:
        files = {name: (None, value) for name, value in data.items()}
        return tenant.http.post("/v1/files", files=files)
    return tenant.http.post("/v1/files", data=data, files=files)


def stored_files(service: RunningService, digest: str) -> list[str]:
    return [name for name in StoredFiles(service.data_dir).names() if last_part(name) == digest]


def test_a_file_is_uploaded_listed_read_and_deleted(client: openai.OpenAI, tenant: Tenant) -> None:
    before = int(time.time())
    file = client.files.create(file=("notes.md", NOTES), purpose="assistants")
    assert file.id.startswith("file-")
    assert len(file.id) == len("file-") + 24
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", len(NOTES), "notes.md", "assistants")
    assert (file.status, file.expires_at, file.status_details) == ("processed", None, None)
    assert before <= file.created_at <= time.time()
    assert client.files.retrieve(file.id) == file
    assert [listed.id for listed in client.files.list()] == [file.id]
    assert client.files.content(file.id).read() == NOTES
    part = tenant.http.get(f"/v1/files/{file.id}/content", headers={"range": "bytes=2-6"})
    assert (part.status_code, part.content) == (206, NOTES[2:7])
    assert part.headers["content-type"] == "text/markdown; charset=utf-8"
    assert tenant.http.head(f"/v1/files/{file.id}/content").headers["content-length"] == str(len(NOTES))
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    assert list(client.files.list()) == []
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as raised:
            call(file.id)
        assert raised.value.code == "file_not_found"
    assert stored_files(tenant.service, hashlib.sha256(NOTES).hexdigest()) == []


def test_pages_of_a_list_follow_cursors_order_and_purpose(client: openai.OpenAI, tenant: Tenant) -> None:
    ids = [
        client.files.create(file=(f"{number}.txt", f"number {number}".encode()), purpose=purpose).id
        for number, purpose in enumerate(["assistants", "user_data", "assistants", "vision", "evals"])
    ]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]  # the client follows the pages
    assert [file.id for file in client.files.list(order="asc", limit=2)] == ids
    assert [file.id for file in client.files.list(purpose="assistants")] == [ids[2], ids[0]]
    assert list(client.files.list(purpose="fine-tune-results")) == []
    page = tenant.http.get("/v1/files", params={"limit": 2}).json()
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (ids[4], ids[3])
    back = tenant.http.get("/v1/files", params={"before": ids[0], "limit": 2}).json()
    assert [file["id"] for file in back["data"]] == [ids[2], ids[1]]
    assert tenant.http.get("/v1/files", params={"limit": 10_000}).status_code == 200
    for wrong in ({"limit": 10_001}, {"limit": 0}, {"order": "up"}, {"after": ids[0], "before": ids[1]}):
        assert tenant.http.get("/v1/files", params=wrong).status_code == 400
    missing = tenant.http.get("/v1/files", params={"after": "file-000000000000000000000000"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "file_not_found")


def test_equal_bytes_are_two_files_that_share_one_stored_file(client: openai.OpenAI, tenant: Tenant) -> None:
    digest = hashlib.sha256(NOTES).hexdigest()
    first = client.files.create(file=("a.md", NOTES), purpose="assistants")
    second = client.files.create(file=("b.md", NOTES), purpose="user_data")
    document = tenant.upload(NOTES, filename="c.md", kind="text/markdown").json()
    assert first.id != second.id
    assert len(stored_files(tenant.service, digest)) == 1
    client.files.delete(first.id)
    assert client.files.content(second.id).read() == NOTES
    client.files.delete(second.id)
    assert tenant.http.get(f"/v1/rag/documents/{document['id']}/content").content == NOTES
    tenant.http.delete(f"/v1/rag/documents/{document['id']}").raise_for_status()
    assert stored_files(tenant.service, digest) == []


def test_a_document_comes_with_a_file_and_is_deleted_with_it(client: openai.OpenAI, tenant: Tenant) -> None:
    document_id = tenant.add_text("The quay of Zwiebelstadt is green.", filename="quay.txt")
    (file,) = client.files.list()
    assert (file.filename, file.purpose) == ("quay.txt", "assistants")
    tenant.http.patch(f"/v1/rag/documents/{document_id}", json={"filename": "pier.txt"}).raise_for_status()
    assert client.files.retrieve(file.id).filename == "pier.txt"
    assert client.files.content(file.id).read() == b"The quay of Zwiebelstadt is green."
    assert [hit["document_id"] for hit in tenant.search("Zwiebelstadt")] == [document_id]
    client.files.delete(file.id)
    assert tenant.http.get(f"/v1/rag/documents/{document_id}").status_code == 404
    assert tenant.search("Zwiebelstadt") == []


def test_an_implicit_file_is_deleted_with_its_document(client: openai.OpenAI, tenant: Tenant) -> None:
    document_id = tenant.add_text("The pier is red.")
    (file,) = client.files.list()
    tenant.http.delete(f"/v1/rag/documents/{document_id}").raise_for_status()
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_any_type_can_be_a_file_and_its_type_is_recognised(tenant: Tenant) -> None:
    pdf = text_pdf(["A page."])
    untyped = "application/octet-stream"  # what JavaScript clients send for every file
    for name, content, sent, expected in (
        ("report.pdf", pdf, untyped, "application/pdf"),
        ("report", pdf, untyped, "application/pdf"),
        ("notes.md", NOTES, untyped, "text/markdown; charset=utf-8"),
        ("batch.jsonl", b'{"custom_id": "1"}\n', untyped, "application/jsonl"),
        ("weights.bin", bytes(range(256)), untyped, untyped),
        ("archive.tar.gz", b"\x1f\x8b" + bytes(64), "application/gzip", "application/gzip"),
        ("clip.mp4", b"\x00\x00\x00\x18ftypmp42", "video/mp4", "video/mp4"),
        ("latin.txt", "für".encode("latin-1"), "text/plain; charset=latin-1", "text/plain; charset=latin-1"),
        ("plain", b"only words", "not a type", "text/plain; charset=utf-8"),
    ):
        reply = post_form(tenant, (name, content, sent), purpose="user_data")
        assert reply.status_code == 200, reply.text
        stored = tenant.http.get(f"/v1/files/{reply.json()['id']}/content")
        assert (stored.headers["content-type"], stored.content) == (expected, content)
        assert stored.headers["x-content-type-options"] == "nosniff"


def test_unusual_forms_are_files_too(tenant: Tenant) -> None:
    names = {
        "отчёт 2026 ☕.txt": "отчёт 2026 ☕.txt",
        "../../etc/passwd": "passwd",
        'quoted "name".txt': 'quoted "name".txt',
    }
    for sent, stored in names.items():
        reply = post_form(tenant, (sent, b"x"))
        assert reply.json()["filename"] == stored, reply.text
    empty = post_form(tenant, ("empty.txt", b"")).json()
    assert (empty["bytes"], empty["filename"]) == (0, "empty.txt")
    content = tenant.http.get(f"/v1/files/{empty['id']}/content")
    assert (content.status_code, content.content) == (200, b"")
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\nno name\r\n'
        b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--B--\r\n'
    )
    unnamed = tenant.http.post(
        "/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=B"}
    ).json()
    assert (unnamed["filename"], unnamed["bytes"], unnamed["purpose"]) == ("file", 7, "user_data")


def test_refused_forms_name_what_is_wrong(tenant: Tenant) -> None:
    def refused(reply: httpx.Response, param: str | None, status: int = 400) -> str:
        assert reply.status_code == status, reply.text
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code", "request_id"}
        assert error["param"] == param, error
        return error["message"]

    no_purpose = tenant.http.post("/v1/files", files={"file": ("a.txt", b"x")})
    assert refused(no_purpose, "purpose") == "'purpose' is required."
    assert "'fine-tune'" in refused(post_form(tenant, purpose="holidays"), "purpose")
    refused(post_form(tenant, None), "file")
    refused(post_form(tenant, colour="blue"), "colour")
    two = [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b")), ("purpose", (None, "vision"))]
    refused(tenant.http.post("/v1/files", files=two), "file")
    refused(tenant.http.post("/v1/files", json={"purpose": "vision"}), "Content-Type", 415)
    refused(tenant.http.post("/v1/files", headers={"content-type": "multipart/form-data"}, content=b"x"), "file")
    anchor, seconds = "expires_after[anchor]", "expires_after[seconds]"
    refused(post_form(tenant, **{anchor: "created_at"}), seconds)
    refused(post_form(tenant, **{seconds: "3600"}), anchor)
    refused(post_form(tenant, **{anchor: "last_active_at", seconds: "3600"}), "expires_after.anchor")
    for wrong in ("3599", "2592001", "soon", "9" * 30):
        refused(post_form(tenant, **{anchor: "created_at", seconds: wrong}), "expires_after.seconds")
    assert tenant.http.get("/v1/files").json()["data"] == []
    assert list((tenant.service.data_dir / "uploads").glob("*.part")) == []


def test_files_expire_as_they_were_uploaded(client: openai.OpenAI, tenant: Tenant) -> None:
    policy = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.txt", b"a"), purpose="user_data", expires_after=policy)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 3600
    batch = client.files.create(file=("b.jsonl", b"{}"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86_400
    as_object = post_form(tenant, expires_after='{"anchor": "created_at", "seconds": 7200}').json()
    assert as_object["expires_at"] == as_object["created_at"] + 7200


def test_a_repeated_request_with_a_key_makes_one_file(tenant: Tenant) -> None:
    def upload(content: bytes) -> httpx.Response:
        return tenant.http.post(
            "/v1/files",
            data={"purpose": "vision"},
            files={"file": ("a.txt", content)},
            headers={"idempotency-key": "once"},
        )

    first = upload(b"a")
    assert upload(b"a").json() == first.json()
    assert upload(b"b").status_code == 400
    assert len(tenant.http.get("/v1/files").json()["data"]) == 1


def test_scopes_and_collections_of_a_key_limit_its_files(new_tenant: Callable[..., Tenant]) -> None:
    owner = new_tenant()
    with owner.service.client(owner.service.admin_key) as admin:

        def key(**options: object) -> Tenant:
            body = {"tenant": owner.name, "label": "limited", **NO_LIMITS, **options}
            return Tenant(owner.service, owner.name, admin.post("/v1/keys", json=body).json()["key"])

        reader = key(scopes=["documents.read"])
        writer = key(scopes=["documents.write"])
        limited = key(allowed_collections=["reports"])
    mine = post_form(owner).json()["id"]
    assert reader.http.get(f"/v1/files/{mine}").status_code == 200
    assert post_form(reader).status_code == 403
    assert reader.http.delete(f"/v1/files/{mine}").status_code == 403
    assert writer.http.get("/v1/files").status_code == 403
    owner.add_text("secret", collection="private")
    owner.add_text("report", collection="reports")
    implicit = {file["filename"]: file["id"] for file in owner.http.get("/v1/files").json()["data"]}
    own = post_form(limited, ("own.txt", b"own")).json()["id"]
    seen = [file["id"] for file in limited.http.get("/v1/files").json()["data"]]
    assert len(seen) == 2  # its own file, and the file of the document in its collection
    assert own in seen
    assert mine not in seen
    assert implicit  # the owner sees the files of both documents and its own
    for method, path in (("GET", mine), ("GET", f"{mine}/content"), ("DELETE", mine)):
        assert limited.http.request(method, f"/v1/files/{path}").status_code == 404
    for each in (reader, writer, limited):
        each.http.close()


def test_an_upload_in_parts_becomes_a_file(client: openai.OpenAI, tenant: Tenant) -> None:
    content = b"".join(f"{number} sheep\n".encode() for number in range(5000))
    plan = {"bytes": len(content), "filename": "sheep.txt", "mime_type": "text/plain", "purpose": "assistants"}
    upload = client.uploads.create(**plan)  # type: ignore[arg-type]
    assert upload.id.startswith("upload_")
    assert (upload.object, upload.status, upload.file) == ("upload", "pending", None)
    assert upload.expires_at == upload.created_at + 3600
    size = 10_000
    pieces = [content[begin : begin + size] for begin in range(0, len(content), size)]
    with ThreadPoolExecutor(4) as pool:  # at the same time, the last one first
        sent = list(pool.map(lambda piece: client.uploads.parts.create(upload.id, data=piece).id, pieces[::-1]))
    part = client.uploads.parts.create(upload.id, data=pieces[0])  # sent again: another part with the same bytes
    assert (part.object, part.upload_id) == ("upload.part", upload.id)
    done = client.uploads.complete(upload.id, part_ids=sent[::-1], md5=hashlib.md5(content).hexdigest())  # noqa: S324
    assert (done.status, done.bytes) == ("completed", len(content))
    assert done.file is not None
    assert (done.file.bytes, done.file.filename) == (len(content), "sheep.txt")
    assert client.files.content(done.file.id).read() == content
    again = client.uploads.complete(upload.id, part_ids=sent[::-1])
    assert again.file == done.file
    for piece in pieces:
        assert stored_files(tenant.service, hashlib.sha256(piece).hexdigest()) == []
    for call in (lambda: client.uploads.cancel(upload.id), lambda: client.uploads.parts.create(upload.id, data=b"x")):
        with pytest.raises(openai.BadRequestError, match="completed"):
            call()


def test_the_helper_of_the_client_sends_a_file_in_chunks(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_bytes(NOTES * 100)
    done = client.uploads.upload_file_chunked(file=path, mime_type="md", purpose="assistants", part_size=1000)
    assert done.file is not None
    assert client.files.content(done.file.id).read() == NOTES * 100


def test_an_upload_is_completed_only_with_the_announced_bytes(client: openai.OpenAI, tenant: Tenant) -> None:
    plan = {"filename": "a.bin", "mime_type": "application/octet-stream", "purpose": "user_data"}
    upload = client.uploads.create(bytes=6, **plan)  # type: ignore[arg-type]
    first = client.uploads.parts.create(upload.id, data=b"abc").id
    second = client.uploads.parts.create(upload.id, data=b"def").id
    for part_ids, match in (([first], "3 bytes"), ([first, first], "once"), ([first, "part_x"], "no part")):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=match):
            client.uploads.complete(upload.id, part_ids=part_ids)
    with pytest.raises(openai.BadRequestError, match="checksum"):
        client.uploads.complete(upload.id, part_ids=[first, second], md5="0" * 32)
    for data in (b"", b"1234567"):  # no bytes, and more than were announced
        with pytest.raises(openai.BadRequestError):
            client.uploads.parts.create(upload.id, data=data)
    client.uploads.parts.create(upload.id, data=b"ghijkl")  # twice the bytes, as after requests without an answer
    with pytest.raises(openai.BadRequestError):
        client.uploads.parts.create(upload.id, data=b"m")
    done = client.uploads.complete(upload.id, part_ids=[second, first])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"defabc"
    cancelled = client.uploads.create(bytes=3, **plan)  # type: ignore[arg-type]
    part = client.uploads.parts.create(cancelled.id, data=b"xyz").id
    assert client.uploads.cancel(cancelled.id).status == "cancelled"
    assert client.uploads.cancel(cancelled.id).status == "cancelled"
    assert stored_files(tenant.service, hashlib.sha256(b"xyz").hexdigest()) == []
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.uploads.complete(cancelled.id, part_ids=[part])
    for wrong in ({"bytes": 0}, {"purpose": "x"}, {"filename": "///"}, {"colour": "blue"}, {"bytes": 1 << 50}):
        reply = tenant.http.post("/v1/uploads", json={"bytes": 1, **plan, **wrong})
        assert reply.status_code in (400, 413), reply.text
        assert reply.json()["error"]["param"] in ("bytes", "purpose", "filename", "colour")


def test_tenants_see_nothing_of_each_other(new_tenant: Callable[..., Tenant]) -> None:
    one, other = new_tenant(), new_tenant()
    with client_of(one) as ours, client_of(other) as theirs:
        file = ours.files.create(file=("a.md", NOTES), purpose="assistants")
        upload = ours.uploads.create(bytes=3, filename="a", mime_type="", purpose="vision")
        part = ours.uploads.parts.create(upload.id, data=b"abc").id
        unknown = "file-000000000000000000000000"
        for call in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
            with pytest.raises(openai.NotFoundError) as foreign:
                call(file.id)
            with pytest.raises(openai.NotFoundError) as absent:
                call(unknown)
            assert (
                foreign.value.message.replace(file.id, unknown).split("request_id")[0]
                == (absent.value.message.split("request_id")[0])
            )
        assert list(theirs.files.list()) == []
        with pytest.raises(openai.NotFoundError):
            list(theirs.files.list(after=file.id))
        for act in (
            lambda: theirs.uploads.parts.create(upload.id, data=b"x"),
            lambda: theirs.uploads.complete(upload.id, part_ids=[part]),
            lambda: theirs.uploads.cancel(upload.id),
        ):
            with pytest.raises(openai.NotFoundError):
                act()
        mine = theirs.uploads.create(bytes=3, filename="a", mime_type="", purpose="vision")
        with pytest.raises(openai.NotFoundError):  # a part of another tenant's upload
            theirs.uploads.complete(mine.id, part_ids=[part])
        assert ours.uploads.complete(upload.id, part_ids=[part]).status == "completed"
        assert {found.id for found in ours.files.list()} >= {file.id}


@pytest.fixture
def fresh(tmp_path: Path, service: RunningService) -> Iterator[RunningService]:
    """A service of its own, whose data directory a test can change; its model is that of the shared service."""
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
            key = admin.post("/v1/keys", json={"tenant": name, "label": name, **NO_LIMITS}).json()["key"]
        made.append(Tenant(fresh, name, key))
        return made[-1]

    yield make
    for tenant in made:
        tenant.http.close()


def test_files_and_parts_survive_kills_and_expire(fresh: RunningService, join: Callable[[str], Tenant]) -> None:
    acme = join("acme")
    file = post_form(acme, ("kept.md", NOTES)).json()
    short = post_form(acme, ("short.txt", b"short"), **{
        "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}).json()  # fmt: skip
    plan = {"filename": "a.txt", "bytes": 6, "mime_type": "text/plain", "purpose": "assistants"}
    upload, late = (acme.http.post("/v1/uploads", json=plan).json() for _ in range(2))
    first = acme.http.post(f"/v1/uploads/{upload['id']}/parts", files={"data": b"abc"}).json()
    acme.http.post(f"/v1/uploads/{late['id']}/parts", files={"data": b"late"}).raise_for_status()
    fresh.kill()
    stored, stray = StoredFiles(fresh.data_dir), f"blobs/acme/00/{'0' * 64}"
    stored.write(stray, b"stray")
    with stored_rows(fresh.data_dir) as connection:
        past = int(time.time()) - 1
        for rows, public_id in ((table_of(FileRow), short["id"]), (table_of(UploadRow), late["id"])):
            connection.execute(update(rows).where(rows.c.public_id == public_id).values(expires_at=past))
    again = RunningService(fresh.data_dir)
    try:
        with again.client(acme.key) as http:
            assert http.get(f"/v1/files/{file['id']}/content").content == NOTES
            # in quarantine; an object of the last hour may be one that another process is storing
            assert (stray in stored.names()) is (file_place.name == S3)
            assert http.get(f"/v1/files/{short['id']}").status_code == 404
            assert [found["id"] for found in http.get("/v1/files").json()["data"]] == [file["id"]]
            gone = http.post(f"/v1/uploads/{late['id']}/parts", files={"data": b"x"})
            assert (gone.status_code, gone.json()["error"]["param"]) == (400, "upload_id")
            digests = [hashlib.sha256(content).hexdigest() for content in (b"short", b"late")]
            deadline = time.monotonic() + 20
            while any(stored_files(again, digest) for digest in digests):
                assert time.monotonic() < deadline, "expired bytes were not removed"
                time.sleep(0.05)
            second = http.post(f"/v1/uploads/{upload['id']}/parts", files={"data": b"def"}).json()
            done = http.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": [first["id"], second["id"]]})
            assert http.get(f"/v1/files/{done.json()['file']['id']}/content").content == b"abcdef"
    finally:
        assert again.stop() == 0


def test_a_deleted_tenant_leaves_no_file_and_no_part(fresh: RunningService, join: Callable[[str], Tenant]) -> None:
    word = b"zwiebelfischgeheimnis"
    acme, other = join("acme"), join("other")
    post_form(acme, ("secret.bin", b"\x00" + word + bytes(100))).raise_for_status()
    kept = post_form(other, ("other.txt", b"kept")).json()["id"]
    plan = {"filename": f"{word.decode()}.txt", "bytes": 60, "mime_type": "text/plain", "purpose": "assistants"}
    upload = acme.http.post("/v1/uploads", json=plan).json()["id"]
    acme.http.post(f"/v1/uploads/{upload}/parts", files={"data": word}).raise_for_status()
    with fresh.client(fresh.admin_key) as admin:
        holdings = admin.get("/v1/tenants/acme").json()
        assert (holdings["files"], holdings["bytes"]) == (1, 122 + len(word))
        exported = io.BytesIO(admin.get("/v1/tenants/acme/export").content)
        with tarfile.open(fileobj=exported) as archive:
            members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            contents = {name: file.read() for name, file in members.items() if file is not None}
        assert {"uploaded_files", "upload_parts", "files", "uploads.json"} <= {name.split("/")[0] for name in contents}
        assert sum(word in content for content in contents.values()) == 3  # the file, the part, the name of the upload
        removed = admin.delete("/v1/tenants/acme").json()["removed"]
        assert (removed["uploaded_files"], removed["files"], removed["log_emptied"]) == (1, 2, engine.erases_at_once)
        assert admin.get("/v1/tenants/acme").status_code == 404
    assert other.http.get(f"/v1/files/{kept}/content").content == b"kept"
    assert [name for name, content in stored_bytes(fresh.data_dir) if word in content] == []
    assert StoredFiles(fresh.data_dir).names("blobs/acme") == []
    assert not (fresh.data_dir / "blobs" / "acme").exists()


def test_bytes_and_files_count_against_the_limits_of_the_tenant(
    fresh: RunningService, join: Callable[[str], Tenant]
) -> None:
    acme = join("acme")
    with fresh.client(fresh.admin_key) as admin:
        admin.patch("/v1/tenants/acme", json={"max_bytes": 100, "max_documents": 3}).raise_for_status()
        first = post_form(acme, ("a.bin", bytes(60))).json()["id"]
        refused = post_form(acme, ("b.bin", b"\x01" * 60))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
        plan = {"filename": "a.txt", "bytes": 41, "mime_type": "text/plain", "purpose": "assistants"}
        assert acme.http.post("/v1/uploads", json=plan).status_code == 403
        upload = acme.http.post("/v1/uploads", json={**plan, "bytes": 30}).json()["id"]
        part = acme.http.post(f"/v1/uploads/{upload}/parts", files={"data": bytes(30)}).json()["id"]
        assert admin.get("/v1/tenants/acme").json()["bytes"] == 90
        assert post_form(acme, ("c.bin", bytes(20))).status_code == 403
        done = acme.http.post(f"/v1/uploads/{upload}/complete", json={"part_ids": [part]})
        assert done.status_code == 200, done.text  # the parts become the file: the bytes count once
        assert admin.get("/v1/tenants/acme").json()["bytes"] == 90
        acme.http.delete(f"/v1/files/{first}").raise_for_status()
        for number in range(2):
            assert post_form(acme, (f"{number}.bin", bytes([number]))).status_code == 200
        many = post_form(acme, ("many.bin", b"\x05"))
        assert (many.status_code, "3 files" in many.json()["error"]["message"]) == (403, True)
        deadline = time.monotonic() + 10
        counted: dict[str, int] = {}
        while counted.get("files", 0) < 8 and time.monotonic() < deadline:  # requests are written within a second
            rows = admin.get("/v1/usage", params={"group_by": "family"}).json()["data"]
            counted = {row["family"]: row["requests"] for row in rows}
        assert counted["files"] == 8  # each upload, refused ones and those in parts included
