"""Ingest one-line notes with this revision and an older one, interleaved; prints files/s, bytes and processor time.

    scripts/bench_small_files --base REV [--notes N] [--rounds N] [--clients N] [--json]

Each round uploads the notes over HTTP (a few clients, which do not wait for the ingest), and ingests a folder of other
notes with ``ragsvc ingest``, in a fresh data directory of each revision. The time ends when all notes are ready. Bytes
are ``write_bytes`` of the service and its child processes, so a rewritten page counts again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key, service_environment
from scripts.bench.base_revision import checked_out
from scripts.bench.measuring import PeakMemory, Usage, mebibytes, median, print_json

_CITIES = ("Bergen", "Lisbon", "Tallinn", "Porto", "Gdansk", "Aarhus", "Turku", "Bari")
_PARTS = ("lamp", "crane", "mooring line", "fog horn", "ferry ramp", "tide gauge", "radio mast", "fuel pump")
_DEEDS = ("was replaced", "was painted", "failed its test", "was measured", "was moved to the east pier", "was oiled")


def notes(count: int, *, seed: int) -> list[str]:
    """One-line notes, no two equal."""
    chosen = random.Random(seed)  # noqa: S311 - no secrets
    return [
        f"{2000 + number % 25}-{1 + number % 12:02d}: the {chosen.choice(_PARTS)} no. {seed}{number:04d} of "
        f"{chosen.choice(_CITIES)} harbour {chosen.choice(_DEEDS)} after {chosen.randint(2, 900)} days of use.\n"
        for number in range(count)
    ]


def folder_bytes(folder: Path) -> int:
    """Bytes of the blocks of all files of a folder."""
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def upload(service: RunningService, key: str, texts: list[str], clients: int) -> None:
    """Upload texts, each client with a connection of its own, and return when all are ready."""

    def send(mine: list[tuple[int, str]]) -> None:
        with service.client(key) as client:
            for number, text in mine:
                reply = client.post(
                    "/v1/rag/documents",
                    params={"filename": f"note-{number}.txt", "wait_s": 0},
                    content=text,
                    headers={"content-type": "text/plain"},
                )
                assert reply.status_code == 202, reply.text

    numbered = list(enumerate(texts))
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, [numbered[first::clients] for first in range(clients)]))
    with service.client(key) as client:
        wait_until_ready(client, len(texts))


def wait_until_ready(client: httpx.Client, count: int) -> None:
    """Poll rarely: a poll costs the service a millisecond."""
    while True:
        counts = client.get("/v1/rag/documents", params={"limit": 1, "status": "queued,processing,failed"}).json()
        if not counts["data"]:
            return
        assert counts["data"][0]["status"] != "failed", counts["data"][0]
        time.sleep(0.1)


def ingest_folder(root: Path, service: RunningService, key: str, folder: Path, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ragsvc", "ingest", str(folder), "--url", service.url, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env=service_environment(service.data_dir, {"RAGSVC_API_KEY": key}),
    )
    report = json.loads(done.stdout)
    assert report["counts"] == {"added": count}, (report["counts"], done.stderr[-2000:])


def measure(root: Path, models: Path, folder: Path, options: argparse.Namespace, *, seed: int) -> dict[str, Any]:
    """One round of one revision."""
    data_dir = folder / "data"
    shutil.rmtree(data_dir, ignore_errors=True)
    key = create_key(data_dir, root=root)
    shutil.copytree(models, data_dir / "models")
    source = folder / "notes"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for number, text in enumerate(notes(options.notes, seed=seed + 1)):
        (source / f"note-{number}.txt").write_text(text)
    texts = notes(options.notes, seed=seed)
    figures: dict[str, Any] = {}
    service = RunningService(data_dir, root=root, env=options.env)
    try:
        upload(service, key, ["The first document starts a child process and opens the indexes.\n"], 1)
        with PeakMemory(service.process.pid, every_s=1.0) as memory:
            for name, work in {
                "http": lambda: upload(service, key, texts, options.clients),
                "folder": lambda: ingest_folder(root, service, key, source, options.notes),
            }.items():
                size = folder_bytes(data_dir)
                begin = time.perf_counter()
                with Usage(service.process.pid) as usage:
                    work()
                    seconds = time.perf_counter() - begin
                written, processor_s = usage.totals
                figures[name] = {
                    "files_per_s": options.notes / seconds,
                    "written_bytes": written / options.notes,
                    "processor_ms": 1000 * processor_s / options.notes,
                    "stored_bytes": (folder_bytes(data_dir) - size) / options.notes,
                }
    finally:
        service.stop()
    return {**figures, "peak_bytes": memory.peak_bytes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="revision, or folder of a revision, to compare with")
    parser.add_argument("--notes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--setting", action="append", default=[], help="NAME=VALUE of the services' environment")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.env = dict(setting.split("=", 1) for setting in options.setting)
    runs: dict[str, list[dict[str, Any]]] = {"new": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        RunningService(folder / "first").stop()
        models = folder / "first" / "models"
        if options.base is None:
            for number in range(options.rounds):
                runs["new"].append(measure(ROOT, models, folder, options, seed=10 * number))
        else:
            runs["base"] = []
            with checked_out(options.base) as base:
                for number in range(options.rounds):
                    runs["base"].append(measure(base, models, folder, options, seed=10 * number))
                    runs["new"].append(measure(ROOT, models, folder, options, seed=10 * number))
    figures = summary(runs)
    if options.json:
        print_json({"notes": options.notes, "rounds": options.rounds, "clients": options.clients, **figures})
        return 0
    print(f"{options.notes} one-line notes, {options.rounds} interleaved rounds, {options.clients} clients, medians")
    for way in ("http", "folder"):
        for revision, values in figures[way].items():
            if revision != "ratio":
                print(
                    f"{way:7} {revision:5} {values['files_per_s']:7.1f} files/s  "
                    f"{values['written_bytes'] / 1000:7.1f} kB written a note  "
                    f"{values['processor_ms']:6.1f} ms of processor  {values['stored_bytes'] / 1000:6.1f} kB stored"
                )
        if "ratio" in figures[way]:
            print(f"{way:7} ratio {' '.join(f'{name} {value:.2f}' for name, value in figures[way]['ratio'].items())}")
    print("peak memory " + ", ".join(f"{name} {mebibytes(size)}" for name, size in figures["peak_bytes"].items()))
    return 0


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians of each revision, and the medians of the ratios new / base of the rounds."""
    figures: dict[str, Any] = {}
    for way in ("http", "folder"):
        names = runs["new"][0][way]
        figures[way] = {
            revision: {name: median([run[way][name] for run in rounds]) for name in names}
            for revision, rounds in runs.items()
        }
        if "base" in runs:
            pairs = list(zip(runs["new"], runs["base"], strict=True))
            figures[way]["ratio"] = {
                name: median([new[way][name] / old[way][name] for new, old in pairs]) for name in names
            }
    figures["peak_bytes"] = {revision: max(run["peak_bytes"] for run in rounds) for revision, rounds in runs.items()}
    return figures


if __name__ == "__main__":
    sys.exit(main())
