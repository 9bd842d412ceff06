"""Headers that choose the provider, its key or the documents of a sealed request: authenticated, or refused."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterator

import httpx
import pytest

from ragsvc.client import AsyncEncryptedTransport, EncryptedTransport, HpkeStream
from ragsvc.client.encrypting_proxy import EncryptingProxy
from ragsvc.crypto import ehbp
from tests.support.chat_service import provider, serving_chat
from tests.support.sealing import OneShot, fetch_hpke_key
from tests.support.upstream_server import serving_upstream

PATH = "/v1/chat/completions"
HELLO = {"model": "real-model", "messages": [{"role": "user", "content": "Hello"}]}
STEERING = {
    "X-Provider-Key": "sk-mine",
    "X-Provider-Base-URL": "http://127.0.0.1:9/v1",
    "X-Ragsvc-Use-Rag": "false",
    "X-Ragsvc-Collection": "handbook",
}


@pytest.fixture(scope="module")
def upstream():
    with serving_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def service(upstream, tmp_path_factory):
    with serving_chat(tmp_path_factory.mktemp("steering"), [provider(upstream.url, retries=0)]) as running:
        yield running


@pytest.fixture(scope="module")
def http(service):
    with httpx.Client(base_url=service.url, headers=service.headers(), timeout=10) as client:
        yield client


class AddingGateway(httpx.BaseTransport):
    """A gateway between client and service that changes headers of every sealed request."""

    def __init__(self, changes: dict[str, str | None]) -> None:
        self._changes = changes
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for name, value in self._changes.items():
            if "x-hpke-enc" in request.headers:
                request.headers.pop(name, None)
                if value is not None:
                    request.headers[name] = value
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def stream_client(service) -> Iterator[object]:
    clients = []

    def make(changes: dict[str, str | None]) -> httpx.Client:
        transport = EncryptedTransport(service.url, HpkeStream(), inner=AddingGateway(changes))
        client = httpx.Client(transport=transport, base_url=service.url, headers=service.headers(), timeout=10)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize("name", STEERING)
def test_a_header_added_to_a_streamed_request_does_not_open(stream_client, upstream, name):
    calls = len(upstream.requests)
    reply = stream_client({name: STEERING[name]}).post(PATH, json=HELLO)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "encryption_error")
    assert len(upstream.requests) == calls


@pytest.mark.parametrize("change", [None, "sk-gateway"])
def test_a_header_removed_or_changed_in_a_streamed_request_does_not_open(stream_client, upstream, change):
    calls = len(upstream.requests)
    reply = stream_client({"X-Provider-Key": change}).post(PATH, json=HELLO, headers={"X-Provider-Key": "sk-mine"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "encryption_error")
    assert len(upstream.requests) == calls


def test_a_streamed_request_brings_the_callers_own_key(stream_client, upstream):
    reply = stream_client({}).post(PATH, json=HELLO, headers={"X-Provider-Key": "sk-mine"})
    assert reply.status_code == 200, reply.text
    assert upstream.headers[-1]["authorization"] == "Bearer sk-mine"


def test_a_streamed_request_names_a_collection_in_utf_8(stream_client):
    reply = stream_client({}).post(PATH, json=HELLO, headers={b"X-Ragsvc-Collection": "Bücher".encode()})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "collection_not_found")
    assert "Bücher" in reply.json()["error"]["message"]


@pytest.mark.parametrize("name", STEERING)
def test_headers_outside_of_a_one_shot_request_are_refused(http, upstream, name):
    sealed = OneShot(fetch_hpke_key(http), json.dumps(HELLO).encode())
    calls = len(upstream.requests)
    reply = http.post(PATH, headers={**sealed.headers, name: STEERING[name]}, content=sealed.body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)
    assert len(upstream.requests) == calls
    assert sealed.open(http.post(PATH, headers=sealed.headers, content=sealed.body))  # it was not used up


@pytest.mark.parametrize("name", STEERING)
def test_headers_outside_of_an_ehbp_request_are_refused(http, upstream, name):
    exchange = ehbp.ClientExchange(fetch_hpke_key(http))
    headers = {ehbp.ENCAPSULATED_KEY_HEADER: exchange.encapsulated_key_header, "Content-Type": "application/json"}
    calls = len(upstream.requests)
    body = exchange.seal_request(json.dumps(HELLO).encode())
    reply = http.post(PATH, headers={**headers, name: STEERING[name]}, content=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)
    assert len(upstream.requests) == calls


def test_the_proxy_passes_header_values_in_utf_8(service):
    transport = functools.partial(AsyncEncryptedTransport, service.url, HpkeStream())
    proxy = EncryptingProxy(service.url, transport)

    async def ask() -> httpx.Response:
        inner = httpx.ASGITransport(proxy)
        async with httpx.AsyncClient(transport=inner, base_url="http://localhost") as client:
            headers = {**service.headers(), b"X-Ragsvc-Collection": "Bücher".encode()}
            reply = await client.post(PATH, json=HELLO, headers=headers)
            await proxy.aclose()
            return reply

    reply = asyncio.run(ask())
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "collection_not_found")
