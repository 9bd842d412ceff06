"""Bounds on what a client can send before anybody has authorised it, behind real sockets."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Generator

import msgspec
import pytest
import uvloop
from litestar import post
from litestar.response import Stream

from ragsvc.core.access.principal import Scope
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.services.request_encryption import open_encryption
from ragsvc.web.app import create_app
from ragsvc.web.passthrough.raw_responses import JsonBytes
from ragsvc.web.server import http_protocol
from ragsvc.web.server.connections import ConnectionLimits
from ragsvc.web.server.http_server import HttpServer
from tests.support.chat_service import Services as ChatServices
from tests.support.chat_service import app_over, issue
from tests.support.keys_database import SmallDatabase, compose

SLICE_OF_WORK_S = 0.005


@post("/v1/test/echo", opt={"scope": Scope.CHAT, "large_body": True})
async def echo(request: "Request") -> JsonBytes:  # noqa: F821 - resolved by Litestar
    return JsonBytes(json.dumps({"bytes": len(await request.body())}).encode())


@post("/v1/test/flood", opt={"scope": Scope.CHAT})
async def flood() -> Stream:
    async def parts():
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0)

    return Stream(parts())


class Served:
    """A server in a thread; ``longest_work_s`` is the longest CPU time between two turns of its event loop."""

    def __init__(self, services, database):
        self.services, self.database = services, database
        self.longest_work_s = 0.0
        self.turns = 0

    def start(self, listener, app, limits):
        self.address = listener.getsockname()
        self.server = HttpServer(app, limits, shutdown_grace_s=1)
        self.thread = threading.Thread(target=lambda: uvloop.run(self._serve(app, listener)))
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)

    async def _serve(self, app, listener):
        async with app.lifespan():
            watcher = asyncio.create_task(self._watch())
            await self.server.serve([listener])
            watcher.cancel()

    async def _watch(self):
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_work_s = max(self.longest_work_s, now - before)
            self.turns += 1
            await asyncio.sleep(0.002)
            before = time.thread_time()

    def issue(self):
        draft = KeyDraft(tenant="t", label="l", scopes=frozenset({Scope.CHAT}))
        return self.database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=int(time.time()))).text

    def connect(self, *sent):
        connection = socket.create_connection(self.address, timeout=20)
        for part in sent:
            connection.sendall(part)
        return connection


@contextlib.contextmanager
def serving(folder, **limits) -> Generator[Served]:
    with contextlib.closing(SmallDatabase(folder / "keys.sqlite")) as database:
        services = compose(database)
        app = create_app(services, route_handlers=[echo, flood])
        served = Served(services, database)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            served.start(listener, app, msgspec.structs.replace(ConnectionLimits(), **limits))
            try:
                yield served
            finally:
                served.server.should_exit = True
                served.thread.join(20)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(
        tmp_path_factory.mktemp("served"),
        header_timeout_s=1.0,
        body_timeout_s=1.0,
        idle_timeout_s=2.0,
        send_timeout_s=1.0,
    ) as running:
        yield running


def read_all(connection) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            answer += part
    connection.close()
    return answer


def ask(served, *sent) -> bytes:
    connection = socket.create_connection(served.address, timeout=20)
    with contextlib.suppress(ConnectionError):
        for part in sent:
            connection.sendall(part)
    return read_all(connection)


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([GET, b"a: b\r\n" * 101, CLOSE], id="number"),
        pytest.param([GET, b"a: " + b"b" * 65_536 + b"\r\n", CLOSE], id="bytes"),
        pytest.param([GET, *[b"a: bcdefg\r\n" * 1000] * 400], id="without an end"),
        pytest.param([b"GET /", *[b"a" * 65_536] * 30], id="request line"),
    ],
)
def test_large_heads_are_refused(served, sent):
    answer = ask(served, *sent)
    if len(sent) <= 3:  # else the client still sends when the service closes, and may lose the answer
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
    assert b" 200 " not in answer


def test_heads_within_the_bounds_are_answered(served):
    assert ask(served, GET, b"a: b\r\n" * 98, CLOSE).startswith(b"HTTP/1.1 200 ")
    assert ask(served, GET, b"a: " + b"b" * 64_000 + b"\r\n", CLOSE).startswith(b"HTTP/1.1 200 ")
    begin = time.monotonic()
    connection = served.connect(GET)
    time.sleep(0.3)
    connection.sendall(CLOSE)
    assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - begin < 5


def test_a_head_that_does_not_arrive_in_time_is_refused(served):
    answer = ask(served, GET + b"a: ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    assert ask(served) == b""  # a connection without a byte is closed


def test_a_head_that_trickles_does_not_live_longer(served):
    connection = served.connect(GET)
    begin = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - begin < 10:
            connection.sendall(b"a: b\r\n")
            time.sleep(0.1)
    assert time.monotonic() - begin < 9
    connection.close()


def test_a_body_that_makes_no_progress_is_refused(served):
    key = served.issue().encode()
    head = b"POST /v1/test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nAuthorization: " + key + b"\r\n\r\n"
    answer = ask(served, head, b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    connection = served.connect(head)
    for _ in range(20):  # slow, and with progress
        connection.sendall(b"x" * 5000)
        time.sleep(0.1)
    assert connection.recv(65_536).startswith(b"HTTP/1.1 2")
    connection.close()


def test_idle_connections_are_closed(served):
    connection = served.connect(GET + b"\r\n")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    begin = time.monotonic()
    assert read_all(connection) == b""
    assert 1 < time.monotonic() - begin < 10


def test_a_client_that_reads_no_answer_is_disconnected(served):
    key = served.issue().encode()
    head = b"POST /v1/test/flood HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: " + key + b"\r\n\r\n"
    connection = served.connect(head)
    deadline = time.monotonic() + 15
    while len(served.server.table) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(served.server.table) == 0
    connection.close()


def test_trailers_neither_authorise_nor_change_a_request(served):
    key = served.issue().encode()
    head = b"POST /v1/test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    body = b"2\r\n{}\r\n0\r\n"
    assert ask(served, head + b"\r\n" + body + b"Authorization: " + key + b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    wrong = (
        head
        + b"Authorization: "
        + key
        + b"\r\n\r\n"
        + body
        + b"Authorization: rag_1_wrong\r\nX-Request-Id: trail\r\n\r\n"
    )
    answer = ask(served, wrong)
    assert answer.startswith(b"HTTP/1.1 2")
    assert b"trail" not in answer


def test_trailers_and_chunk_extensions_are_bounded(served):
    key = served.issue().encode()
    head = (
        b"POST /v1/test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: " + key + b"\r\n\r\n"
    )
    for tail in (b"2;a=", b"2\r\n{}\r\n0\r\na: "):
        answer = ask(served, head + tail, *[b"b" * 16_384] * 8)
        assert b"HTTP/1.1 2" not in answer


def test_a_new_connection_takes_the_place_of_the_one_that_waits_longest(tmp_path):
    with serving(tmp_path, max_connections_per_address=4) as served:
        waiting = [served.connect(b"GET /livez") for _ in range(4)]
        time.sleep(0.2)
        for _ in range(3):
            assert ask(served, GET + CLOSE).startswith(b"HTTP/1.1 200 ")
        waiting[0].settimeout(5)
        assert read_all(waiting[0]) == b""
        for connection in waiting[1:]:
            connection.close()


def test_requests_in_progress_keep_their_connections(tmp_path):
    with serving(tmp_path, max_connections_per_address=2) as served:
        key = served.issue().encode()
        head = b"POST /v1/test/flood HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: " + key + b"\r\n\r\n"
        busy = [served.connect(head) for _ in range(2)]
        for connection in busy:
            assert connection.recv(1000).startswith(b"HTTP/1.1 2")
        answer = ask(served, GET + CLOSE)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
        for connection in busy:
            assert connection.recv(1000)
            connection.close()


def test_no_load_on_heads_and_framing_holds_the_event_loop_for_5_ms(tmp_path):
    """CPU time of the loop's thread between two turns; chunks of a byte held it for 100 ms, headers for seconds."""
    with serving(tmp_path) as served:
        key = served.issue().encode()
        head = (
            b"POST /v1/test/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: "
            + key
            + b"\r\n\r\n"
        )
        loads = [
            [GET, *[b"a:b\r\n" * 50_000] * 20],
            [b"GET / HTTP/1.1\r\na: ", *[b"b" * 262_144] * 20],
            [GET + b"\r\n"] * 3 + [(GET + b"\r\n") * 5000],
            [head, *[b"1\r\n \r\n" * 40_000] * 2, b"0\r\n\r\n"],
        ]
        ask(served, GET + CLOSE)
        served.longest_work_s = 0.0
        for _ in range(3):
            for load in loads:
                connection = socket.create_connection(served.address, timeout=20)
                with contextlib.suppress(ConnectionError):
                    for part in load:
                        connection.sendall(part)
                    connection.recv(65_536)
                connection.close()
        assert served.turns > 10
        assert served.longest_work_s < SLICE_OF_WORK_S


@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param("hello world " * 2_330_000, 400, id="28 MB"),
        pytest.param("привет, " * 2_000_000, 400, id="28 MB of Cyrillic"),
        pytest.param("hello world " * 320_000, 200, id="the longest prompt"),
        pytest.param("请" * 1_000_000, 200, id="for patterns"),
        pytest.param("A" * 1_000_000, 200, id="a word"),
        pytest.param("is the a-" * 200_000, 200, id="half phrases"),
    ],
)
def test_no_prompt_holds_the_event_loop_for_5_ms(tmp_path, text, status):
    """CPU time of the loop's thread: decoding, patterns and tokenizers work elsewhere; they held it for seconds."""
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": "local/chat-model", "use_rag": True, "messages": messages}, ensure_ascii=False).encode()
    with (
        contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database,
        contextlib.closing(open_encryption(tmp_path, source="memory", key_file=None)) as encryption,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        services = ChatServices(compose(database), encryption)
        key = issue(database, balance=None).key.encode()
        served = Served(services, database)
        served.start(listener, app_over(services, []), ConnectionLimits())
        try:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
            small = json.dumps({"model": "local/chat-model", "messages": [{"role": "user", "content": "x"}]}).encode()
            for sent, expected in ((small, 200), (body, status), (body, status)):
                served.longest_work_s = 0.0
                answer = ask(served, head % len(sent) + b"Authorization: Bearer " + key + b"\r\n\r\n", sent)
                assert answer.startswith(b"HTTP/1.1 %d " % expected), answer[:500]
            assert served.longest_work_s < SLICE_OF_WORK_S
        finally:
            served.server.should_exit = True
            served.thread.join(20)


def test_a_client_that_sends_all_of_a_refused_body_reads_the_answer(served):
    """The server closes after its answer: without reading on, the rest of the body would reset the connection."""
    head = f"POST /v1/test/flood HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {served.issue()}\r\n"
    body = b"x" * 60_000_000
    with served.connect(f"{head}content-length: {len(body)}\r\n\r\n".encode()) as connection:
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_a_client_that_goes_on_after_a_refused_body_does_not_keep_its_connection(served, monkeypatch):
    monkeypatch.setattr(http_protocol, "_LINGER_IDLE_S", 0.5)
    head = f"POST /v1/test/flood HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {served.issue()}\r\n"
    with served.connect(f"{head}content-length: 60000000\r\n\r\nxxx".encode()) as connection:
        deadline = time.monotonic() + 15
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 413 ")
        while len(served.server.table):
            assert time.monotonic() < deadline
            time.sleep(0.05)
