"""What the clients send again, what they refuse, and how they read lists, streams and errors; without a service."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import msgspec
import pytest

from ragsvc.client import (
    AnswerInterrupted,
    AsyncClient,
    AuthenticationFailed,
    BadRequest,
    Client,
    ConfigurationError,
    DocumentUnfinished,
    ServiceBusy,
    ServiceError,
    ServiceFault,
    ServiceUnreachable,
    StatusError,
    TooManyRequests,
    UnexpectedAnswer,
    UnreadableUpload,
)
from ragsvc.client.connection_settings import client_settings
from ragsvc.client.document_following import Following
from ragsvc.client.downloads import replaced_file
from ragsvc.client.records import PageRecord
from ragsvc.client.service_errors import status_error
from ragsvc.client.upload_bodies import UploadBody

URL = "http://service.test"
Handler = Callable[[httpx.Request], httpx.Response]


def with_client(handler: Handler, act: Callable[[Client], object], **options: object) -> object:
    with Client(URL, "rag_key", transport=httpx.MockTransport(handler), **options) as client:
        found = act(client)
        return list(found) if isinstance(found, Iterator) else found


def with_async_client(handler: Handler, act: Callable[[AsyncClient], object], **options: object) -> object:
    async def run() -> object:
        async with AsyncClient(URL, "rag_key", transport=httpx.MockTransport(handler), **options) as client:
            found = act(client)
            if hasattr(found, "__aiter__"):
                return [entry async for entry in found]
            return await found

    return anyio.run(run)


@pytest.fixture(params=[with_client, with_async_client], ids=["sync", "async"])
def perform(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Performs a call with either client; lists are read to their end."""

    def run(handler: Handler, act: Callable[[Client], object], **options: object) -> object:
        return request.param(handler, act, **options)

    return run


DOCUMENT = {
    "id": "doc_1",
    "filename": "a.txt",
    "media_type": "text/plain",
    "bytes": 1,
    "sha256": "0" * 64,
    "collection": "default",
    "status": "processing",
    "stage": "parsing",
    "progress": 0.5,
    "pages": 1,
    "pages_done": 1,
    "passages": 1,
    "passages_done": 0,
    "created_at": 1,
    "updated_at": 2,
    "created": True,
    "a_field_of_a_newer_service": {"x": 1},
}


class Answers:
    """Answers requests in order: a response, or an exception to raise; keeps the requests with their bodies."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.waiting = list(answers)
        self.requests: list[tuple[httpx.Request, bytes]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request, request.read()))
        answer = self.waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class AsyncAnswers(Answers):
    """The same for ``httpx.AsyncClient``, whose bodies are read asynchronously."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return super().__call__(request)


@pytest.fixture
def answers(request: pytest.FixtureRequest) -> type[Answers]:
    return AsyncAnswers if "async" in request.node.name else Answers


def busy(status: int = 503, **headers: str) -> httpx.Response:
    body = {"error": {"message": "Busy.", "type": "server_error", "param": None, "code": "overloaded"}}
    return httpx.Response(status, json=body, headers={"retry-after-ms": "20", **headers})


def test_a_refused_upload_is_sent_again_whole_and_under_the_same_idempotency_key(perform, answers, tmp_path) -> None:
    file = tmp_path / "report.txt"
    file.write_bytes(b"content of the report" * 30_000)
    handler = answers(busy(), busy(429), httpx.Response(202, json=DOCUMENT))
    pauses: list[float] = []
    uploaded = perform(
        handler,
        lambda client: client.documents.upload(file, metadata={"year": 2023}, wait=False),
        on_pause=lambda pause: pauses.append(pause.seconds),
    )
    assert pauses == [0.02, 0.02]
    assert (uploaded.id, uploaded.created) == ("doc_1", True)
    bodies = {body for _, body in handler.requests}
    assert len(handler.requests) == 3
    assert len(bodies) == 1
    assert file.read_bytes() in bodies.pop()
    assert len({request.headers["idempotency-key"] for request, _ in handler.requests}) == 1
    request, body = handler.requests[0]
    assert request.headers["content-length"] == str(len(body))
    assert request.headers["authorization"] == "Bearer rag_key"
    assert "report" not in str(request.url)  # names are in the body, where an encrypting transport hides them


def test_patience_bounds_the_pauses(perform, answers) -> None:
    handler = answers(busy(), httpx.Response(503, headers={"retry-after": "100"}))
    with pytest.raises(ServiceBusy) as caught:
        perform(handler, lambda client: client.tokens(), patience_s=1.0)
    assert caught.value.retry_after_s == 100
    assert len(handler.requests) == 2


def test_patience_bounds_the_pauses_after_lost_connections(perform, answers) -> None:
    handler = answers(*[httpx.ConnectError("refused")] * 4)
    pauses: list[float] = []
    with pytest.raises(ServiceUnreachable):
        perform(handler, lambda client: client.tokens(), patience_s=0.5, on_pause=lambda p: pauses.append(p.seconds))
    assert sum(pauses) <= 0.5


def test_an_answer_that_says_so_is_not_repeated(perform, answers) -> None:
    handler = answers(busy(429, **{"x-should-retry": "false"}))
    with pytest.raises(TooManyRequests):
        perform(handler, lambda client: client.tokens())


def test_a_lost_connection_is_a_reason_to_repeat_only_what_changes_nothing(perform, answers, monkeypatch) -> None:
    monkeypatch.setattr("ragsvc.client.calls._FIRST_PAUSE_S", 0.001)
    handler = answers(httpx.ReadError("lost"), httpx.Response(200, json={"tokens_remaining": 7}))
    assert perform(handler, lambda client: client.tokens()) == 7
    handler = answers(httpx.ReadError("lost"))
    with pytest.raises(ServiceUnreachable, match=f"No service answers at {URL} .lost.\\."):
        perform(handler, lambda client: client.ask("Who?"))
    handler = answers(httpx.ConnectError("refused"), httpx.Response(200, json=COMPLETION))
    assert perform(handler, lambda client: client.ask("Who?")).text == "Oda."


COMPLETION = {
    "object": "chat.completion",
    "model": "local/chat-model",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Oda."}}],
}


def test_a_stream_that_cannot_be_read_again_is_sent_once(perform, answers) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb") as end:
        threading.Thread(target=lambda: (end.write(b"piped"), end.close())).start()
        handler = answers(busy())
        with pytest.raises(ServiceBusy):
            perform(handler, lambda client: client.documents.upload(pipe, filename="a.txt", wait=False))
    assert b"\r\n\r\npiped\r\n--" in handler.requests[0][1]
    assert handler.requests[0][0].headers["transfer-encoding"] == "chunked"


def test_an_open_file_is_sent_from_its_position_each_time() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    body = UploadBody(file, head=b"<", tail=b">")
    assert (body.size_bytes, body.repeatable) == (8, True)
    assert [b"".join(body.slices()) for _ in range(2)] == [b"<456789>"] * 2


def test_lists_are_read_page_by_page(perform, answers) -> None:
    def page(first: int, *, more: bool) -> httpx.Response:
        entries = [{**DOCUMENT, "id": f"doc_{number}"} for number in range(first, first + 2)]
        return httpx.Response(200, json={"data": entries, "last_id": entries[-1]["id"], "has_more": more})

    handler = answers(page(1, more=True), page(3, more=False))
    found = perform(handler, lambda client: client.documents.list(status="ready", filters={"type": "eq"}))
    assert [document.id for document in found] == ["doc_1", "doc_2", "doc_3", "doc_4"]
    first, second = (dict(request.url.params) for request, _ in handler.requests)
    assert first == {"limit": "100", "status": "ready", "filters": '{"type":"eq"}'}
    assert second == {**first, "after": "doc_2"}


def test_changes_of_a_key_continue_before_the_oldest(perform, answers) -> None:
    def entry(number: int) -> dict[str, object]:
        return {"id": number, "at": 1, "key_id": "k", "actor": "local", "action": "create", "changes": {}}

    handler = answers(
        httpx.Response(200, json={"data": [entry(9), entry(7)], "has_more": True}),
        httpx.Response(200, json={"data": [entry(2)], "has_more": False}),
    )
    assert [change.id for change in perform(handler, lambda client: client.keys.audit("k"))] == [9, 7, 2]
    assert handler.requests[1][0].url.params["before"] == "7"


def test_ids_and_names_cannot_leave_their_place_in_a_path(perform, answers) -> None:
    handler = answers(httpx.Response(200, json={"id": "x", "deleted": True}))
    perform(handler, lambda client: client.documents.delete("../keys/key_1?x=1"))
    assert handler.requests[0][0].url.raw_path == b"/v1/rag/documents/..%2Fkeys%2Fkey_1%3Fx%3D1"


def test_an_update_sends_what_is_given_and_null_as_a_value(perform, answers) -> None:
    key = {"id": "k", "tenant": "t", "label": "l", "state": "active", "scopes": [], "created_at": 1, "updated_at": 1}
    handler = answers(httpx.Response(200, json=key))
    perform(handler, lambda client: client.keys.update("k", tokens_per_day=None, scopes=["chat"]))
    assert json.loads(handler.requests[0][1]) == {"tokens_per_day": None, "scopes": ["chat"]}


def test_a_question_becomes_a_chat_with_documents(perform, answers) -> None:
    handler = answers(httpx.Response(200, json=COMPLETION))
    answer = perform(
        handler,
        lambda client: client.ask("Who?", top_k=3, collection="c", max_tokens=9, parameters={"temperature": 0}),
    )
    assert json.loads(handler.requests[0][1]) == {
        "model": "local/chat-model",
        "messages": [{"role": "user", "content": "Who?"}],
        "use_rag": True,
        "rag": {"top_k": 3, "collection": "c"},
        "max_tokens": 9,
        "temperature": 0,
    }
    assert (answer.text, answer.citations, answer.finish_reason) == ("Oda.", [], "stop")
    assert answer.raw == COMPLETION


@pytest.mark.parametrize(
    ("status", "cls"),
    [(400, BadRequest), (418, BadRequest), (401, AuthenticationFailed), (422, UnreadableUpload), (502, ServiceFault)],
)
def test_an_error_has_all_fields_of_the_envelope(status: int, cls: type[StatusError]) -> None:
    detail = {"message": "No.", "type": "t", "param": "p", "code": "c", "request_id": "req_1", "new": 1}
    headers = {"retry-after-ms": "1500", "location": "/v1/rag/documents/doc_1", "x-should-retry": "true"}
    error = status_error(status, headers, json.dumps({"error": detail}).encode())
    assert type(error) is cls
    assert (error.message, error.type, error.param, error.code, error.request_id) == ("No.", "t", "p", "c", "req_1")
    assert (error.status, error.retry_after_s, error.location, error.should_retry) == (
        status,
        1.5,
        "/v1/rag/documents/doc_1",
        True,
    )


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"error": "text"}', b""])
def test_an_error_without_an_envelope_names_its_status(content: bytes) -> None:
    error = status_error(502, {}, content)
    assert (error.code, error.message) == (None, "The service answered with status 502 and no error body of ragsvc.")


def test_another_server_is_recognised(perform, answers) -> None:
    handler = answers(httpx.Response(200, text="<html>"))
    with pytest.raises(UnexpectedAnswer, match="check the URL"):
        perform(handler, lambda client: client.tokens())
    with pytest.raises(UnexpectedAnswer):
        perform(answers(httpx.Response(200, json={"choices": []})), lambda client: client.ask("Who?"))


def chunk(text: str, finish: str | None = None) -> bytes:
    return b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]}).encode()


ERROR = b'data: {"error": {"message": "The provider failed.", "code": "upstream_error"}}\n\n'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (chunk("Oda"), "The stream ended before the answer did."),
        (chunk("Oda") + ERROR, "The provider failed."),
        (chunk("Oda") + chunk("", "stop")[:-9], "The stream ended before the answer did."),
    ],
)
def test_an_incomplete_stream_is_an_error_after_its_text(body: bytes, message: str) -> None:
    stream = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    received: list[str] = []
    with Client(URL, "rag_key", transport=httpx.MockTransport(lambda _: stream)) as client:
        with pytest.raises(AnswerInterrupted) as caught, client.ask_streamed("Who?") as answer:
            received += answer
        assert (received or [answer.answer.text]) == ["Oda"]
    assert (caught.value.message, caught.value.code) == (message, "upstream_error")


def test_a_broken_stream_of_a_document_is_opened_again_up_to_five_times(monkeypatch) -> None:
    monkeypatch.setattr("ragsvc.client.document_following._FIRST_PAUSE_S", 0.001)
    opened = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal opened
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=DOCUMENT)
        opened += 1
        if opened % 2:
            raise httpx.ReadError("lost")
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b": nothing yet\n\n")

    with Client(URL, "k", transport=httpx.MockTransport(handler), patience_s=0) as client:
        with pytest.raises(ServiceError, match="lost"):
            client.documents.wait("doc_1")
        assert opened == 5


def test_time_runs_out_while_a_document_is_processed() -> None:
    now = [0.0]
    following = Following("/v1/rag/documents/doc_1", "doc_1", timeout_s=90, clock=lambda: now[0])
    assert following.stream.timeout_s == 60
    now[0] = 70
    following.check_time()
    assert following.stream.timeout_s == 20
    now[0] = 90
    with pytest.raises(DocumentUnfinished, match=r"not ready within 90 s") as caught:
        following.check_time()
    assert caught.value.code == "timeout"


def test_settings_come_from_arguments_or_the_environment_and_problems_together() -> None:
    environ = {"RAGSVC_URL": "https://example.com/rag/v1/", "RAGSVC_API_KEY": " rag_1\n"}
    settings = client_settings(None, None, environ)
    assert (settings.url, settings.headers["authorization"]) == ("https://example.com/rag", "Bearer rag_1")
    assert settings.uses_proxies
    assert not client_settings("http://127.0.0.1:1", "k", {}).uses_proxies
    with pytest.raises(ConfigurationError) as caught:
        client_settings("ftp://example.com", "schlüssel", {})
    assert "URL of a service" in caught.value.message
    assert "characters" in caught.value.message
    with pytest.raises(ConfigurationError, match="RAGSVC_API_KEY"):
        Client("http://127.0.0.1:1", "")


def test_an_unfinished_download_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    target.write_bytes(b"old")

    def lose() -> None:
        with replaced_file(target) as file:
            file.write(b"half")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        lose()
    assert (target.read_bytes(), list(tmp_path.iterdir())) == (b"old", [target])


def test_records_ignore_fields_of_newer_services() -> None:
    page = msgspec.json.decode(b'{"document_id": "d", "page": 1, "text": "t", "new": [1]}', type=PageRecord)
    assert (page.page, page.page_label) == (1, None)
