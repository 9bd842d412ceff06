"""Time that ``file_search`` of the Responses API adds to the same chat with ``use_rag``, in one service.

    scripts/bench_responses [--documents N] [--rounds N] [--json]

The requests alternate, so that the load of the machine is the same for all. The built-in model answers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import median, percentile, print_json

_MODEL = "local/chat-model"
_CITIES = ("Bergen", "Lisbon", "Tallinn", "Porto", "Gdansk", "Aarhus", "Turku", "Bari")


def fill(client: httpx.Client, documents: int) -> str:
    """Upload documents, and return the id of their vector store."""
    for number in range(documents):
        city = f"{_CITIES[number % len(_CITIES)]} {number}"
        text = f"The harbour of {city} handled {1000 + number} ships in 2021. Its lamp burns {number + 7} litres a day."
        headers = {"content-type": "text/plain"}
        reply = client.post("/v1/rag/documents", params={"filename": f"{number}.txt"}, content=text, headers=headers)
        assert reply.status_code == 201, reply.text
    stores = client.get("/v1/vector_stores").json()["data"]
    return str(stores[0]["id"])


def measure(client: httpx.Client, store: str, *, documents: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of request."""
    tool = {"type": "file_search", "vector_store_ids": [store]}

    def requests(question: str) -> dict[str, tuple[str, dict[str, Any]]]:
        asked = {"model": _MODEL, "input": question, "tools": [tool]}
        chat = {"model": _MODEL, "use_rag": True, "messages": [{"role": "user", "content": question}]}
        return {
            "chat with use_rag": ("/v1/chat/completions", chat),
            "file_search, not stored": ("/v1/responses", {**asked, "store": False}),
            "file_search, stored": ("/v1/responses", asked),
        }

    times: dict[str, list[float]] = {name: [] for name in requests("")}
    for round_number in range(rounds + 5):
        number = round_number % documents
        question = f"How many ships did the harbour of {_CITIES[number % len(_CITIES)]} {number} handle in 2021?"
        pairs = list(requests(question).items())
        turn = round_number % len(pairs)
        for name, (path, body) in pairs[turn:] + pairs[:turn]:  # none is always the first with a question
            begin = time.perf_counter()
            reply = client.post(path, json=body)
            elapsed = (time.perf_counter() - begin) * 1000
            assert reply.status_code == 200, reply.text
            if round_number >= 5:
                times[name].append(elapsed)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir, tenant="acme")
        service = RunningService(data_dir)
        try:
            with service.client(key) as client:
                store = fill(client, options.documents)
                times = measure(client, store, documents=options.documents, rounds=options.rounds)
        finally:
            service.stop()
    base = median(times["chat with use_rag"])
    report = {
        name: {
            "p50_ms": round(median(values), 2),
            "p95_ms": round(percentile(values, 0.95), 2),
            "added_p50_ms": round(median(values) - base, 2),
        }
        for name, values in times.items()
    }
    if options.json:
        print_json({"rounds": options.rounds, "requests": report})
    else:
        for name, values in report.items():
            print(f"{name:26}", *(f"{value:8.2f} {label}" for label, value in values.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
