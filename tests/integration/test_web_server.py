"""The application behind the real server: what only sockets show."""

import contextlib
import socket
import threading
import time
from collections.abc import AsyncGenerator

import anyio
import httpx
import openai
import pytest
import uvicorn
from litestar import get, post
from litestar.response import Stream

from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import BalanceExhausted, ModelNotFound
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.web.app import create_app
from tests.support.keys_database import SmallDatabase, compose


@get("/v1/test/endless", opt={"scope": Scope.CHAT})
async def endless() -> Stream:
    async def parts() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x" * 100
            await anyio.sleep(0.01)

    return Stream(parts())


@get("/v1/test/broken", opt={"scope": Scope.CHAT})
async def broken() -> Stream:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"begun"
        raise ZeroDivisionError("in the middle")

    return Stream(parts())


@post("/v1/chat/completions", opt={"scope": Scope.CHAT})
async def chat() -> None:
    raise ModelNotFound("The model 'm' does not exist.", param="model")


@post("/v1/embeddings", opt={"scope": Scope.CHAT})
async def embeddings() -> None:
    raise BalanceExhausted("The token balance of this key is exhausted.")


class Server:
    def __init__(self, url, services, database):
        self.url, self.services, self.database = url, services, database

    def issue(self, **limits):
        draft = KeyDraft(tenant="t", label="l", scopes=frozenset({Scope.CHAT}), limits=KeyLimits(**limits))
        return self.database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=int(time.time())))

    def running(self, issued):
        return self.services.access._keys[issued.key.id].gate.running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with contextlib.closing(SmallDatabase(tmp_path_factory.mktemp("server") / "keys.sqlite")) as database:
        services = compose(database)
        app = create_app(services, route_handlers=[endless, broken, chat, embeddings])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none")
            running = uvicorn.Server(config)
            thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
            thread.start()
            deadline = time.monotonic() + 20
            while not running.started and time.monotonic() < deadline:
                time.sleep(0.02)
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", services, database)
            running.should_exit = True
            thread.join(20)


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_an_oversized_body_is_refused_before_it_is_read(server):
    issued = server.issue()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n"
            b"authorization: Bearer " + issued.text.encode() + b"\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", content=b"x" * (33 << 20), headers={"authorization": issued.text}
    )
    assert answer.status_code == 413


def test_a_stream_that_fails_in_the_middle_is_cut_and_never_ends_well(server):
    issued = server.issue()
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/v1/test/broken", headers={"authorization": issued.text})
    wait_until(lambda: server.running(issued) == 0)


def test_a_client_that_leaves_a_stream_frees_its_place(server):
    issued = server.issue(max_parallel_requests=1)
    headers = {"authorization": issued.text}
    url = f"{server.url}/v1/test/endless"
    with httpx.stream("GET", url, headers=headers) as answer:
        parts = answer.iter_bytes()  # held: letting go of it would close the connection
        next(parts)
        assert server.running(issued) == 1
        with httpx.stream("GET", url, headers=headers) as second:
            assert second.status_code == 429
        next(parts)
    wait_until(lambda: server.running(issued) == 0)


def client_for(server, key):
    return openai.OpenAI(api_key=key, base_url=f"{server.url}/v1", max_retries=0)


def test_the_official_client_raises_its_own_errors(server):
    messages = [{"role": "user", "content": "hi"}]
    with client_for(server, server.issue().text) as client:
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="m", messages=messages)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        assert missing.value.request_id.startswith("req_")
        with pytest.raises(openai.APIStatusError) as exhausted:
            client.embeddings.create(model="m", input="x")
        assert (exhausted.value.status_code, exhausted.value.code) == (402, "balance_exhausted")
    with client_for(server, "rag_0_wrong") as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="m", messages=messages)
    with client_for(server, server.issue(requests_per_minute=1).text) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="m", messages=messages)
        with pytest.raises(openai.RateLimitError) as limited:
            client.chat.completions.create(model="m", messages=messages)
        assert limited.value.type == "rate_limit_error"
