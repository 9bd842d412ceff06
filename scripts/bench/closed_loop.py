"""A closed-loop HTTP client on raw sockets: each connection sends its next request when the response is complete."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop

from scripts.bench.measuring import percentile


@dataclass
class Tally:
    """Request times of all connections, in seconds."""

    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    failure: str = ""


class Connection(asyncio.Protocol):
    """A keep-alive connection. A response is complete when its content length or its last chunk was received."""

    def __init__(self, requests: Iterator[bytes], until: float, tally: Tally, *, streams: bool) -> None:
        self._requests, self._until, self._tally = requests, until, tally
        self._streams = streams
        self._got, self._left, self._first, self._begun = b"", -1, 0.0, False
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._ask()

    def _ask(self) -> None:
        if time.perf_counter() >= self._until:
            self._transport.close()
            return
        self._got, self._left, self._first, self._begun = b"", -1, 0.0, False
        self._began = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if not self._begun and not self._begin(data):
            return
        if not self._first and (not self._streams or b"data:" in data):
            self._first = time.perf_counter()
        if self._complete(data):
            self._tally.latencies.append(time.perf_counter() - self._began)
            self._tally.firsts.append(self._first - self._began)
            self._ask()

    def _begin(self, data: bytes) -> bool:
        self._begun = data.startswith(b"HTTP/1.1 200")
        if not self._begun:
            self._tally.failure = data[:600].decode(errors="replace")
            self._transport.abort()
        return self._begun

    def _complete(self, data: bytes) -> bool:
        if self._streams:
            self._got = self._got[-8:] + data
            return self._got.endswith(b"\r\n0\r\n\r\n")
        if self._left < 0:
            self._got += data
            head, found, body = self._got.partition(b"\r\n\r\n")
            if not found:
                return False
            lower = head.lower()
            at = lower.index(b"content-length: ") + 16
            self._left = int(lower[at:].split(b"\r\n", 1)[0]) - len(body)
        else:
            self._left -= len(data)
        return self._left == 0

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._tally.failure = self._tally.failure or repr(error)
        self.closed.set_result(None)


async def _run(
    port: int, requests: Iterator[bytes], tally: Tally, *, streams: bool, concurrency: int, seconds: float
) -> float:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    make: Callable[[], Connection] = lambda: Connection(requests, began + seconds, tally, streams=streams)  # noqa: E731
    connections = [(await loop.create_connection(make, "127.0.0.1", port))[1] for _ in range(concurrency)]
    await asyncio.gather(*(connection.closed for connection in connections))
    return time.perf_counter() - began


def post(path: str, key: str, body: dict[str, Any]) -> bytes:
    """The bytes of a POST request with a JSON body."""
    text = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def drive(port: int, requests: Iterator[bytes], *, streams: bool, concurrency: int, seconds: float) -> dict[str, float]:
    """Send requests for some seconds; returns rates, latencies and times to the first token (JSON: the first byte).

    Raises:
        RuntimeError: a response had a status other than 200, or a connection broke.
    """
    tally = Tally()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(_run(port, requests, tally, streams=streams, concurrency=concurrency, seconds=seconds))
    if tally.failure or not tally.latencies:
        raise RuntimeError(f"port {port}: {tally.failure or 'no answer'}")
    return {
        "count": len(tally.latencies),
        "per_s": len(tally.latencies) / took,
        "p50_ms": percentile(tally.latencies, 0.50) * 1000,
        "p95_ms": percentile(tally.latencies, 0.95) * 1000,
        "p99_ms": percentile(tally.latencies, 0.99) * 1000,
        "first_p50_ms": percentile(tally.firsts, 0.50) * 1000,
    }


def load(port: int, key: str, *, streams: bool, concurrency: int, seconds: float) -> dict[str, float]:
    """Send chat requests for some seconds; see ``drive``."""
    body: dict[str, Any] = {
        "model": "bench",
        "messages": [{"role": "user", "content": "Tell me a few words, please. " * 3}],
    }
    if streams:
        body["stream"] = True
    request = itertools.repeat(post("/v1/chat/completions", key, body))
    return drive(port, request, streams=streams, concurrency=concurrency, seconds=seconds)
