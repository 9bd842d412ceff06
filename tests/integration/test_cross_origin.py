"""Pages in browsers call the API: every route, error, stream and encrypted response can be read by allowed origins."""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest
from litestar import get

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.origins import AllowedOrigins
from ragsvc.testing.service_runner import RunningService
from ragsvc.web.app import create_app
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.server.startup import StartupApp
from tests.support.browser import NetworkError, Page
from tests.support.chat_service import provider, serving_chat
from tests.support.keys_database import SmallDatabase, compose
from tests.support.sealing import OneShot, SealedInference, fetch_hpke_key, fetch_rvenc_key
from tests.support.upstream_server import serving, serving_upstream

APP = "https://app.example.com"
HELLO = {"model": "real-model", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def upstream():
    with serving_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def service(upstream, tmp_path_factory):
    settings = [provider(upstream.url)]
    origins = [APP, "https://*.example.org"]
    with serving_chat(tmp_path_factory.mktemp("cors"), settings, cors_origins=origins) as running:
        yield running


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url, timeout=10) as opened:
        yield opened


@pytest.fixture
def page(client):
    return Page(APP, client)


def as_openai_sdk(service, **more) -> dict[str, str]:
    """The headers that OpenAI's JavaScript client adds."""
    sdk = {"x-stainless-lang": "js", "x-stainless-retry-count": "0", "content-type": "application/json"}
    return {**service.headers(), **sdk, **more}


def test_a_page_chats_and_reads_the_headers_of_the_service(service, page) -> None:
    reply = page.fetch(
        "/v1/chat/completions", method="POST", headers=as_openai_sdk(service), body=json.dumps(HELLO).encode()
    )
    assert page.preflights == 1
    assert (reply.status, reply.json()["object"]) == (200, "chat.completion")
    for name in ("x-request-id", "x-ratelimit-remaining", "x-ratelimit-remaining-tokens"):
        assert name in reply.headers


def test_a_page_reads_a_stream(service, page) -> None:
    body = json.dumps(HELLO | {"stream": True}).encode()
    reply = page.fetch("/v1/chat/completions", method="POST", headers=as_openai_sdk(service), body=body)
    assert reply.content.endswith(b"data: [DONE]\n\n")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "x-request-id" in reply.headers


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /v1/models", {}, 401),
        ("POST /v1/chat/completions", {"authorization": "Bearer wrong"}, 401),
        ("POST /v1/chat/completions", {"content-type": "application/json", "x-api-key": "KEY"}, 400),
        ("DELETE /v1/models", {"x-api-key": "KEY"}, 405),
        ("PATCH /nowhere", {"x-api-key": "KEY"}, 404),
    ],
)
def test_a_page_reads_errors(service, page, request_line, headers, status) -> None:
    method, path = request_line.split()
    headers = {name: service.key if value == "KEY" else value for name, value in headers.items()}
    reply = page.fetch(path, method=method, headers=headers, body=b"{}" if method == "POST" else None)
    assert reply.status == status
    assert reply.json()["error"]["request_id"] == reply.headers["x-request-id"]


def test_a_page_reads_when_to_retry(service, page) -> None:
    key = service.new_key(requests_per_minute=1)
    headers = {"authorization": f"Bearer {key}"}
    page.fetch("/v1/models", headers=headers)
    reply = page.fetch("/v1/models", headers=headers)
    assert reply.status == 429
    assert {"retry-after", "retry-after-ms", "x-should-retry"} <= set(reply.headers)


def test_a_page_sends_encrypted_requests(service, page, client) -> None:
    one_shot = OneShot(fetch_hpke_key(client), json.dumps(HELLO).encode())
    reply = page.fetch(
        "/v1/chat/completions", method="POST", headers={**service.headers(), **one_shot.headers}, body=one_shot.body
    )
    assert json.loads(one_shot.open(reply))["object"] == "chat.completion"
    assert "x-hpke-content-type" in reply.headers
    inference = SealedInference(fetch_rvenc_key(client), json.dumps(HELLO).encode())
    reply = page.fetch(
        "/rvenc/chat/completions",
        method="POST",
        headers=as_openai_sdk(service),
        body=json.dumps(inference.body).encode(),
    )
    assert "x-rvenc-response-nonce" in reply.headers
    broken = {**service.headers(), **one_shot.headers}
    assert (
        page.fetch("/v1/chat/completions", method="POST", headers=broken, body=one_shot.body).status == 400
    )  # a replay


@pytest.mark.parametrize(
    "origin", ["https://app.example.com.evil.com", "http://app.example.com", "null", "https://example.org"]
)
def test_pages_of_other_origins_read_nothing(service, client, origin) -> None:
    page = Page(origin, client)
    with pytest.raises(NetworkError):
        page.fetch("/livez")
    with pytest.raises(NetworkError):
        page.fetch("/v1/models", headers=service.headers())


def test_listed_origins_may_send_credentials_and_responses_vary_by_origin(service, client) -> None:
    for origin in (APP, "https://a.b.example.org"):
        assert Page(origin, client).fetch("/v1/models", headers=service.headers(), credentials=True).status == 200
    for headers in ({}, {"origin": APP}, {"origin": "https://evil.example"}):
        assert "origin" in client.get("/livez", headers=headers).headers["vary"].lower()


def test_options_that_is_no_preflight_is_answered_by_the_route(client) -> None:
    reply = client.options("/v1/chat/completions", headers={"origin": APP})
    assert "POST" in reply.headers["allow"]
    assert reply.headers["access-control-allow-origin"] == APP


@get("/broken", opt={"scope": AccessRequirement.PUBLIC})
async def broken() -> None:
    raise ZeroDivisionError


def test_every_page_may_call_without_credentials_if_the_setting_is_a_star(tmp_path) -> None:
    with contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database:
        app = create_app(compose(database), route_handlers=[broken], cors_origins=["*"])
        with serving(app, lifespan="on") as (url, _), httpx.Client(base_url=url) as client:
            page = Page("https://any.example", client)
            reply = page.fetch("/v1/tokens", headers={"authorization": "Bearer x"})
            assert (reply.status, page.preflights) == (401, 1)
            failed = page.fetch("/broken")
            assert (failed.status, failed.json()["error"]["code"]) == (500, "internal_error")
            assert "x-request-id" in failed.headers
            with pytest.raises(NetworkError):
                page.fetch("/livez", credentials=True)


def test_without_the_setting_no_page_reads_anything(tmp_path) -> None:
    with (
        contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database,
        serving(create_app(compose(database)), lifespan="on") as (url, _),
    ):
        reply = httpx.get(f"{url}/livez", headers={"origin": APP})
        assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_a_page_reads_that_the_service_is_starting() -> None:
    with (
        serving(StartupApp(AllowedOrigins.parse(APP)), lifespan="off") as (url, _),
        httpx.Client(base_url=url) as client,
    ):
        reply = Page(APP, client).fetch("/v1/models", headers={"authorization": "Bearer x"})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_the_setting_takes_lists_and_refuses_what_is_no_origin(tmp_path) -> None:
    file = tmp_path / "ragsvc.toml"
    file.write_text('cors_origins = ["https://a.example", "http://localhost:3000"]\n')
    assert Settings.from_env({"RAGSVC_CONFIG": str(file)}).cors_origins == "https://a.example,http://localhost:3000"
    for value in ("https://a.example/path", "a.example", "*,https://a.example", "null"):
        with pytest.raises(ConfigurationError, match="cors_origins"):
            Settings.from_env({"RAGSVC_CORS_ORIGINS": value})


@pytest.mark.model
def test_the_service_knows_the_setting(tmp_path) -> None:
    running = RunningService(tmp_path / "data", env={"RAGSVC_CORS_ORIGINS": f"{APP}, http://localhost:3000"})
    try:
        with httpx.Client(base_url=running.url) as client:
            for origin in (APP, "http://localhost:3000"):
                assert Page(origin, client).fetch("/v1/models", headers={"x-api-key": "x"}).status == 401
    finally:
        running.stop()
