"""Ingest the same PDFs through ragsvc over HTTP and through the plain stack, interleaved; prints the ratio of pages/s.

    scripts/bench_ingest [FOLDER] [--rounds N] [--pages N] [--base REV] [--json]

Each round also ingests with ``RAGSVC_EMBEDDED_TEXT=whole``, and embeds the same passages with the embedder alone. The
ratio of the two speeds is the share of time that parsing, storing and indexing leave to the model.

With ``--base``, the PDFs are ingested with this revision and another one instead; see ``ingest_against_base``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pypdf import PdfReader
from pypdf.errors import PyPdfError

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.ingest_against_base import compare, report
from scripts.bench.measuring import PeakMemory, mebibytes, median, print_json


def choose(folder: Path, pages: int) -> tuple[list[Path], list[Path]]:
    """Files in order of name with ``pages`` pages in total, and the files that pypdf refuses, which are skipped."""
    chosen: list[Path] = []
    refused: list[Path] = []
    total = 0
    for file in sorted(folder.rglob("*.pdf")):
        if total >= pages:
            break
        try:
            count = len(PdfReader(file).pages)
        except PyPdfError:
            refused.append(file)
            continue
        chosen.append(file)
        total += count
    return chosen, refused


def run_program(name: str, arguments: list[Path]) -> dict:
    """Run a program of this folder; returns the JSON that it prints."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def export_model(folder: Path) -> Path:
    """Export the embedding model with a first start of a service, so that no round includes the export."""
    RunningService(folder / "first").stop()
    return folder / "first" / "models"


def run_ragsvc(files: list[Path], models: Path, folder: Path, *, embedded_text: str) -> dict:
    data_dir = folder / "data"
    shutil.rmtree(data_dir, ignore_errors=True)
    key = create_key(data_dir)
    shutil.copytree(models, data_dir / "models")
    service = RunningService(data_dir, env={"RAGSVC_EMBEDDED_TEXT": embedded_text})
    try:
        with PeakMemory(service.process.pid, every_s=2.0) as memory, service.client(key) as client:
            client.timeout = 900
            begin = time.perf_counter()

            def upload(file: Path) -> dict:
                reply = client.post(
                    "/v1/rag/documents",
                    params={"filename": file.name, "wait_s": 600},
                    content=file.read_bytes(),
                    headers={"content-type": "application/pdf"},
                )
                document = reply.json()
                if document.get("status") != "ready":
                    raise RuntimeError(f"{file.name}: {document}")
                return document

            with ThreadPoolExecutor(4) as pool:
                documents = list(pool.map(upload, files))
            seconds = time.perf_counter() - begin
    finally:
        service.stop()
    return {
        "pages": sum(document["pages"] for document in documents),
        "passages": sum(document["passages"] for document in documents),
        "seconds": seconds,
        "peak_bytes": memory.peak_bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "fixtures" / "documents")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=425)
    parser.add_argument("--base", help="revision, or folder of a revision, to compare with in place of the plain stack")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    files, refused = choose(options.folder, options.pages)
    if options.base is not None:
        figures = compare(files, options.base, options.rounds)
        if options.json:
            print_json(figures)
        else:
            print(report(figures))
        return 0
    plain: list[dict] = []
    ours: list[dict] = []
    whole: list[dict] = []
    alone: list[dict] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = export_model(folder)
        for _ in range(options.rounds):
            whole.append(run_ragsvc(files, models, folder, embedded_text="whole"))
            ours.append(run_ragsvc(files, models, folder, embedded_text="condensed"))
            alone.append(run_program("embedder_alone.py", [folder / "data"]))
            plain.append(run_program("plain_stack.py", files))
    figures = {
        "files": len(files),
        "refused_by_pypdf": [file.name for file in refused],
        "pages": ours[0]["pages"],
        "rounds": options.rounds,
        "ratio_pages_per_s": spread(
            [(a["pages"] / a["seconds"]) / (b["pages"] / b["seconds"]) for a, b in zip(ours, plain, strict=True)]
        ),
        "share_of_embedder": {
            "whole": spread([b["whole_s"] / a["seconds"] for a, b in zip(whole, alone, strict=True)]),
            "condensed": spread([b["condensed_s"] / a["seconds"] for a, b in zip(ours, alone, strict=True)]),
            "condensed_to_whole": spread([b["whole_s"] / a["seconds"] for a, b in zip(ours, alone, strict=True)]),
        },
        "ragsvc": {
            "pages_per_s": median([run["pages"] / run["seconds"] for run in ours]),
            "passages_per_s": median([run["passages"] / run["seconds"] for run in ours]),
            "peak_bytes": max(run["peak_bytes"] for run in ours),
        },
        "plain": {
            "pages_per_s": median([run["pages"] / run["seconds"] for run in plain]),
            "chunks_per_s": median([run["chunks"] / run["embed_s"] for run in plain]),
            "parse_share": median([run["parse_s"] / run["seconds"] for run in plain]),
            "peak_bytes": max(run["peak_bytes"] for run in plain),
        },
    }
    if options.json:
        print_json(figures)
        return 0
    a, b, shares = figures["ragsvc"], figures["plain"], figures["share_of_embedder"]
    print(f"{figures['files']} PDFs, {figures['pages']} pages, {options.rounds} interleaved rounds, medians")
    if refused:
        print(f"skipped because pypdf refuses them: {', '.join(file.name for file in refused)}")
    print(f"ragsvc over HTTP  {a['pages_per_s']:7.1f} pages/s  peak {mebibytes(a['peak_bytes'])} (all processes)")
    print(f"plain stack       {b['pages_per_s']:7.1f} pages/s  peak {mebibytes(b['peak_bytes'])}")
    print(f"ratio             {shown(figures['ratio_pages_per_s'])}")
    print(f"passages/s relative to the embedder alone on the same {ours[0]['passages']} passages:")
    print(f"  whole texts ingested, whole texts embedded      {shown(shares['whole'])}")
    print(f"  condensed texts ingested, condensed embedded    {shown(shares['condensed'])}")
    print(f"  condensed texts ingested, whole texts embedded  {shown(shares['condensed_to_whole'])}")
    return 0


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def shown(values: dict[str, float]) -> str:
    return f"{values['median']:7.2f}  (min {values['min']:.2f}, max {values['max']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
