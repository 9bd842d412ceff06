"""A thousand streams at the same time through one process: all alive, memory bounded, everything given back."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.model

STREAMS = 1000
MEMORY_OF_A_STREAM = 96 * 1024
PATHS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
}


class Stream:
    """One client on a socket of its own, without a library's memory."""

    def __init__(self, gateway, path: str, key: str) -> None:
        self._address = gateway.url.removeprefix("http://").split(":")
        body = json.dumps({"model": "holds", "stream": True, **PATHS[path]}).encode()
        self._request = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def begin(self) -> None:
        """Ask, and read as far as the first words."""
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n", maxsplit=1)[0], head
        while b"data: " not in (event := await self._reader.readuntil(b"\n\n")):
            assert b": " in event, event  # a comment: the provider was silent for a while

    async def finish(self) -> bool:
        """Read to the end; whether it ended as it should."""
        rest = await self._reader.readuntil(b"\r\n0\r\n\r\n")
        self._writer.close()
        return b"data: [DONE]" in rest


def resident_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the service's memory from /proc")
@pytest.mark.timeout(180)
def test_a_thousand_streams_are_held_in_bounded_memory(gateway) -> None:
    key = gateway.new_key(token_balance=100_000_000)
    pid = gateway.service.process.pid
    upstream = gateway.upstream

    async def scenario() -> tuple[int, int]:
        paths = list(PATHS)
        streams = [Stream(gateway, paths[number % 2], key) for number in range(STREAMS)]
        warm = [Stream(gateway, path, key) for path in paths * 10]
        before_held = upstream.held
        await asyncio.gather(*(one.begin() for one in warm))
        before = resident_bytes(pid)
        for at in range(0, STREAMS, 50):  # a listening socket's queue is not what is tested
            await asyncio.gather(*(one.begin() for one in streams[at : at + 50]))
        during = resident_bytes(pid)
        assert upstream.held - before_held == STREAMS + len(warm)
        models = await asyncio.to_thread(_get, gateway, "/v1/models")
        assert models.status_code == 200
        assert models.elapsed.total_seconds() < 2
        running = _figure(await asyncio.to_thread(_get, gateway, "/metrics"), "ragsvc_http_requests_running")
        assert running > STREAMS
        upstream.loop.call_soon_threadsafe(upstream.released.set)
        ended = await asyncio.gather(*(one.finish() for one in [*warm, *streams]))
        assert all(ended)
        return before, during

    try:
        before, during = asyncio.run(asyncio.wait_for(scenario(), 150))
    finally:
        if upstream.loop is not None:
            upstream.loop.call_soon_threadsafe(upstream.released.clear)
    assert during - before < STREAMS * MEMORY_OF_A_STREAM, f"{(during - before) / STREAMS / 1024:.0f} KiB a stream"
    print(f"{(during - before) / STREAMS / 1024:.0f} KiB a stream")  # noqa: T201 - shown with -s
    assert _figure(_get(gateway, "/metrics"), "ragsvc_http_requests_running") == 1
    spent = 100_000_000 - gateway.tokens_left(key)
    usage = _usage(gateway, key)
    deadline = time.monotonic() + 20
    while sum(day["requests"] for day in usage) < STREAMS + 20 and time.monotonic() < deadline:
        time.sleep(0.1)  # use is written in groups
        usage = _usage(gateway, key)
    assert sum(day["prompt_tokens"] + day["completion_tokens"] for day in usage) == spent
    assert sum(day["requests"] for day in usage) == STREAMS + 20


def _usage(gateway, key: str) -> list[dict]:
    with gateway.service.client(gateway.admin_key) as admin:
        return admin.get(f"/v1/keys/key_{key.split('_')[1]}/usage").json()["data"]


def _get(gateway, path: str):
    with gateway.service.client(gateway.key) as client:
        return client.get(path)


def _figure(reply, name: str) -> float:
    return float(re.search(rf"^{name} ([\d.]+)$", reply.text, re.MULTILINE)[1])
