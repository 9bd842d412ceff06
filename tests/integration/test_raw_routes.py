"""Raw routes behave as the framework's own: gate, limits, errors, CORS, metrics, and unusual spellings of the path."""

import contextlib
import time

import httpx
import pytest
from litestar import Request, post
from prometheus_client import generate_latest

from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import ModelUnavailable
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.web.app import create_app
from ragsvc.web.bodies import read_body
from ragsvc.web.context import context_of
from ragsvc.web.passthrough.raw_responses import JsonBytes
from tests.support.keys_database import SmallDatabase, compose

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def answer(scope, receive):
    body = await read_body(receive, context_of(scope).body_limit)
    if body == b"unavailable":
        raise ModelUnavailable("not loaded", retry_after_s=3)
    if body == b"fail":
        raise ZeroDivisionError("private detail")
    return JsonBytes(b'{"tenant":"%s","bytes":%d}' % (context_of(scope).principal.tenant.encode(), len(body)))


@post("/test/raw", opt={"scope": Scope.CHAT, "raw": answer}, status_code=200)
async def raw(request: Request) -> JsonBytes:
    return await answer(request.scope, request.receive)


@pytest.fixture(params=["/test/raw", "/test/raw/"], ids=["raw", "by the framework"])
def path(request):
    return request.param


@pytest.fixture
async def post_to(tmp_path, path):
    with contextlib.closing(SmallDatabase(tmp_path / "web.sqlite")) as database:

        def issue(scopes, **limits):
            draft = KeyDraft(tenant="acme", label="test", scopes=frozenset(scopes), limits=KeyLimits(**limits))
            return database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=int(time.time()))).text

        services = compose(database)
        app = create_app(services, route_handlers=[raw], body_limit_bytes=2000, cors_origins=["https://app.example"])
        keys = {
            "chat": issue({Scope.CHAT}),
            "search": issue({Scope.SEARCH}),
            "twice": issue({Scope.CHAT}, requests_per_minute=2),
        }
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        ):

            async def send(content, key="chat", **headers):
                credential = {"authorization": f"Bearer {keys[key]}"} if key else {}
                return await client.post(path, content=content, headers={**credential, **headers})

            send.registry = services.registry
            send.client = client
            yield send


async def test_answers_carry_what_every_answer_carries(post_to):
    reply = await post_to(b"12345", origin="https://app.example")
    assert reply.json() == {"tenant": "acme", "bytes": 5}
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-ratelimit-remaining-requests"] == "59"
    assert reply.headers["access-control-allow-origin"] == "https://app.example"
    counted = 'ragsvc_http_requests_total{method="POST",route="/test/raw",status="200"} 1.0'
    assert counted in generate_latest(post_to.registry).decode()


async def test_nobody_gets_past_the_gate(post_to):
    assert (await post_to(b"", key=None)).status_code == 401
    assert (await post_to(b"", key="search")).json()["error"]["code"] == "policy_denied"
    codes = [(await post_to(b"", key="twice")).status_code for _ in range(3)]
    assert codes == [200, 200, 429]


async def test_errors_are_rendered_and_logged_once(post_to, caplog):
    reply = await post_to(b"unavailable")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
    assert reply.headers["retry-after"] == "3"
    assert not caplog.records
    reply = await post_to(b"fail")
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "private" not in reply.text
    assert len(caplog.records) == 1


async def test_bodies_over_the_limit_are_refused_announced_or_not(post_to):
    async def unannounced():
        for _ in range(3):
            yield b"x" * 1000

    for body in (b"x" * 2001, unannounced()):
        reply = await post_to(body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")
    assert (await post_to(b"x" * 2000)).json()["bytes"] == 2000


async def test_other_methods_are_the_frameworks(post_to, path):
    assert (await post_to.client.get(path)).status_code == 405
    assert (await post_to.client.options(path)).headers["allow"] == "OPTIONS, POST"
