"""Attacks a service of its own with requests that are expensive before anybody is authorised, or too large to answer.

scripts/bench_attack [--seconds N] [--kinds KIND,...] [--json]

While the attack runs, ``/livez`` and small valid requests are measured from another process. Exit code 1 if ``/livez``
takes more than 100 ms at the 99th percentile, a valid request is not answered, or the service keeps more than 300 MB or
100 threads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import itertools
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import percentile, print_json, tree_bytes

LIVEZ_P99_MS = 100.0
MEMORY_BYTES = 300 << 20
MORE_THREADS = 100
_HALF_OPEN = 500
_COLLECTIONS = 600
_PROMPT_BYTES = 28_000_000
_EVIL_TEXTS = ("请", "A", "is the a-", "hi ", "!", "page 7 ", "in the ", "1.1,")
"""Repeated, these take a backtracking pattern the longest."""


class Target(msgspec.Struct, frozen=True):
    """The service under attack, with a valid key."""

    url: str
    key: str

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.url)
        return await asyncio.open_connection(parts.hostname, parts.port)

    def head(self, method: str, path: str, *headers: str, key: str | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key or self.key}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()


async def _send(target: Target, pieces: list[bytes], *, leave: bool = False) -> None:
    """Send until the service closes the connection, and read its answer unless the client leaves."""
    reader, writer = await target.connect()
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if not leave:
            await asyncio.wait_for(reader.read(65_536), 20)
    finally:
        writer.transport.abort()


async def many_headers(target: Target, _: random.Random) -> None:
    """A head that never ends, of short headers."""
    await _send(target, [b"GET /livez HTTP/1.1\r\n", *[b"a:b\r\n" * 50_000] * 40])


async def large_header(target: Target, _: random.Random) -> None:
    await _send(target, [b"GET /livez HTTP/1.1\r\na: ", *[b"b" * 262_144] * 200])


async def half_open(target: Target, chance: random.Random) -> None:
    """Hundreds of connections that begin a head and wait."""
    writers = []
    for _ in range(_HALF_OPEN):
        _reader, writer = await target.connect()
        writers.append(writer)
        if chance.random() < 0.5:
            writer.write(b"GET /livez HT")
    await asyncio.sleep(3)
    for writer in writers:
        writer.transport.abort()


async def slow_body(target: Target, _: random.Random) -> None:
    reader, writer = await target.connect()
    writer.write(target.head("POST", "/v1/chat/completions", "Content-Length: 1000000"))
    for _ in range(5):
        await asyncio.sleep(0.5)
        writer.write(b"{")
    del reader
    writer.transport.abort()


async def small_chunks(target: Target, _: random.Random) -> None:
    """A body in chunks of a byte."""
    head = target.head("POST", "/v1/chat/completions", "Transfer-Encoding: chunked")
    await _send(target, [head, *[b"1\r\n \r\n" * 40_000] * 4, b"0\r\n\r\n"])


async def pipelined(target: Target, _: random.Random) -> None:
    await _send(target, [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000])


async def long_prompt(target: Target, chance: random.Random) -> None:
    """A prompt of 28 MB with a valid key; half of the clients leave before the answer."""
    text = chance.choice(["hello world ", "привет ", 'a\\"\\n', "x"])
    content = (text * (_PROMPT_BYTES // len(text.encode()))).encode()
    body = b'{"model":"local/chat-model","use_rag":true,"messages":[{"role":"user","content":"%b"}]}' % content
    head = target.head("POST", "/v1/chat/completions", f"Content-Length: {len(body)}")
    with contextlib.suppress(ConnectionError):
        await _send(target, [head, body], leave=chance.random() < 0.5)


async def evil_question(target: Target, chance: random.Random) -> None:
    """A valid prompt or query that is expensive for patterns and tokenizers."""
    text = chance.choice(_EVIL_TEXTS)
    if chance.random() < 0.5:
        message = {"role": "user", "content": (text * 2_000_000)[:1_000_000]}
        sent = {"model": "local/chat-model", "use_rag": True, "messages": [message]}
        path = "/v1/chat/completions"
    else:
        sent, path = {"query": (text * 20_000)[:20_000]}, "/v1/rag/search"
    body = json.dumps(sent, ensure_ascii=False).encode()
    await _send(target, [target.head("POST", path, f"Content-Length: {len(body)}"), body], leave=chance.random() < 0.3)


async def wrong_keys(target: Target, chance: random.Random) -> None:
    for _ in range(50):
        key = f"rag_{chance.randrange(1 << 40)}_{chance.randrange(1 << 60):x}"
        await _send(target, [target.head("GET", "/v1/models", key=key)])


async def many_collections(target: Target, chance: random.Random) -> None:
    """Documents in hundreds of new collections, and searches that open collections again after they were closed."""
    limits = httpx.Limits(max_connections=2)
    headers = {"authorization": f"Bearer {target.key}", "content-type": "text/plain"}
    async with httpx.AsyncClient(base_url=target.url, headers=headers, limits=limits, timeout=60) as client:
        for _ in range(5):
            name = f"attack-{chance.randrange(_COLLECTIONS)}"
            query = {"collection": name, "filename": f"{name}.txt"}
            await client.post("/v1/rag/documents", params=query, content=f"The crane of {name} lifts 7 tonnes.")
            name = f"attack-{chance.randrange(_COLLECTIONS)}"
            await client.post("/v1/rag/search", json={"query": "crane", "collection": name})


Attack = Callable[[Target, random.Random], Awaitable[None]]
KINDS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        many_headers,
        large_header,
        half_open,
        slow_body,
        small_chunks,
        pipelined,
        long_prompt,
        evil_question,
        wrong_keys,
        many_collections,
    )
}


async def _repeat(attack: Attack, target: Target, until: float, counts: dict[str, int]) -> None:
    for number in itertools.count():
        if time.monotonic() >= until:
            return
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, httpx.TransportError):
            await attack(target, random.Random(number))  # noqa: S311 - repeatable
        counts[attack.__name__] = counts.get(attack.__name__, 0) + 1
        await asyncio.sleep(0.3)


def run_attack(target: Target, kinds: list[str], seconds: float, counts: dict[str, int]) -> None:
    """Attack with each kind in a loop, at the same time, from this process."""

    async def run() -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(_repeat(KINDS[kind], target, until, counts) for kind in kinds))

    asyncio.run(run())


class Outcome(msgspec.Struct):
    """Times in ms; memory in bytes."""

    attacks: dict[str, int] = {}
    livez_ms: list[float] = []
    valid_ms: list[float] = []
    failures: list[str] = []
    memory_before: int = 0
    memory_after: int = 0
    memory_peak: int = 0
    threads_before: int = 0
    threads_after: int = 0
    collections: int = 0

    def problems(self, *, livez_p99_ms: float = LIVEZ_P99_MS) -> list[str]:
        found = [f"valid request: {failure}" for failure in self.failures[:5]]
        if (slow := percentile(self.livez_ms, 0.99)) > livez_p99_ms:
            found.append(f"/livez took {slow:.0f} ms at the 99th percentile")
        if (kept := self.memory_after - self.memory_before) > MEMORY_BYTES:
            found.append(f"{kept >> 20} MB more than at the start")
        if (more := self.threads_after - self.threads_before) > MORE_THREADS:
            found.append(f"{more} threads more than at the start")
        return found


def attack(service: RunningService, key: str, *, seconds: float, kinds: list[str]) -> Outcome:
    """Attack a running service and measure meanwhile."""
    outcome = Outcome()
    target = Target(service.url, key)
    pid = service.process.pid
    with service.client(key) as client:
        for _ in range(20):  # loads what is loaded at the first request
            _valid(client, outcome)
        outcome = Outcome(memory_before=tree_bytes(pid), threads_before=_threads(pid))
        with multiprocessing.get_context("spawn").Manager() as manager:
            counts = manager.dict()
            attacker = multiprocessing.get_context("spawn").Process(
                target=run_attack, args=(target, kinds, seconds, counts), daemon=True
            )
            attacker.start()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                _livez(service.url, outcome)
                _valid(client, outcome)
                outcome.memory_peak = max(outcome.memory_peak, tree_bytes(pid))
                time.sleep(0.03)
            attacker.join(60)
            outcome.attacks = dict(counts)
        time.sleep(2)
        outcome.memory_after, outcome.threads_after = tree_bytes(pid), _threads(pid)
        outcome.collections = len(client.get("/v1/rag/collections").json()["data"])
    return outcome


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _livez(url: str, outcome: Outcome) -> None:
    """Time ``/livez`` on a new connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    begin = time.perf_counter()
    try:
        connection.request("GET", "/livez")
        reply = connection.getresponse()
        if reply.status != 200:
            outcome.failures.append(f"/livez answered {reply.status}")
    except (OSError, http.client.HTTPException) as error:
        outcome.failures.append(f"/livez: {error!r}")
    finally:
        connection.close()
    outcome.livez_ms.append((time.perf_counter() - begin) * 1000)


def _valid(client: httpx.Client, outcome: Outcome) -> None:
    body = {"model": "local/chat-model", "use_rag": True, "messages": [{"role": "user", "content": "What is owed?"}]}
    begin = time.perf_counter()
    try:
        reply = client.post("/v1/chat/completions", json=body)
        if reply.status_code != 200:
            outcome.failures.append(f"{reply.status_code} {reply.text[:200]}")
    except httpx.TransportError as error:
        outcome.failures.append(repr(error))
    outcome.valid_ms.append((time.perf_counter() - begin) * 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        service = RunningService(data_dir, start_timeout_s=180)
        try:
            outcome = attack(service, key, seconds=options.seconds, kinds=kinds)
        finally:
            service.stop()
    problems = outcome.problems()
    figures = {
        "seconds": options.seconds,
        "attacks": outcome.attacks,
        "livez_ms": {
            "n": len(outcome.livez_ms),
            "p50": percentile(outcome.livez_ms, 0.5),
            "p99": percentile(outcome.livez_ms, 0.99),
            "max": max(outcome.livez_ms),
        },
        "valid_ms": {
            "n": len(outcome.valid_ms),
            "failed": len(outcome.failures),
            "p50": percentile(outcome.valid_ms, 0.5),
            "p99": percentile(outcome.valid_ms, 0.99),
        },
        "memory_mb": {
            "before": outcome.memory_before >> 20,
            "peak": outcome.memory_peak >> 20,
            "after": outcome.memory_after >> 20,
        },
        "threads": {"before": outcome.threads_before, "after": outcome.threads_after},
        "collections": outcome.collections,
        "problems": problems,
    }
    if options.json:
        print_json(figures)
    else:
        print(json.dumps(figures, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
