"""Searches over HTTP in large collections: alone, restricted to few documents, many at once; adding and deleting.

    scripts/bench_large_collection [--passages N…] [--rounds N] [--seconds S] [--concurrency N] [--json]

The rows are written directly into the store (see ``scripts/bench_restart``): real words, and vectors near those of real
passages. Questions are embedded by the model, and each is new. The time of adding is that from the upload of a page of
text until its document is ready, and of deleting that of the request. All sizes are measured by the same calls, so that
their ratios show what grows with the collection.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.closed_loop import drive
from scripts.bench.latency import WORDS
from scripts.bench.measuring import PeakMemory, mebibytes, median, print_json
from scripts.bench.query import searches
from scripts.bench.restart import fill

_PER_DOCUMENT = 100
_RESTRICTED_SHARE = 0.001
_LOAD_TIMEOUT_S = 1800.0


def restricted(key: str, seed: int, documents: int) -> Iterator[bytes]:
    """Searches in a thousandth of the documents, others each time."""
    chance = random.Random(seed)  # noqa: S311 - a choice of documents, not a secret
    count = max(1, int(documents * _RESTRICTED_SHARE))
    for number in itertools.count():
        chosen = [f"doc_{chance.randrange(documents):08d}" for _ in range(count)]
        yield next(searches(key, seed + number, document_ids=chosen))


def add_and_delete(client: httpx.Client, number: int) -> tuple[float, float]:
    """Milliseconds until an added document is ready, and of its deletion."""
    chance = random.Random(number)  # noqa: S311 - words, not secrets
    text = " ".join(chance.choices(WORDS, k=120)) + f" {number}."
    begin = time.perf_counter()
    added = client.post(
        "/v1/rag/documents",
        params={"filename": f"note-{number}.txt", "wait_s": 60},
        content=text.encode(),
        headers={"content-type": "text/plain"},
    ).raise_for_status()
    ready = time.perf_counter()
    client.delete(f"/v1/rag/documents/{added.json()['id']}").raise_for_status()
    return (ready - begin) * 1000, (time.perf_counter() - ready) * 1000


def measure(passages: int, *, rounds: int, seconds: float, concurrency: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name) / "data"
        key = create_key(data_dir)
        begin = time.perf_counter()
        fill(data_dir, passages, seed=1)
        print(f"{passages} passages written in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        service = RunningService(data_dir, start_timeout_s=_LOAD_TIMEOUT_S)
        try:
            with service.client(key) as client, PeakMemory(service.process.pid) as memory:
                begin = time.perf_counter()
                client.post("/v1/rag/search", json={"query": "first"}, timeout=_LOAD_TIMEOUT_S).raise_for_status()
                figures: dict[str, float] = {"first_search_s": time.perf_counter() - begin}
                port = int(service.url.rsplit(":", 1)[1])
                of_rounds: dict[str, list[float]] = {}
                for number in range(rounds + 1):
                    seed = 1000 * number
                    kinds: dict[str, tuple[Iterator[bytes], int, str]] = {
                        "hybrid_p50_ms": (searches(key, seed), 1, "p50_ms"),
                        "restricted_p50_ms": (restricted(key, seed + 1, passages // _PER_DOCUMENT), 1, "p50_ms"),
                        f"{concurrency}_at_once_p99_ms": (searches(key, seed + 2), concurrency, "p99_ms"),
                    }
                    for kind, (requests, clients, measured) in kinds.items():
                        found = drive(port, requests, streams=False, concurrency=clients, seconds=seconds)
                        if number:  # the first round warms up
                            of_rounds.setdefault(kind, []).append(found[measured])
                    for turn in range(4):
                        added, deleted = add_and_delete(client, 10 * number + turn)
                        if number:
                            of_rounds.setdefault("add_ms", []).append(added)
                            of_rounds.setdefault("delete_ms", []).append(deleted)
                figures |= {kind: median(values) for kind, values in of_rounds.items()}
        finally:
            service.stop()
        return {**figures, "peak_bytes": float(memory.peak_bytes)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes: list[int] = sorted(options.passages)
    rows: dict[int, dict[str, Any]] = {
        size: measure(size, rounds=options.rounds, seconds=options.seconds, concurrency=options.concurrency)
        for size in sizes
    }
    if options.json:
        print_json({"rows": rows})
        return 0
    for size, row in rows.items():
        figures = ", ".join(f"{kind} {value:.2f}" for kind, value in row.items() if kind != "peak_bytes")
        print(f"{size} passages: {figures}; peak memory {mebibytes(row['peak_bytes'])}")
    first, last = rows[sizes[0]], rows[sizes[-1]]
    for kind in ("add_ms", "delete_ms"):
        print(f"{kind[:-3]} at {sizes[-1]} against {sizes[0]} passages: {last[kind] / first[kind]:.2f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
