"""The service under a path prefix of a proxy: URLs in responses have it, and encrypting clients reach the service."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import closing

import httpx
import openai
import pytest
from litestar import Request, get

from ragsvc.client import AsyncEncryptedTransport, EncryptedTransport, HpkeStream, Rvenc
from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.services.request_encryption import open_encryption
from ragsvc.testing.service_runner import RunningService, create_key, running_proxy
from ragsvc.web.app import create_app
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.public_address import ForwardedAddresses, service_url
from tests.support.chat_service import Services, app_over, issue
from tests.support.keys_database import SmallDatabase, compose
from tests.support.upstream_server import serving

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "Hello"}]}
PREFIX = "/team/rag"


def behind_proxy(app, prefix: str = PREFIX):
    """A proxy that removes the prefix and serves nothing else."""

    async def proxy(scope, receive, send) -> None:
        if scope["type"] == "http":
            if not scope["path"].startswith(prefix + "/"):
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body", "body": b"not here"})
                return
            raw = scope["raw_path"].removeprefix(prefix.encode())
            scope = {**scope, "path": scope["path"].removeprefix(prefix), "raw_path": raw}
        await app(scope, receive, send)

    return proxy


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory):
    """An encrypted service below the prefix: its URL with the prefix, and a key."""
    folder = tmp_path_factory.mktemp("prefix")
    database = SmallDatabase(folder / "keys.sqlite")
    with closing(database), closing(open_encryption(folder, source="memory", key_file=None)) as encryption:
        key = issue(database).key
        app = app_over(Services(compose(database), encryption), [])
        with serving(behind_proxy(app), lifespan="on") as (url, _):
            yield url + PREFIX, key


def ask(base_url: str, key: str, *, transport: httpx.BaseTransport | None = None, stream: bool = False) -> str:
    with (
        httpx.Client(transport=transport) as http,
        openai.OpenAI(base_url=base_url, api_key=key, max_retries=0, http_client=http) as client,
    ):
        answer = client.chat.completions.create(**CHAT, stream=stream)
        if stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
        return answer.choices[0].message.content


@pytest.mark.parametrize("mode", [HpkeStream, Rvenc])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("slash", ["", "/"])
def test_an_encrypted_transport_works_below_a_prefix(prefixed, mode, stream, slash) -> None:
    url, key = prefixed
    transport = EncryptedTransport(url + slash, mode())
    assert "documents" in ask(f"{url}/v1", key, transport=transport, stream=stream)


def test_an_asynchronous_transport_sends_requests_without_a_body_below_a_prefix(prefixed) -> None:
    url, key = prefixed

    async def fetch(path: str) -> tuple[int, bool]:
        async with httpx.AsyncClient(transport=AsyncEncryptedTransport(url, HpkeStream())) as http:
            reply = await http.get(f"{url}{path}", headers={"authorization": f"Bearer {key}"})
            return reply.status_code, reply.extensions["ragsvc_encrypted"]

    assert asyncio.run(fetch("/v1/models")) == (200, True)
    assert asyncio.run(fetch("/v1/models?unknown=1")) == (400, True)


def test_a_transport_sends_nothing_outside_of_its_prefix(prefixed) -> None:
    url, _ = prefixed
    with httpx.Client(transport=EncryptedTransport(url, HpkeStream())) as http:
        for other in ("/v1/models", "/team/rags/v1/models", "/team/other/v1/models?secret=1"):
            with pytest.raises(ConfigurationError) as caught:
                http.get(url.removesuffix(PREFIX) + other)
            assert "secret" not in caught.value.message


@pytest.mark.parametrize("mode", ["hpke-stream", "rvenc"])
def test_the_encrypting_proxy_works_for_a_service_below_a_prefix(prefixed, mode) -> None:
    url, key = prefixed
    with running_proxy(f"{url}/v1", "--mode", mode) as proxy:
        assert "documents" in ask(f"{proxy}/v1", key)


# -- URLs in responses -------------------------------------------------------------------------------------------------


@get("/address", opt={"scope": AccessRequirement.PUBLIC})
async def address(request: Request) -> dict[str, str]:
    return {"url": service_url(request.scope)}


FORWARDED = {"x-forwarded-host": "example.com", "x-forwarded-prefix": "/team/rag/"}


@contextlib.contextmanager
def client_of(tmp_path, *, trusted: bool, public_url: str | None = None):
    with contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database:
        app = create_app(compose(database), route_handlers=[address], public_url=public_url)
        layered = ForwardedAddresses(app, lambda host: trusted and host == "127.0.0.1")
        with serving(layered, lifespan="on") as (url, _), httpx.Client(base_url=url) as client:
            yield client


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "OWN"),
        (FORWARDED, "http://example.com/team/rag"),
        ({"x-forwarded-host": "evil.example, example.com:8443"}, "http://example.com:8443"),
        ({"x-forwarded-host": "evil.example/path"}, "OWN"),
        ({"x-forwarded-host": 'a"><b', "x-forwarded-prefix": "/../x"}, "OWN"),
        ({"x-forwarded-prefix": "//evil.example"}, "OWN"),
        ({"x-forwarded-prefix": "/"}, "OWN"),
    ],
)
def test_the_headers_of_a_trusted_proxy_name_the_address(tmp_path, headers, expected) -> None:
    with client_of(tmp_path, trusted=True) as client:
        own = str(client.base_url).rstrip("/")
        assert client.get("/address", headers=headers).json()["url"] == (own if expected == "OWN" else expected)


def test_headers_of_others_are_ignored_and_the_setting_takes_precedence(tmp_path) -> None:
    with client_of(tmp_path, trusted=False) as client:
        assert client.get("/address", headers=FORWARDED).json()["url"] == str(client.base_url).rstrip("/")
        assert client.get("/schema", headers=FORWARDED).json()["servers"] == [{"url": "/"}]
    with client_of(tmp_path, trusted=True, public_url="https://docs.example/rag/") as client:
        assert client.get("/address", headers=FORWARDED).json()["url"] == "https://docs.example/rag"
        assert client.get("/schema", headers=FORWARDED).json()["servers"] == [{"url": "https://docs.example/rag"}]


def test_a_prefix_in_a_header_opens_no_other_path(tmp_path) -> None:
    with client_of(tmp_path, trusted=True) as client:
        assert client.get("/team/rag/livez", headers=FORWARDED).status_code == 404


@pytest.mark.model
def test_locations_and_the_schema_of_the_service_have_the_prefix(tmp_path, service) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")
    key = create_key(data_dir, extra=("--scope", "admin", "--scope", "documents.write"))
    running = RunningService(data_dir, env={"RAGSVC_TRUSTED_PROXIES": "127.0.0.1"})
    try:
        with running.client(key) as client:
            reply = client.post("/v1/rag/documents?filename=a.txt", content=b"A lake.", headers=FORWARDED)
            assert reply.headers["location"] == f"{PREFIX}/v1/rag/documents/{reply.json()['id']}"
            body = {"tenant": "acme", "label": "second"}
            assert client.post("/v1/keys", json=body, headers=FORWARDED).headers["location"].startswith(f"{PREFIX}/v1/")
            assert client.get("/schema/openapi.yaml", headers=FORWARDED).text.count(f"- url: {PREFIX}") == 1
            assert client.get("/schema").json()["servers"] == [{"url": "/"}]
    finally:
        running.stop()


def test_public_urls_are_checked() -> None:
    assert Settings.from_env({"RAGSVC_PUBLIC_URL": "https://example.com:8443/rag"}).public_url is not None
    for value in ("example.com", "https://", "https://a/v1", "https://a/?x=1", "https://user@a", "https://a/../b"):
        with pytest.raises(ConfigurationError, match="public_url"):
            Settings.from_env({"RAGSVC_PUBLIC_URL": value})
