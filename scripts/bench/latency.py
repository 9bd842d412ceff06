"""Latency of ``/v1/models``, search and a RAG chat, idle and while a 300-page PDF is ingested; phases are interleaved.

scripts/bench_latency [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import percentile, print_json

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
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
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
