"""What a failure of a provider means for other requests: the endpoint family, the circuit breaker, log and metrics."""

from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest

from ragsvc.core.errors import (
    EndpointNotOffered,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    RagsvcError,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
)
from ragsvc.core.gateway.chat import decode_chat_request
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ModelSettings, ProviderSettings
from ragsvc.core.log_events import REQUEST_ID
from ragsvc.core.ports.model_provider import ForwardRequest
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.providers.upstream_requests import UpstreamClient, open_session
from tests.support.chat_service import provider, serving_chat
from tests.support.upstream_server import serving


class Faulty:
    """A provider whose answers the test chooses: a path has a status and a body, others succeed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, object, dict[str, str]]] = {}

    def answer(self, path: str, status: int, error: object = None, **headers: str) -> None:
        self.answers[f"/v1{path}"] = (status, error, headers)

    def count(self, path: str) -> int:
        return self.asked.count(f"/v1{path}")

    async def __call__(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        self.asked.append(scope["path"])
        status, body, headers = self.answers.get(scope["path"], (200, {"object": "list", "data": []}, {}))
        if status == 0:  # cut the connection
            send.__self__.transport.abort()
            return
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def upstream():
    faulty = Faulty()
    with serving(faulty) as (url, _server):
        faulty.url = f"{url}/v1"
        yield faulty


class Asked:
    """A provider's client with a clock that the test moves."""

    def __init__(self, upstream, session, **options):
        settings = ProviderSettings(
            "up", upstream.url, api_key="sk-operator", **{"retries": 0, "breaker_failures": 3} | options
        )
        self.now = 100.0
        self.failures: list[tuple[str, str]] = []
        client = UpstreamClient(
            settings,
            session,
            clock=lambda: self.now,
            on_failure=lambda name, reason: self.failures.append((name, reason)),
        )
        self.provider = OpenAIUpstream(settings, session, count_tokens=len, client=client)

    async def __call__(
        self, family: Family | None, path: str, *, model: str = "m", provider=None
    ) -> RagsvcError | None:
        body = json.dumps({"model": model}).encode()
        request = ForwardRequest("POST", path, body, {"Content-Type": "application/json"}, family, model)
        try:
            reply = await (provider or self.provider).forward(request)
        except RagsvcError as error:
            return error
        await reply.aclose()
        return None


def run(upstream, use, **options):
    async def inside():
        async with open_session() as session:
            return await use(Asked(upstream, session, **options))

    return asyncio.run(inside())


ROUTE_NOT_FOUND = {
    "fastapi": {"detail": "Not Found"},
    "openai": {"error": {"message": "Invalid URL (POST /v1/ocr)", "type": "invalid_request_error", "code": None}},
    "llama.cpp": {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}},
    "ollama": "404 page not found",
    "nginx": "<html><head><title>404 Not Found</title></head></html>",
}


@pytest.mark.parametrize(
    ("status", "body"), [(404, body) for body in ROUTE_NOT_FOUND.values()] + [(405, ""), (501, "")]
)
def test_a_family_that_is_not_offered_is_remembered_for_a_minute_and_opens_no_breaker(upstream, status, body):
    upstream.answer("/ocr", status, body)

    async def use(ask):
        errors = [await ask(Family.OCR, "/ocr", model=f"m{at}") for at in range(10)]
        assert {type(error) for error in errors} == {EndpointNotOffered}
        assert not errors[0].retryable
        assert "/ocr" in errors[0].message
        assert upstream.count("/ocr") == 1
        assert await ask(Family.RERANK, "/rerank") is None
        assert ask.provider.circuits == {Family.OCR: Circuit.CLOSED, Family.RERANK: Circuit.CLOSED}
        assert ask.failures == [("up", f"status_{status}")]
        ask.now += 61
        await ask(Family.OCR, "/ocr")
        assert upstream.count("/ocr") == 2
        del upstream.answers["/v1/ocr"]
        ask.now += 61
        assert await ask(Family.OCR, "/ocr") is None

    run(upstream, use)


def test_a_404_about_something_in_the_request_closes_no_endpoint_to_others(upstream):
    cases = [
        ({"error": {"message": "The model `x` does not exist.", "code": 404}}, ModelNotFound),
        ({"error": {"message": "No endpoints found for bogus/name.", "code": 404}}, ModelNotFound),
        ({"error": {"message": "The API deployment does not exist.", "code": "DeploymentNotFound"}}, NotFound),
        ({"error": {"message": "Previous response not found.", "code": "previous_response_not_found"}}, NotFound),
    ]

    async def use(ask):
        for body, kind in cases:
            upstream.answer("/responses", 404, body)
            error = await ask(Family.RESPONSES, "/responses", model="bogus/name")
            assert type(error) is kind
            assert error.message == body["error"]["message"]
            del upstream.answers["/v1/responses"]
            assert await ask(Family.RESPONSES, "/responses") is None
        upstream.answer("/responses", 404, {"detail": "Not Found"})  # of an endpoint that has served
        assert type(await ask(Family.RESPONSES, "/responses")) is EndpointNotOffered
        del upstream.answers["/v1/responses"]
        assert await ask(Family.RESPONSES, "/responses") is None

    run(upstream, use)


def test_a_callers_own_key_closes_no_endpoint_to_others(upstream):
    upstream.answer("/ocr", 404, "not here")

    async def use(ask):
        own = ask.provider.with_key("sk-caller", from_caller=True)
        assert type(await ask(Family.OCR, "/ocr", provider=own)) is EndpointNotOffered
        del upstream.answers["/v1/ocr"]
        assert await ask(Family.OCR, "/ocr") is None

    run(upstream, use)


def test_a_list_of_models_is_always_asked_for(upstream):
    """``POST /v1/providers/{name}/test`` shows what the provider answers now."""

    async def use(ask):
        for status in (404, 500):
            upstream.answer("/models", status, "")
            for _ in range(5):
                assert await ask(None, "/models") is not None
        assert upstream.count("/models") == 10
        del upstream.answers["/v1/models"]
        assert await ask(None, "/models") is None

    run(upstream, use)


@pytest.mark.parametrize(
    ("status", "kind"), [(500, UpstreamFailed), (502, UpstreamFailed), (503, ModelUnavailable), (0, ModelUnavailable)]
)
def test_a_family_that_is_down_leaves_the_others_up(upstream, status, kind):
    upstream.answer("/images/generations", status, {"error": "down"})

    async def use(ask):
        errors = [await ask(Family.IMAGES, "/images/generations") for _ in range(5)]
        assert {type(error) for error in errors[:3]} == {kind}
        assert all("circuit breaker" in error.message for error in errors[3:])
        assert upstream.count("/images/generations") == 3
        assert ask.provider.circuits == {Family.IMAGES: Circuit.OPEN}
        assert await ask(Family.EMBEDDINGS, "/embeddings") is None
        assert ask.provider.circuits == {Family.IMAGES: Circuit.OPEN, Family.EMBEDDINGS: Circuit.CLOSED}

    run(upstream, use)


def test_the_log_says_once_that_a_circuit_opens_and_closes(upstream, caplog):
    path = "/images/generations"
    upstream.answer(path, 500, {"error": "down"})

    async def use(ask):
        for _ in range(6):
            await ask(Family.IMAGES, path)
        for _ in range(3):  # trials that fail
            ask.now += 61
            await ask(Family.IMAGES, path)
        del upstream.answers[f"/v1{path}"]
        ask.now += 61
        for _ in range(3):
            assert await ask(Family.IMAGES, path) is None

    with caplog.at_level(logging.INFO):
        run(upstream, use, breaker_cooldown_s=60)
    opened, closed = [record for record in caplog.records if getattr(record, "event", "") == "circuit_breaker"]
    assert opened.fields == {"provider": "up", "family": "images", "circuit": "open"}
    assert (opened.levelname, opened.getMessage()) == (
        "WARNING",
        "provider up gets no requests for 60 s: the circuit breaker opens",
    )
    assert closed.fields == {"provider": "up", "family": "images", "circuit": "closed"}
    assert closed.levelname == "INFO"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, UpstreamRejected),
        (402, UpstreamRejected),
        (403, UpstreamRejected),
        (422, InvalidRequest),
        (429, RateLimited),
        (302, UpstreamFailed),
    ],
)
def test_what_one_request_can_cause_opens_no_breaker(upstream, status, kind):
    upstream.answer(
        "/embeddings", status, {"error": {"message": "sk-operator of acct 17", "code": None}}, retry_after="33"
    )

    async def use(ask):
        errors = [await ask(Family.EMBEDDINGS, "/embeddings") for _ in range(10)]
        assert {type(error) for error in errors} == {kind}
        assert upstream.count("/embeddings") == 10
        assert ask.provider.circuits == {Family.EMBEDDINGS: Circuit.CLOSED}
        assert ("acct 17" in errors[0].message) == (kind is InvalidRequest)
        assert "sk-operator" not in errors[0].message
        return errors[0]

    error = run(upstream, use)
    assert error.retry_after_s == (33 if kind is RateLimited else None)


def test_answers_that_are_no_chats_open_no_breaker(upstream):
    """A single request decides what its answer is; five of them close the provider to nobody."""
    upstream.answer("/chat/completions", 200, "no JSON")
    body = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'

    async def use(ask):
        for _ in range(5):
            with pytest.raises(UpstreamFailed, match="not a chat completion"):
                await ask.provider.complete(decode_chat_request(body))
        assert ask.provider.circuits == {Family.CHAT: Circuit.CLOSED}

    run(upstream, use)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        (401, 502, "upstream_rejected", "false"),
        (402, 502, "upstream_rejected", "false"),
        (403, 502, "upstream_rejected", "false"),
        (404, 404, "endpoint_not_offered", None),
        (405, 404, "endpoint_not_offered", None),
        (501, 404, "endpoint_not_offered", None),
        (429, 429, "rate_limited", "true"),
        (500, 502, "upstream_error", "true"),
        (503, 503, "model_unavailable", "true"),
        (400, 400, "invalid_request", None),
    ],
)
def test_clients_see_the_status_that_tells_them_what_to_do(upstream, tmp_path, caplog, case, stream):
    status, answered, code, should_retry = case
    error = {"message": "words of the provider", "param": "seed"}
    upstream.answer("/chat/completions", status, {"error": error}, retry_after="31")
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    with (
        caplog.at_level(logging.WARNING),
        serving_chat(tmp_path, [provider(upstream.url, retries=0)]) as service,
    ):
        reply = httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=service.headers())
    assert (reply.status_code, reply.json()["error"]["code"]) == (answered, code)
    assert reply.headers.get("x-should-retry") == should_retry
    assert reply.headers.get("retry-after") == ("31" if status in (429, 503) else None)
    assert ("words of the provider" in reply.text) == (status == 400)
    assert reply.json()["error"]["param"] == {400: "seed", 404: "model", 405: "model", 501: "model"}.get(status)
    logged = [record for record in caplog.records if getattr(record, "event", "") == "upstream_error"]
    assert len(logged) == (status != 400)
    for record in logged:
        assert record.fields["provider"] == "up"
        assert (record.fields["family"], record.fields["status"]) == ("chat", status)
        assert 0 < record.fields["duration_ms"] < 10_000
        assert "words of the provider" not in str(record.fields) + record.getMessage()
        if status in (401, 402, 403):
            assert "of this server" in record.getMessage()


def test_a_log_line_of_a_failure_has_the_id_of_its_request(upstream, caplog):
    upstream.answer("/rerank", 500)

    async def use(ask):
        REQUEST_ID.set("req_of_this_test")
        seen = []
        handler = logging.Handler()
        handler.emit = lambda record: seen.append((record.fields["family"], REQUEST_ID.get()))
        logger = logging.getLogger("ragsvc.providers.upstream_requests")
        logger.addHandler(handler)
        try:
            await ask(Family.RERANK, "/rerank")
        finally:
            logger.removeHandler(handler)
        return seen

    assert run(upstream, use) == [("rerank", "req_of_this_test")]


def test_another_provider_stands_in_for_one_that_does_not_offer_the_endpoint_or_refuses_this_server(upstream, tmp_path):
    other = Faulty()
    message = {"role": "assistant", "content": "from the other"}
    reply = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
    other.answer("/chat/completions", 200, reply)
    with serving(other) as (url, _server):
        models = (ModelSettings("m"),)
        first = provider(upstream.url, "first", models=models, fallback=("second",), retries=0)
        second = provider(f"{url}/v1", "second", models=models, retries=0)
        with serving_chat(tmp_path, [first, second]) as service:
            body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}

            def ask():
                return httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=service.headers())

            for status in (401, 429, 404):
                upstream.answer("/chat/completions", status, {"error": {"message": "no"}})
                assert ask().json()["choices"][0]["message"]["content"] == "from the other"
            other.answer("/chat/completions", 403, {"error": {"message": "no"}})
            refused = ask()
            assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_rejected")
            assert refused.headers["x-should-retry"] == "false"
