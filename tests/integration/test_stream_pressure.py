"""A thousand streams at the same time on one process: all complete, all settled, memory bounded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import time
from pathlib import Path

import pytest
import uvloop

from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.upstream_server import serving

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(180)]

_log = logging.getLogger(__name__)

STREAMS = 1_000
STALLED = 10
CHUNKS = 12
PAUSE_S = 0.5
BALANCE = 10**9
USAGE = {"prompt_tokens": 11, "completion_tokens": 13, "total_tokens": 24}
HEAD = {"id": "chatcmpl-slow", "object": "chat.completion.chunk", "created": 1700000000, "model": "any"}


def event(**fields) -> bytes:
    return b"data: " + json.dumps(HEAD | fields).encode() + b"\n\n"


def words(text: str, finish_reason=None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}])


class SlowProvider:
    """``slow`` says a word every half second; ``flood`` as much as the connection takes, until it closes."""

    def __init__(self) -> None:
        self.running = self.most = self.flooded_bytes = 0

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            )
            if json.loads(body)["model"] == "flood":
                await self._flood(receive, send)
            else:
                await self._speak(send)
        finally:
            self.running -= 1

    async def _speak(self, send) -> None:
        for number in range(CHUNKS):
            await send({"type": "http.response.body", "body": words(f"w{number} "), "more_body": True})
            await asyncio.sleep(PAUSE_S)
        end = words("", "stop") + event(choices=[], usage=USAGE) + b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": end})

    async def _flood(self, receive, send) -> None:
        gone = asyncio.ensure_future(receive())
        block = words("x" * 8_000)
        while not gone.done():
            await send({"type": "http.response.body", "body": block, "more_body": True})
            self.flooded_bytes += len(block)
            await asyncio.sleep(0)


@contextlib.contextmanager
def open_files(soft: int):
    """Another soft limit of open files for this process and those it starts meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4 * STREAMS:
        pytest.skip(f"needs {4 * STREAMS} open files, the hard limit is {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Gateway:
    """The service over the slow provider, and its key."""

    def __init__(self, service: RunningService, key: str, provider: SlowProvider) -> None:
        self.service, self.key, self.provider = service, key, provider
        self.port = int(service.url.rsplit(":", 1)[1])

    def memory_bytes(self) -> int:
        lines = Path(f"/proc/{self.service.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    def tokens_left(self) -> int:
        with self.service.client(self.key) as client:
            return client.get("/v1/tokens").json()["tokens_remaining"]

    async def open(self, model: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask for a stream, read nothing of it."""
        body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**14)
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return reader, writer


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("gateway")
    provider = SlowProvider()
    key = create_key(tmp_path / "data", extra=("--token-balance", str(BALANCE)))
    with open_files(8 * STREAMS), serving(provider, timeout_graceful_shutdown=1) as (url, _server):
        config = tmp_path / "ragsvc.toml"
        config.write_text(f'[[providers]]\nname = "up"\nbase_url = "{url}/v1"\nmodels = ["slow", "flood"]\n')
        with open_files(1024):  # the usual soft limit; the service raises its own
            service = RunningService(tmp_path / "data", env={"RAGSVC_CONFIG": str(config)})
        try:
            yield Gateway(service, key, provider)
        finally:
            service.stop()


def test_a_thousand_streams_are_held_completed_and_settled(gateway):
    before, had = gateway.memory_bytes(), gateway.tokens_left()
    peak, slowest_s = before, 0.0

    async def one() -> bytes:
        reader, writer = await gateway.open("slow")
        answer = await reader.read()
        while piece := await reader.read():
            answer += piece
        writer.close()
        return answer

    async def watch(client) -> None:
        nonlocal peak, slowest_s
        while True:
            asked = time.perf_counter()
            await asyncio.to_thread(lambda: client.get("/v1/models").raise_for_status())
            slowest_s = max(slowest_s, time.perf_counter() - asked)
            peak = max(peak, gateway.memory_bytes())
            await asyncio.sleep(0.2)

    async def all_at_once() -> list[bytes]:
        with gateway.service.client(gateway.key) as client:
            watching = asyncio.create_task(watch(client))
            answers = await asyncio.gather(*(one() for _ in range(STREAMS)))
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        return answers

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(all_at_once())
    assert gateway.provider.most == STREAMS
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200")
        assert all(b"w%d " % number in answer for number in range(CHUNKS))
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert gateway.tokens_left() == had - STREAMS * USAGE["total_tokens"]
    assert peak - before < 150 << 20
    assert slowest_s < 5
    _log.info("%d streams: %d MiB more, other requests at most %.2f s", STREAMS, (peak - before) >> 20, slowest_s)


def test_clients_that_do_not_read_hold_their_provider_back(gateway):
    before, had = gateway.memory_bytes(), gateway.tokens_left()
    provider = gateway.provider

    async def stall() -> tuple[int, bool]:
        opened = [await gateway.open("flood") for _ in range(STALLED)]
        deadline, still_since, sent = time.monotonic() + 40, time.monotonic(), -1
        while time.monotonic() < min(deadline, still_since + 1.5):
            if provider.flooded_bytes != sent or provider.running < STALLED:
                sent, still_since = provider.flooded_bytes, time.monotonic()
            await asyncio.sleep(0.1)
        grown = gateway.memory_bytes() - before
        for _, writer in opened:
            writer.transport.abort()
        return grown, time.monotonic() < deadline

    with asyncio.Runner() as runner:
        grown, stopped = runner.run(stall())
    _log.info("%d clients that do not read: %d MiB more", STALLED, grown >> 20)
    assert stopped, "the provider could go on sending"
    assert grown < 40 << 20
    deadline = time.monotonic() + 10
    while provider.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert provider.running == 0
    assert gateway.tokens_left() < had
