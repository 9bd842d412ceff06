"""The typed clients against the real service: synchronous and asynchronous, plain and encrypted."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ragsvc.client import (
    Answer,
    AsyncClient,
    AsyncEncryptedTransport,
    AuthenticationFailed,
    BadRequest,
    BalanceRecord,
    Client,
    ConfigurationError,
    ConflictingState,
    DocumentUnfinished,
    EncryptedTransport,
    HpkeStream,
    PermissionDenied,
    ResourceNotFound,
    Rvenc,
    ServiceUnreachable,
    TooManyRequests,
)
from ragsvc.testing.sample_pdfs import text_pdf

pytestmark = pytest.mark.model

REPORT = text_pdf(
    [["Annual report of the Lighthouse Company.", "The lighthouse keeper is called Oda Brand."], ["Second page."]]
)


class Blocking:
    """An asynchronous client whose methods block, so that one test covers both clients."""

    def __init__(self, target: object, portal: BlockingPortal) -> None:
        self._target = target
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if type(value).__name__.endswith("Resource"):
            return Blocking(value, self._portal)
        if not callable(value):
            return value

        async def result(*arguments: object, **options: object) -> object:
            found = value(*arguments, **options)
            return [entry async for entry in found] if hasattr(found, "__aiter__") else await found

        def call(*arguments: object, **options: object) -> object:
            if name == "ask_streamed":
                return self._streamed(value(*arguments, **options))
            return self._portal.call(lambda: result(*arguments, **options))

        return call

    @contextmanager
    def _streamed(self, opened: Any) -> Generator[StreamOfPortal]:
        with self._portal.wrap_async_context_manager(opened) as answer:
            yield StreamOfPortal(answer, self._portal)


class StreamOfPortal:
    def __init__(self, answer: Any, portal: BlockingPortal) -> None:
        self._answer = answer
        self._portal = portal

    def __iter__(self) -> Iterator[str]:
        pieces = aiter(self._answer)
        while (piece := self._portal.call(anext, pieces, None)) is not None:
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)


Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def connect(face: str, service) -> Iterator[Connect]:
    """Opens a client of the service with a key, and with an encryption mode or without."""
    opened: list[Any] = []
    with start_blocking_portal() as portal:

        def make(key: str, mode: Any = None, **options: Any) -> Any:
            if face == "sync":
                transport = None if mode is None else EncryptedTransport(service.url, mode)
                opened.append(Client(service.url, key, transport=transport, **options))
            else:
                encrypted = None if mode is None else AsyncEncryptedTransport(service.url, mode)
                opened.append(Blocking(AsyncClient(service.url, key, transport=encrypted, **options), portal))
            return opened[-1]

        yield make
        for client in opened:
            (client.close if face == "sync" else client.aclose)()


@pytest.fixture(params=[None, HpkeStream], ids=["plain", "encrypted"])
def client(request: pytest.FixtureRequest, connect: Connect, tenant) -> Any:
    return connect(tenant.key, request.param and request.param())


@pytest.fixture
def admin(connect: Connect, service) -> Any:
    return connect(service.admin_key)


def test_a_document_from_upload_to_deletion(client: Any, tmp_path: Path) -> None:
    file = tmp_path / "Jahresbericht größer.pdf"
    file.write_bytes(REPORT)
    seen: list[str] = []
    document = client.documents.upload(
        file, metadata={"year": 2023}, collection="a/b", on_progress=lambda state: seen.append(state.status)
    )
    assert (document.status, document.created, document.filename) == ("ready", True, file.name)
    assert (document.metadata["year"], document.collection, document.pages) == (2023, "a/b", 2)
    assert seen[-1] == "ready"
    again = client.documents.upload(REPORT, collection="a/b", filename="other.pdf", wait=False)
    assert (again.id, again.created, again.updated) == (document.id, False, ["filename"])

    changed = client.documents.update(document.id, filename="new.pdf", metadata={"year": None, "kind": "report"})
    assert (changed.filename, changed.metadata) == ("new.pdf", {"kind": "report"})
    assert client.documents.get(document.id) == changed
    filters = {"type": "eq", "key": "kind", "value": "report"}
    assert [entry.id for entry in client.documents.list(name="new", filters=filters)] == [document.id]
    assert list(client.documents.list(status="failed")) == []

    passages = list(client.documents.passages(document.id))
    page = client.documents.page(document.id, 1)
    assert page.text[passages[0].start : passages[0].end] == passages[0].text
    assert client.documents.content(document.id) == REPORT
    assert client.documents.download(document.id, tmp_path / "copy.pdf") == len(REPORT)
    assert (tmp_path / "copy.pdf").read_bytes() == REPORT

    [collection] = client.collections.list()
    assert (collection.name, collection.ready) == ("a/b", 1)
    assert client.collections.get("a/b") == collection
    with pytest.raises(ConflictingState):
        client.collections.delete("a/b", only_if_empty=True)
    client.documents.delete(document.id)
    with pytest.raises(ResourceNotFound) as caught:
        client.documents.get(document.id)
    assert (caught.value.status, caught.value.code) == (404, "document_not_found")
    assert caught.value.request_id


def test_search_and_answers_have_typed_citations(client: Any) -> None:
    document = client.documents.upload(io.BytesIO(REPORT), filename="report.pdf")
    found = client.search("lighthouse keeper", top_k=2, mode="lexical")
    assert (found.data[0].document_id, found.data[0].page) == (document.id, 1)
    assert "Oda Brand" in found.data[0].quote
    assert found.data[0].scores.lexical is not None

    answer = client.ask("Who keeps the lighthouse?", document_ids=[document.id])
    with client.ask_streamed("Who keeps the lighthouse?", document_ids=[document.id]) as stream:
        pieces = list(stream)
        streamed: Answer = stream.answer
    assert "".join(pieces) == streamed.text == answer.text
    assert "Oda Brand" in answer.text
    assert answer.finish_reason == streamed.finish_reason == "stop"
    for citations in (answer.citations, streamed.citations, stream.citations):
        citation = citations[0]
        assert (citation.file_id, citation.filename, citation.page) == (document.id, "report.pdf", 1)
        assert citation.quote in client.documents.page(document.id, 1).text
        assert citation.url.endswith(f"/v1/rag/documents/{document.id}/content#page=1")
    with pytest.raises(BadRequest) as caught:
        client.search("")
    assert caught.value.param == "query"


def test_a_file_that_cannot_be_read_is_an_error_and_stays_listed(client: Any) -> None:
    with pytest.raises(DocumentUnfinished) as caught:
        client.documents.upload(b"%PDF-1.7 and nothing else", filename="broken.pdf")
    [failed] = client.documents.list(status="failed")
    assert (failed.id, failed.error.code) == (caught.value.document_id, caught.value.code)
    assert client.documents.retry(failed.id).id == failed.id
    with pytest.raises(DocumentUnfinished):
        client.documents.wait(failed.id)


def test_rvenc_encrypts_answers_and_sends_nothing_else(connect: Connect, tenant) -> None:
    document_id = tenant.add_text("The lighthouse keeper is called Oda Brand.")
    client = connect(tenant.key, Rvenc())
    answer = client.ask("Who keeps the lighthouse?")
    assert answer.citations[0].file_id == document_id
    with client.ask_streamed("Who keeps the lighthouse?") as stream:
        assert "".join(stream) == answer.text
        assert stream.citations == answer.citations
    with pytest.raises(ConfigurationError, match="chat completions only"):
        client.documents.get(document_id)


def test_keys_and_tenants_are_administered(connect: Connect, admin: Any, new_tenant, tmp_path: Path) -> None:
    tenant = new_tenant()
    key = admin.keys.create(
        "first", tenant=tenant.name, scopes=["search", "documents.read"], requests_per_minute=5, tokens_per_day=100
    )
    assert (key.tenant, key.label, key.requests_per_minute, key.scopes) == (
        tenant.name,
        "first",
        5,
        ["documents.read", "search"],
    )
    limited = connect(key.key, patience_s=0)
    assert limited.tokens() == 100
    assert limited.balance() == BalanceRecord(tokens_remaining=100, money_remaining=None)
    admin.keys.update(key.id, money_balance=1.5)
    assert limited.balance() == BalanceRecord(tokens_remaining=100, money_remaining=1.5)
    with pytest.raises(PermissionDenied):
        limited.ask("Who?")
    assert key.id in [entry.id for entry in admin.keys.list(tenant=tenant.name)]
    changed = admin.keys.update(key.id, tokens_per_day=None, label="renamed", requests_per_minute=1000)
    assert (changed.tokens_per_day, changed.label) == (None, "renamed")
    assert admin.keys.get(key.id) == changed

    rotated = admin.keys.rotate(key.id, overlap_s=0)
    assert rotated.key != key.key
    with pytest.raises(AuthenticationFailed):
        limited.tokens()
    assert admin.keys.revoke(key.id).state == "revoked"
    actions = [change.action for change in admin.keys.audit(key.id)]
    assert actions == ["revoke", "rotate", "update", "update", "create"]
    admin.keys.delete(key.id)
    with pytest.raises(ResourceNotFound):
        admin.keys.get(key.id)

    tenant.add_text("The lighthouse keeper is called Oda Brand.")
    assert admin.tenants.update(tenant.name, max_documents=3).limits.max_documents == 3
    found = admin.tenants.get(tenant.name)
    assert (found.documents, found.limits.max_documents) == (1, 3)
    assert found in admin.tenants.list()
    deadline = time.monotonic() + 10  # usage is written every few seconds
    while not (usage := admin.usage(tenant=tenant.name, group_by="tenant,family").data):
        assert time.monotonic() < deadline
    assert [(entry.tenant, entry.model) for entry in usage if entry.family == "documents"] == [(tenant.name, None)]
    size = admin.tenants.export(tenant.name, tmp_path / "tenant.tar")
    assert size == (tmp_path / "tenant.tar").stat().st_size
    with tarfile.open(tmp_path / "tenant.tar") as archive:
        assert archive.getnames()
    assert admin.tenants.delete(tenant.name).documents == 1


def test_a_key_repeated_under_its_idempotency_key_is_the_same(admin: Any, tenant) -> None:
    name = f"again-{tenant.name}-{type(admin).__name__}"
    first, second = (admin.keys.create("again", tenant=tenant.name, idempotency_key=name) for _ in range(2))
    assert first == second
    assert admin.keys.create("again", tenant=tenant.name).id != first.id


def test_lists_go_on_beyond_a_page(admin: Any, tenant) -> None:
    for number in range(101):
        admin.keys.create(f"key {number}", tenant=tenant.name)
    assert len({key.id for key in admin.keys.list(tenant=tenant.name)}) == 102  # with the tenant's first key


def test_a_limit_is_waited_out_or_reported(connect: Connect, new_tenant) -> None:
    key = new_tenant(requests_per_minute=1).key
    client = connect(key, patience_s=0)
    client.tokens()
    with pytest.raises(TooManyRequests) as caught:
        client.tokens()
    assert caught.value.retry_after_s > 0


def test_a_service_that_does_not_run_is_named(face: str) -> None:
    if face == "sync":
        with pytest.raises(ServiceUnreachable, match=r"No service answers at http://127\.0\.0\.1:9"):
            Client("http://127.0.0.1:9", "k", patience_s=0).tokens()
        return
    with start_blocking_portal() as portal, pytest.raises(ServiceUnreachable):
        Blocking(AsyncClient("http://127.0.0.1:9", "k", patience_s=0), portal).tokens()


def test_nothing_of_an_encrypted_upload_travels_in_the_clear(tenant) -> None:
    sent: list[httpx.Request] = []

    class Recording(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return super().handle_request(request)

    url = tenant.service.url
    transport = EncryptedTransport(url, HpkeStream(), inner=Recording())
    with Client(url, tenant.key, transport=transport) as client:
        client.documents.upload(REPORT, filename="secret-name.pdf", metadata={"topic": "secret-topic"})
    shown = json.dumps([[str(request.url), str(request.headers), request.read().hex()] for request in sent])
    assert len(sent) >= 3  # key, upload, events
    assert "secret" not in shown
    assert b"secret".hex() not in shown
