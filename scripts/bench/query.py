"""Latency of queries over HTTP: searches, the overhead of RAG chats, and 50 concurrent searches during an ingest.

    scripts/bench_query [--passages N] [--rounds N] [--seconds S] [--json]
    scripts/bench_query --base REV [--passages N] [--rounds N] [--seconds S] [--json]

Every question is new, so each is embedded. The overhead of a chat is its time minus the time of a direct request to the
same provider, which answers immediately. Kinds of requests are interleaved within a round.

With ``--base``, searches are compared with those of another revision (or of the checkout in a folder), whose service
holds the same passages. Both services are measured in turn within a round; the other one is idle then.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import create_key
from scripts.bench.base_revision import checked_out
from scripts.bench.closed_loop import drive, post
from scripts.bench.gateway import Server, provider_server, ragsvc
from scripts.bench.latency import WORDS, large_pdf
from scripts.bench.measuring import PeakMemory, mebibytes, median, print_json
from scripts.bench.restart import QUESTIONS, fill

_COLLECTION_OF_BATCH = "batch"
_BATCH_PAGES = 60


def questions(seed: int) -> Iterator[str]:
    """Questions about the reports, with random words so that repetitions are rare."""
    chance = random.Random(seed)  # noqa: S311 - words, not secrets
    for question in itertools.cycle(QUESTIONS):
        yield f"{question[:-1]} {' '.join(chance.choices(WORDS, k=2))}?"


def searches(key: str, seed: int, **options: object) -> Iterator[bytes]:
    return (post("/v1/rag/search", key, {"query": text, "top_k": 5, **options}) for text in questions(seed))


def chats(key: str, seed: int, *, model: str, **options: object) -> Iterator[bytes]:
    for text in questions(seed):
        body = {"model": model, "messages": [{"role": "user", "content": text}], **options}
        yield post("/v1/chat/completions", key, body)


def one_by_one(server: Server, provider: Server, *, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Medians over rounds of each kind's p50 and p99, one request at a time."""
    kinds: dict[str, tuple[int, Callable[[int], Iterator[bytes]]]] = {
        f"search {mode}": (server.port, lambda seed, mode=mode: searches(server.key, seed, mode=mode))
        for mode in ("hybrid", "dense", "lexical")
    }
    kinds["chat, provider directly"] = (provider.port, lambda seed: chats("x", seed, model="bench"))
    kinds["chat through ragsvc"] = (server.port, lambda seed: chats(server.key, seed, model="bench"))
    kinds["chat with use_rag"] = (server.port, lambda seed: chats(server.key, seed, model="bench", use_rag=True))
    kinds["chat, local answerer"] = (
        server.port,
        lambda seed: chats(server.key, seed, model="local/chat-model", use_rag=True),
    )
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for position, (name, (port, requests)) in enumerate(kinds.items()):
            figures = drive(port, requests(100 * number + position), streams=False, concurrency=1, seconds=seconds)
            if number:  # the first round warms up
                found[name].append(figures)
    return {
        name: {measure: median([figures[measure] for figures in of_rounds]) for measure in ("p50_ms", "p99_ms")}
        for name, of_rounds in found.items()
    }


def many_at_once(
    server: Server, *, rounds: int, seconds: float, concurrency: int, first_seed: int = 1000
) -> dict[str, dict[str, float]]:
    """Concurrent searches, idle and while four clients upload documents continuously."""
    phases: dict[str, list[dict[str, float]]] = {"idle": [], "ingest": []}
    serial = itertools.count(1)
    for number in range(rounds):
        stop = threading.Event()
        uploaders = [threading.Thread(target=_upload, args=(server, serial, stop)) for _ in range(4)]
        for phase, results in phases.items():
            if phase == "ingest":
                for uploader in uploaders:
                    uploader.start()
                stop.wait(2.0)  # until parsing and embedding run
            seed = first_seed + 10 * number + len(phase)
            requests = searches(server.key, seed)
            results.append(drive(server.port, requests, streams=False, concurrency=concurrency, seconds=seconds))
        stop.set()
        for uploader in uploaders:
            uploader.join()
    return {
        phase: {measure: median([figures[measure] for figures in results]) for measure in ("p50_ms", "p99_ms", "per_s")}
        for phase, results in phases.items()
    }


def _upload(server: Server, serial: Iterator[int], stop: threading.Event) -> None:
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/pdf"}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", headers=headers, timeout=60) as client:
        while not stop.is_set():
            client.post(
                "/v1/rag/documents",
                params={"wait_s": 30, "collection": _COLLECTION_OF_BATCH},
                content=large_pdf(_BATCH_PAGES, seed=next(serial)),
            ).raise_for_status()


_FILL = (
    "import sys, pathlib; from scripts.bench.restart import fill; fill(pathlib.Path(sys.argv[1]), {passages}, seed=1)"
)


def compare(base: str, *, passages: int, rounds: int, seconds: float, concurrency: int, as_json: bool) -> int:
    """Print medians over rounds of the base and of the present state, and their ratios."""
    measures: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        roots = {"base": stack.enter_context(checked_out(base)), "new": ROOT}
        provider = stack.enter_context(provider_server())
        servers: dict[str, Server] = {}
        memory: dict[str, PeakMemory] = {}
        for name, root in roots.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            create_key(folder / "data", root=root)
            fill_with = [sys.executable, "-W", "ignore", "-c", _FILL.format(passages=passages), str(folder / "data")]
            subprocess.run(fill_with, cwd=root, check=True)
            url = f"http://127.0.0.1:{provider.port}/v1"
            servers[name] = stack.enter_context(ragsvc(url, folder, root=root, name=name))
            memory[name] = stack.enter_context(PeakMemory(servers[name].pid))
        for number in range(rounds + 1):
            order = list(servers) if number % 2 else list(servers)[::-1]
            for mode in ("hybrid", "dense", "lexical"):
                for name in order:
                    server = servers[name]
                    requests = searches(server.key, 100 * number, mode=mode)
                    figures = drive(server.port, requests, streams=False, concurrency=1, seconds=seconds)
                    if number:  # the first round warms up
                        measures.setdefault((f"{mode}, one at a time, p50 ms", name), []).append(figures["p50_ms"])
            for name in order if number else ():
                crowd = many_at_once(
                    servers[name],
                    rounds=1,
                    seconds=2 * seconds,
                    concurrency=concurrency,
                    first_seed=10_000 * number,
                )
                for phase, figures in crowd.items():
                    kind = f"hybrid, {concurrency} at once, {phase}"
                    measures.setdefault((f"{kind}, p99 ms", name), []).append(figures["p99_ms"])
                    measures.setdefault((f"{kind}, searches/s", name), []).append(figures["per_s"])
    medians = {key: median(values) for key, values in measures.items()}
    rows = {
        kind: {"base": medians[kind, "base"], "new": value, "ratio": value / medians[kind, "base"]}
        for (kind, name), value in medians.items()
        if name == "new"
    }
    peaks = {name: sampler.peak_bytes for name, sampler in memory.items()}
    if as_json:
        print_json({"base": base, "passages": passages, "rounds": rounds, "rows": rows, "peak_bytes": peaks})
        return 0
    print(f"{passages} passages, each question new, medians of {rounds} interleaved rounds; base is {base}")
    for kind, row in rows.items():
        print(f"{kind:44s} base {row['base']:8.2f}  new {row['new']:8.2f}  ratio {row['ratio']:.2f}")
    print("peak memory: " + ", ".join(f"{name} {mebibytes(size)}" for name, size in peaks.items()))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--base", metavar="REV", help="compare searches with this revision")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.base:
        return compare(
            options.base,
            passages=options.passages,
            rounds=options.rounds,
            seconds=options.seconds,
            concurrency=options.concurrency,
            as_json=options.json,
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        create_key(folder / "data")  # creates the data directory before rows are written into it
        fill(folder / "data", options.passages, seed=1)
        with provider_server() as provider, ragsvc(f"http://127.0.0.1:{provider.port}/v1", folder) as server:
            alone = one_by_one(server, provider, rounds=options.rounds, seconds=options.seconds)
            with PeakMemory(server.pid) as memory:
                crowd = many_at_once(
                    server,
                    rounds=options.rounds,
                    seconds=3 * options.seconds,
                    concurrency=options.concurrency,
                )
    direct = alone["chat, provider directly"]["p50_ms"]
    overhead = {name: alone[name]["p50_ms"] - direct for name in ("chat through ragsvc", "chat with use_rag")}
    figures = {
        "passages": options.passages,
        "alone_ms": alone,
        "overhead_p50_ms": overhead,
        "concurrency": options.concurrency,
        "at_once": crowd,
        "peak_bytes": memory.peak_bytes,
    }
    if options.json:
        print_json(figures)
        return 0
    print(f"{options.passages} passages, {options.rounds} interleaved rounds, medians; ms over HTTP, each question new")
    for name, times in alone.items():
        print(f"{name:26s} p50 {times['p50_ms']:7.2f}  p99 {times['p99_ms']:7.2f}")
    for name, value in overhead.items():
        print(f"{name:26s} p50 {value:7.2f} more than the provider directly")
    for phase, times in crowd.items():
        print(
            f"{options.concurrency} concurrent searches, {phase:6s} p50 {times['p50_ms']:7.1f}  "
            f"p99 {times['p99_ms']:7.1f}  {times['per_s']:6.1f} searches/s"
        )
    print(f"peak memory of all processes {mebibytes(memory.peak_bytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
