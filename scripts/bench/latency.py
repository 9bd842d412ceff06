"""Latency of ``/v1/models``, search and a RAG chat, idle and while a 300-page PDF is ingested; phases are interleaved.

    scripts/bench_latency [--rounds N] [--json]
    scripts/bench_latency --base REV [--requests N] [--json]

With ``--base``, the median time of small requests is compared with that of another revision (or of the checkout in a
folder): single requests to both services alternate.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.base_revision import checked_out
from scripts.bench.gateway import provider_server, ragsvc
from scripts.bench.measuring import PeakMemory, mebibytes, median, percentile, print_json

_PAUSE_S = 0.01
_QUESTIONS = [
    "What were total net sales in the quarter?",
    "Which products drove services revenue?",
    "What are the main legal proceedings?",
    "How did operating income change?",
    "What does the company say about foreign currency risk?",
]
WORDS = (
    "revenue margin turbine ledger harbour quarterly segment operating foreign currency exchange product service "
    "shareholder dividend inventory supplier regulation market growth decline contract liability asset research"
).split()


def large_pdf(pages: int, seed: int) -> bytes:
    """A PDF whose lines all differ, so that every passage has to be embedded."""
    chance = random.Random(seed)  # noqa: S311 - text to read, not a secret
    return text_pdf([[" ".join(chance.choices(WORDS, k=11)) + "." for _ in range(45)] for _ in range(pages)])


class Probe:
    """Sends requests of each kind in turn and records their times in ms."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.times: dict[str, list[float]] = {"models": [], "search": [], "chat": []}
        self._number = 0

    def once(self) -> None:
        self._number += 1
        question = f"{_QUESTIONS[self._number % len(_QUESTIONS)]} ({self._number})"
        for _ in range(4):
            self._time("models", lambda: self._client.get("/v1/models"))
            time.sleep(_PAUSE_S)
        self._time("search", lambda: self._client.post("/v1/rag/search", json={"query": question, "top_k": 5}))
        body = {
            "model": "local/chat-model",
            "use_rag": True,
            "messages": [{"role": "user", "content": question}],
        }
        self._time("chat", lambda: self._client.post("/v1/chat/completions", json=body))
        time.sleep(_PAUSE_S)

    def _time(self, name: str, call) -> None:
        begin = time.perf_counter()
        reply = call()
        self.times[name].append((time.perf_counter() - begin) * 1000)
        if reply.status_code != 200:
            raise RuntimeError(f"{name}: status {reply.status_code}: {reply.text[:200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", metavar="REV", help="compare small requests with this revision")
    parser.add_argument("--requests", type=int, default=4000, help="of each kind to each service, with --base")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.base:
        return compare(options.base, requests=options.requests, as_json=options.json)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        service = RunningService(data_dir)
        try:
            with service.client(key) as client:
                phases = measure(client, options.rounds)
        finally:
            service.stop()
    figures = {
        phase: {
            name: {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "n": len(times)}
            for name, times in probe.times.items()
        }
        for phase, probe in phases.items()
    }
    if options.json:
        print_json(figures)
        return 0
    print(f"{options.rounds} interleaved rounds; ms; a 300-page PDF is ingested during 'ingest'")
    for name in ("models", "search", "chat"):
        idle, busy = figures["idle"][name], figures["ingest"][name]
        print(
            f"{name:8s} idle p50 {idle['p50']:6.2f} p99 {idle['p99']:6.2f} (n={idle['n']})   "
            f"ingest p50 {busy['p50']:6.2f} p99 {busy['p99']:6.2f} (n={busy['n']})"
        )
    bound = 2 * figures["idle"]["models"]["p99"] + 5
    print(
        f"/v1/models p99 during ingest {figures['ingest']['models']['p99']:.2f} ms; bound 2 x idle + 5 = {bound:.2f} ms"
    )
    return 0


class SmallRequests:
    """A connection to a service, and small requests of several kinds."""

    def __init__(self, url: str, key: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        question = [{"role": "user", "content": "hi"}]
        self.kinds: dict[str, tuple[str, str, str | None]] = {
            "GET /v1/models": ("GET", "/v1/models", None),
            "chat, local answerer": (*_CHAT, json.dumps({"model": "local/chat-model", "messages": question})),
            "chat through a provider": (*_CHAT, json.dumps({"model": "bench", "messages": question})),
        }

    def send(self, kind: str) -> float:
        """Send a request and read the answer; returns the time in microseconds."""
        method, path, body = self.kinds[kind]
        begin = time.perf_counter()
        self._connection.request(method, path, body=body, headers=self._headers)
        reply = self._connection.getresponse()
        text = reply.read()
        took = (time.perf_counter() - begin) * 1e6
        if reply.status != 200:
            raise RuntimeError(f"{kind}: status {reply.status}: {text[:200]!r}")
        return took


_CHAT = ("POST", "/v1/chat/completions")


def compare(base: str, *, requests: int, as_json: bool) -> int:
    """Print the median times of small requests of the base and of the present state, and their ratio."""
    with ExitStack() as stack:
        roots = {"base": stack.enter_context(checked_out(base)), "new": ROOT}
        provider = stack.enter_context(provider_server())
        services: dict[str, SmallRequests] = {}
        memory: dict[str, PeakMemory] = {}
        for name, root in roots.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = stack.enter_context(ragsvc(f"http://127.0.0.1:{provider.port}/v1", folder, root=root))
            services[name] = SmallRequests(f"http://127.0.0.1:{server.port}", server.key)
            memory[name] = stack.enter_context(PeakMemory(server.pid))
        kinds = list(services["new"].kinds)
        times: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in kinds for name in services}
        warm_up = max(100, requests // 10)
        for number in range(requests + warm_up):
            order = list(services) if number % 2 else list(services)[::-1]
            for kind in kinds:
                for name in order:
                    took = services[name].send(kind)
                    if number >= warm_up:
                        times[kind, name].append(took)
    figures: dict[str, Any] = {}
    for kind in kinds:
        p50 = {name: median(times[kind, name]) for name in services}
        p25 = {name: percentile(times[kind, name], 0.25) for name in services}
        figures[kind] = {
            "base_p50_us": p50["base"],
            "new_p50_us": p50["new"],
            "p50_ratio": p50["new"] / p50["base"],
            "p25_ratio": p25["new"] / p25["base"],
        }
    peaks = {name: sampler.peak_bytes for name, sampler in memory.items()}
    if as_json:
        print_json({"base": base, "requests": requests, "kinds": figures, "peak_bytes": peaks})
        return 0
    print(f"{requests} requests of each kind to each service, alternating; one connection each; base is {base}")
    for kind, figure in figures.items():
        print(
            f"{kind:26s} p50 base {figure['base_p50_us']:6.0f} us, new {figure['new_p50_us']:6.0f} us, "
            f"ratio {figure['p50_ratio']:.3f} (p25 {figure['p25_ratio']:.3f})"
        )
    print("peak memory: " + ", ".join(f"{name} {mebibytes(size)}" for name, size in peaks.items()))
    return 0


def measure(client: httpx.Client, rounds: int) -> dict[str, Probe]:
    for file in sorted((ROOT / "fixtures" / "documents").glob("*.pdf")):
        client.post(
            "/v1/rag/documents",
            params={"filename": file.name},
            content=file.read_bytes(),
            headers={"content-type": "application/pdf"},
        ).raise_for_status()
    warm = Probe(client)
    for _ in range(30):
        warm.once()
    phases = {"idle": Probe(client), "ingest": Probe(client)}
    for number in range(rounds):
        for _ in range(150):
            phases["idle"].once()
        document = client.post(
            "/v1/rag/documents",
            params={"wait_s": 0},
            content=large_pdf(300, seed=number),
            headers={"content-type": "application/pdf"},
        ).json()
        while client.get(f"/v1/rag/documents/{document['id']}").json()["status"] in ("queued", "processing"):
            phases["ingest"].once()
    return phases


if __name__ == "__main__":
    sys.exit(main())
