"""Cost of encryption at rest: runs a plain and an encrypted service side by side and alternates each step between them.

    scripts/bench_at_rest [--rounds N] [--searches N] [--json]

A round starts with empty data directories. It ingests the fixture PDFs and texts one at a time, runs hybrid searches,
uploads a 20 MB text (until it is stored, without waiting for its passages), reads the text back, deletes it, and
restarts the service (until it is ready, and until its first answer). Search percentiles are over all rounds; other
figures are medians of rounds. Disk is the size of the data directory before the large text, without the embedding
model. Memory covers all processes of a service and the indexes that an encrypted service keeps on a file system in
memory.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import PeakMemory, median, percentile, print_json
from scripts.bench.restart import QUESTIONS

DOCUMENTS = ROOT / "fixtures" / "documents"
FILES = [
    DOCUMENTS / "two-columns.pdf",
    DOCUMENTS / "outline.pdf",
    DOCUMENTS / "languages.pdf",
    DOCUMENTS / "attachment.pdf",
    ROOT / "docs" / "techniques.md",
    ROOT / "fixtures" / "SOURCES.md",
]
SAMPLE_TYPES = {".pdf": "application/pdf", ".md": "text/plain"}
LARGE_BYTES = 20_000_000
WARM_UP = 5
UNITS = {
    "ingest_s": "s",
    "search_p50_ms": "ms",
    "search_p99_ms": "ms",
    "upload_20_mb_s": "s",
    "read_20_mb_s": "s",
    "restart_ready_s": "s",
    "restart_answer_s": "s",
    "disk_mib": "MiB",
    "peak_memory_mib": "MiB",
}


class Side:
    """A service, plain or encrypted, with its data directory."""

    def __init__(self, name: str, folder: Path, models: Path) -> None:
        self.name = name
        self.data_dir = folder / name
        self.memory_dir = Path(tempfile.mkdtemp(prefix="ragsvc-bench-", dir="/dev/shm"))
        self.env = {"RAGSVC_MEMORY_DIR": str(self.memory_dir)}
        if name == "encrypted":
            (folder / "master.key").write_text(os.urandom(32).hex())
            self.env["RAGSVC_MASTER_KEY_FILE"] = str(folder / "master.key")
        self.key = create_key(self.data_dir, settings=self.env)
        if models.exists():
            shutil.copytree(models, self.data_dir / "models")
        self.start()

    def start(self) -> None:
        self.service = RunningService(self.data_dir, env=self.env, start_timeout_s=120)
        self.client = self.service.client(self.key)

    def stop(self) -> None:
        self.client.close()
        self.service.stop()

    def upload(self, name: str, content: bytes, media_type: str, *, wait_s: int) -> dict[str, Any]:
        reply = self.client.post(
            "/v1/rag/documents",
            params={"filename": name, "wait_s": wait_s},
            content=content,
            headers={"content-type": media_type},
        )
        document = reply.json()
        if not reply.is_success or (wait_s and document.get("status") != "ready"):
            raise SystemExit(f"{self.name}: {name}: {document}")
        return document

    def search(self, query: str) -> None:
        reply = self.client.post("/v1/rag/search", json={"query": query, "mode": "hybrid"})
        if not reply.is_success or not reply.json()["data"]:
            raise SystemExit(f"{self.name}: a search found nothing")

    def restart(self) -> dict[str, float]:
        self.stop()
        begin = time.perf_counter()
        self.start()
        ready = time.perf_counter() - begin
        self.search(QUESTIONS[0])
        return {"restart_ready_s": ready, "restart_answer_s": time.perf_counter() - begin}

    def disk_bytes(self) -> int:
        return size(self.data_dir) - size(self.data_dir / "models")


class MemoryFiles(threading.Thread):
    """Samples the size of a folder on a file system in memory; ``peak_bytes`` is the largest size seen."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.peak_bytes = 0
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.2):
            self.peak_bytes = max(self.peak_bytes, size(self.folder))


def size(folder: Path) -> int:
    """Total size of the files below a folder. Files that disappear during the walk are skipped."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def large_text(seed: int) -> bytes:
    """20 MB of words of the documentation in random order, different in each round."""
    words = (ROOT / "docs" / "techniques.md").read_text().split()
    chance = random.Random(seed)  # noqa: S311 - a text, not a secret
    text = " ".join(chance.choices(words, k=LARGE_BYTES // 4)).encode()
    return text[:LARGE_BYTES].decode(errors="ignore").encode().ljust(LARGE_BYTES)


def send_large(side: Side, found: dict[str, float], name: str, content: bytes) -> None:
    """Upload the large text, read it back, compare it, and delete it."""
    begin = time.perf_counter()
    document = side.upload(name, content, "text/plain", wait_s=0)["id"]
    found["upload_20_mb_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    back = side.client.get(f"/v1/rag/documents/{document}/content").content
    found["read_20_mb_s"] = time.perf_counter() - begin
    if back != content:
        raise SystemExit(f"{side.name}: the downloaded text differs from the uploaded text")
    side.client.post(f"/v1/rag/documents/{document}/delete").raise_for_status()


def ingest(sides: list[Side], found: dict[str, dict[str, float]], number: int) -> None:
    """Ingest the small files one by one; the sides alternate in going first."""
    for turn, file in enumerate(FILES, start=number):
        content, kind = file.read_bytes(), SAMPLE_TYPES[file.suffix]
        for side in in_turn(sides, turn):
            begin = time.perf_counter()
            side.upload(file.name, content, kind, wait_s=120)
            found[side.name]["ingest_s"] += time.perf_counter() - begin


def search(sides: list[Side], number: int, searches: int) -> dict[str, list[float]]:
    """Search on both sides; returns the times of each side in ms."""
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for turn in range(searches + WARM_UP):
        query = f"{QUESTIONS[turn % len(QUESTIONS)]} ({number}.{turn})"
        for side in in_turn(sides, turn):
            begin = time.perf_counter()
            side.search(query)
            if turn >= WARM_UP:
                times[side.name].append((time.perf_counter() - begin) * 1000)
    return times


def in_turn(sides: list[Side], turn: int) -> list[Side]:
    return sides[:: 1 if turn % 2 else -1]


def run_round(
    number: int, folder: Path, models: Path, searches: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Run one round; returns the figures and the search times (ms) of each side."""
    sides = [Side(name, folder, models) for name in ("plain", "encrypted")]
    found: dict[str, dict[str, float]] = {side.name: {"ingest_s": 0.0} for side in sides}
    try:
        memory = [PeakMemory(side.service.process.pid, every_s=0.5) for side in sides]
        files = [MemoryFiles(side.memory_dir) for side in sides]
        with memory[0], memory[1]:
            ingest(sides, found, number)
            times = search(sides, number, searches)
            for side in sides:
                found[side.name]["disk_mib"] = side.disk_bytes() / (1 << 20)
            content = large_text(number)
            for side in in_turn(sides, number):
                send_large(side, found[side.name], f"large-{number}.txt", content)
        for side, processes, in_memory in zip(sides, memory, files, strict=True):
            in_memory.done.set()
            found[side.name]["peak_memory_mib"] = (processes.peak_bytes + in_memory.peak_bytes) / (1 << 20)
        if not models.exists():
            shutil.copytree(sides[0].data_dir / "models", models)
        for side in in_turn(sides, number):
            found[side.name] |= side.restart()
    finally:
        for side in sides:
            side.stop()
            shutil.rmtree(side.memory_dir, ignore_errors=True)
    return found, times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--searches", type=int, default=100, help="per side and round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds: list[dict[str, dict[str, float]]] = []
    seconds: list[float] = []
    times: dict[str, list[float]] = {"plain": [], "encrypted": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            begin = time.perf_counter()
            place = Path(folder) / str(number)
            place.mkdir()
            found, searched = run_round(number, place, Path(folder) / "models", options.searches)
            for name, values in searched.items():
                found[name] |= {"search_p50_ms": median(values), "search_p99_ms": percentile(values, 0.99)}
                times[name] += values
            rounds.append(found)
            shutil.rmtree(place)
            seconds.append(time.perf_counter() - begin)
    rows = {}
    for name in UNITS:
        plain, encrypted = ([figures[side][name] for figures in rounds] for side in ("plain", "encrypted"))
        ratios = [b / a for a, b in zip(plain, encrypted, strict=True)]
        row = {"plain": median(plain), "encrypted": median(encrypted)}
        rows[name] = {**row, "ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    for name, share in (("search_p50_ms", 0.5), ("search_p99_ms", 0.99)):  # over all rounds, for more values
        plain_ms, encrypted_ms = percentile(times["plain"], share), percentile(times["encrypted"], share)
        rows[name] |= {"plain": plain_ms, "encrypted": encrypted_ms, "ratio": encrypted_ms / plain_ms}
    if options.json:
        print_json({"rounds": options.rounds, "searches": len(times["plain"]), "round_s": median(seconds), **rows})
        return 0
    print(
        f"{len(FILES)} documents, {len(times['plain'])} hybrid searches per side, {options.rounds} interleaved rounds"
        f" of about {median(seconds):.0f} s"
    )
    print(f"{'':18} {'plain':>10} {'encrypted':>10}       {'ratio':>6}  (range of rounds)")
    for name, row in rows.items():
        label = name.removesuffix("_" + UNITS[name].lower()).replace("_", " ")
        spread = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        values = f"{row['plain']:10.3f} {row['encrypted']:10.3f} {UNITS[name]:4}"
        print(f"{label:18} {values}  {row['ratio']:6.2f}  {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
