"""Upload every PDF in some folders to one service; report the outcome of each file and the memory kept afterwards.

scripts/bench_corpus FOLDER... [--json]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import httpx

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import PeakMemory, mebibytes, print_json, tree_bytes

_SETTLE_S = 75  # idle parser children end after a minute


def _document(client: httpx.Client, reply: httpx.Response) -> dict:
    """The document of an upload, also if it was stored and cannot be read."""
    if reply.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        return client.get(reply.headers["location"]).json()
    return reply.json()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcomes: dict[str, Counter[str]] = {}
    failures: list[tuple[str, str, str]] = []
    unfinished: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        service = RunningService(data_dir)
        try:
            pid = service.process.pid
            with service.client(key) as client, PeakMemory(pid, every_s=0.3) as memory:
                client.timeout = 900
                warm_up(client)
                before = tree_bytes(pid)
                begin = time.monotonic()
                for number, root in enumerate(options.folders):
                    files = sorted(root.rglob("*.pdf"))

                    def upload(file: Path, collection: str = f"folder-{number}") -> tuple[Path, dict]:
                        reply = client.post(
                            "/v1/rag/documents",
                            params={"filename": file.name, "wait_s": 600, "collection": collection},
                            content=file.read_bytes(),
                            headers={"content-type": "application/pdf"},
                        )
                        return file, _document(client, reply)

                    counts: Counter[str] = Counter()
                    with ThreadPoolExecutor(4) as pool:
                        for file, document in pool.map(upload, files):
                            status = document.get("status", "refused")
                            counts[status] += 1
                            if status == "failed":
                                error = document["error"]
                                failures.append((file.name, error["code"], error["message"]))
                            elif status != "ready":
                                unfinished.append(f"{file.name}: {document}")
                    counts["files"] = len(files)
                    outcomes[str(root.name)] = counts
                seconds = time.monotonic() - begin
                time.sleep(_SETTLE_S)
                after = tree_bytes(pid)
            alive = service.process.poll() is None
        finally:
            service.stop()
    figures = {
        "outcomes": {name: dict(counts) for name, counts in outcomes.items()},
        "failures": failures,
        "unfinished": unfinished,
        "seconds": seconds,
        "memory_before_bytes": before,
        "memory_peak_bytes": memory.peak_bytes,
        "memory_after_bytes": after,
        "service_alive": alive,
    }
    if options.json:
        print_json(figures)
        return 0
    for name, counts in outcomes.items():
        print(f"{name}: {dict(counts)}")
    for name, code, message in failures:
        print(f"  failed {name}: {code}: {message}")
    for line in unfinished:
        print(f"  UNFINISHED {line}")
    print(
        f"{seconds:.0f} s; memory of all processes: before {mebibytes(before)}, peak {mebibytes(memory.peak_bytes)}, "
        f"after {mebibytes(after)} ({mebibytes(after - before)} more); service alive: {alive}"
    )
    return 0 if alive and not unfinished and after - before <= 200 << 20 else 1


def warm_up(client) -> None:
    """Make the service load what a first document needs: a parser child, the bulk embedding session, an index."""
    client.post(
        "/v1/rag/documents",
        params={"collection": "warm-up"},
        content=b"A text to begin with.",
        headers={"content-type": "text/plain"},
    ).raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
