"""Cost of encryption at rest: runs a plain and an encrypted service side by side and alternates each step between them.

    scripts/bench_at_rest [--rounds N] [--searches N] [--json]
    scripts/bench_at_rest --reading [--base REVISION] [--rounds N] [--ingesting] [--json]

A round starts with empty data directories. It ingests the fixture PDFs and texts one at a time, runs hybrid searches,
uploads a 20 MB text (until it is stored, without waiting for its passages), reads the text back, deletes it, and
restarts the service (until it is ready, and until its first answer). Search percentiles are over all rounds; other
figures are medians of rounds. Disk is the size of the data directory before the large text, without the embedding
model. Memory covers all processes of a service and the indexes that an encrypted service keeps on a file system in
memory.

``--reading`` measures only the reading of 20 MB: whole, and 64 KiB from the middle. With ``--base``, the services of
both revisions run side by side, and each round reads once from each of them. ``--ingesting`` reads a document while
its passages are embedded in place of a file. ``processor`` is the processor time of the service for reading the whole
file, which other processes of the machine disturb less. Memory is the growth of the service's peak over its size before
the first read.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.base_revision import checked_out
from scripts.bench.measuring import PeakMemory, mebibytes, median, percentile, print_json, thread_seconds, tree_bytes
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

    def __init__(self, name: str, folder: Path, models: Path, *, root: Path = ROOT) -> None:
        self.name = name
        self.root = root
        self.data_dir = folder / name
        self.memory_dir = Path(tempfile.mkdtemp(prefix="ragsvc-bench-", dir="/dev/shm"))
        self.env = {"RAGSVC_MEMORY_DIR": str(self.memory_dir)}
        if name == "encrypted":
            (folder / "master.key").write_text(os.urandom(32).hex())
            self.env["RAGSVC_MASTER_KEY_FILE"] = str(folder / "master.key")
        self.key = create_key(self.data_dir, settings=self.env, root=root)
        if models.exists():
            shutil.copytree(models, self.data_dir / "models")
        self.start()

    def start(self) -> None:
        self.service = RunningService(self.data_dir, env=self.env, start_timeout_s=120, root=self.root)
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


RANGE_BYTES = 64 << 10
READING_ROUNDS = 25
WHOLE, RANGE, PROCESSOR = "whole_ms", "range_ms", "processor_ms"


class Reader:
    """A keep-alive connection that reads 20 MB which a service stores."""

    def __init__(self, side: Side, content: bytes, *, ingesting: bool) -> None:
        self.side = side
        self.content = content
        self.times: dict[str, list[float]] = {WHOLE: [], RANGE: [], PROCESSOR: []}
        if ingesting:
            document = side.upload("large.txt", content, "text/plain", wait_s=0)["id"]
            self.path = f"/v1/rag/documents/{document}/content"
        else:
            files = {"file": ("large.bin", content, "application/octet-stream")}
            reply = side.client.post("/v1/files", data={"purpose": "user_data"}, files=files)
            self.path = f"/v1/files/{reply.raise_for_status().json()['id']}/content"
        address = urlsplit(side.service.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)

    def read(self, name: str, begin: int, end: int) -> None:
        headers = {"Authorization": f"Bearer {self.side.key}"}
        if name == RANGE:
            headers["Range"] = f"bytes={begin}-{end - 1}"
        since = time.perf_counter()
        self._connection.request("GET", self.path, headers=headers)
        back = self._connection.getresponse().read()
        self.times[name].append((time.perf_counter() - since) * 1000)
        if back != self.content[begin:end]:
            raise SystemExit(f"{self.side.name}: the downloaded bytes differ from the uploaded bytes")

    def read_both(self, number: int) -> None:
        begin = LARGE_BYTES // 2 + number * RANGE_BYTES // 3
        spent_s = thread_seconds(self.side.service.process.pid)
        self.read(WHOLE, 0, LARGE_BYTES)
        self.times[PROCESSOR].append((thread_seconds(self.side.service.process.pid) - spent_s) * 1000)
        self.read(RANGE, begin, begin + RANGE_BYTES)


def measure_reading(rounds: int, base: Path | None, *, ingesting: bool) -> dict[str, Any]:
    """Read in turn from a plain and an encrypted service of each revision; returns the medians and their ratios."""
    revisions = {"new": ROOT} if base is None else {"base": base, "new": ROOT}
    content = large_text(1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        readers: dict[str, Reader] = {}
        for revision, root in revisions.items():
            for kind in ("plain", "encrypted"):
                place = Path(folder, revision)
                place.mkdir(exist_ok=True)
                side = Side(kind, place, Path(folder, "models"), root=root)
                stack.callback(shutil.rmtree, side.memory_dir, ignore_errors=True)
                stack.callback(side.stop)
                readers[f"{revision}_{kind}"] = Reader(side, content, ingesting=ingesting)
        sizes = {name: tree_bytes(reader.side.service.process.pid) for name, reader in readers.items()}
        watches = {name: stack.enter_context(PeakMemory(r.side.service.process.pid)) for name, r in readers.items()}
        for number in range(rounds + 1):
            if number == 1:  # the first round warms up
                for reader in readers.values():
                    reader.times = {WHOLE: [], RANGE: [], PROCESSOR: []}
            order = list(readers.values())
            for reader in order[number % len(order) :] + order[: number % len(order)]:
                reader.read_both(number)
        grown = {name: watch.peak_bytes - sizes[name] for name, watch in watches.items()}
    medians = {name: {what: median(values) for what, values in r.times.items()} for name, r in readers.items()}
    ratios = {
        f"{revision}_{what.removesuffix('_ms')}": medians[f"{revision}_encrypted"][what]
        / medians[f"{revision}_plain"][what]
        for revision in revisions
        for what in (WHOLE, PROCESSOR, RANGE)
    }
    return {"rounds": rounds, "ms": medians, "encrypted_of_plain": ratios, "grown": grown}


def print_reading(found: dict[str, Any]) -> None:
    print(f"reading {LARGE_BYTES // 1_000_000} MB, medians of {found['rounds']} interleaved rounds")
    print(f"{'':16} {'whole':>9} {'processor':>9} {'64 KiB':>9}   memory grown by")
    for name, times in found["ms"].items():
        label = name.replace("_", " ")
        print(
            f"{label:16} {times[WHOLE]:6.1f} ms {times[PROCESSOR]:6.1f} ms {times[RANGE]:6.1f} ms"
            f"   {mebibytes(found['grown'][name])}"
        )
    for name, ratio in found["encrypted_of_plain"].items():
        print(f"encrypted / plain, {name.replace('_', ' ')}: {ratio:.2f}")
    for what in (WHOLE, PROCESSOR, RANGE):
        if "base_encrypted" in found["ms"]:
            for kind in ("plain", "encrypted"):
                ratio = found["ms"][f"base_{kind}"][what] / found["ms"][f"new_{kind}"][what]
                print(f"base / new, {kind} {what.removesuffix('_ms')}: {ratio:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"default: 3, or {READING_ROUNDS} with --reading")
    parser.add_argument("--reading", action="store_true", help="only read 20 MB")
    parser.add_argument("--ingesting", action="store_true", help="with --reading: while passages are embedded")
    parser.add_argument("--base", help="with --reading: a revision, or a folder with its files, to compare with")
    parser.add_argument("--searches", type=int, default=100, help="per side and round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.reading:
        with ExitStack() as stack:
            base = None if options.base is None else stack.enter_context(checked_out(options.base))
            reading = measure_reading(options.rounds or READING_ROUNDS, base, ingesting=options.ingesting)
        (print_json if options.json else print_reading)(reading)
        return 0
    options.rounds = options.rounds or 3
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
