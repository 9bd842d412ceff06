"""Compare the embedding runtimes on one machine in one run: speed ratios, memory, agreement.

    scripts/bench_embedder [FOLDER] [--texts 96] [--rounds 7]

Each runtime runs in a separate process. Rounds are interleaved, and the median of the ratios to sentence-transformers
in the same round is printed, so that other load on the machine affects all runtimes alike. Texts are 1,000-character
slices of the PDFs and texts in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pypdfium2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ragsvc.cli.process_tuning import keep_heap_small
from ragsvc.inference.export import probe_texts
from ragsvc.inference.factory import open_embedder

REFERENCE = "sentence-transformers"
QUERY = "What was the company's net revenue in 2022?"


def read_texts(folder: Path | None, count: int) -> list[str]:
    """Slices of 1,000 characters, sampled in a random but fixed order."""
    if folder is None:
        joined = [" ".join(probe_texts()) * 40]
    else:
        joined = [read_file(path) for path in sorted(folder.rglob("*")) if path.suffix in {".pdf", ".md", ".txt"}][:40]
    slices = [text[start : start + 1000] for text in joined for start in range(0, len(text) - 1000, 800)]
    if not slices:
        sys.exit(f"{folder} has no PDF, Markdown or text file with more than 1,000 characters")
    return random.Random(5).sample(slices, min(count, len(slices)))  # noqa: S311 - a sample, not a secret


def read_file(path: Path) -> str:
    """The text of a PDF, Markdown or text file."""
    if path.suffix != ".pdf":
        return path.read_text("utf-8", "replace")
    document = pypdfium2.PdfDocument(path)
    return "\n".join(page.get_textpage().get_text_range() for page in document)


def serve(runtime: str, data_dir: str, texts: list[str], threads: int | None, connection: Connection) -> None:
    """In the child process: open a runtime, then run the parent's orders and report their times."""
    keep_heap_small()  # as the service does
    started = time.perf_counter()
    embedder = open_embedder(data_dir=Path(data_dir), runtime=runtime, threads=threads)
    connection.send(time.perf_counter() - started)
    vectors = embedder.embed_passages(texts[:8])
    while (order := connection.recv()) != "stop":
        started = time.perf_counter()
        if order == "passages":
            vectors = embedder.embed_passages(texts)
        else:
            for _ in range(20):
                embedder.embed_queries([QUERY])
        connection.send(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send((vectors, peak / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="PDF, Markdown or text files; default: a few built-in texts"
    )
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    texts = read_texts(arguments.folder, arguments.texts)
    context = multiprocessing.get_context("spawn")
    runtimes = [REFERENCE, "onnx-fp32", "onnx-int8"]
    times: dict[str, dict[str, list[float]]] = {name: {"passages": [], "query": []} for name in runtimes}
    opened: dict[str, float] = {}
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in runtimes[1:]:  # exported first, so that the memory of the processes below does not include it
            export = context.Process(target=export_once, args=(name, temporary))
            export.start()
            export.join()
        pipes = {}
        for name in runtimes:
            pipe, child = context.Pipe()
            process = context.Process(
                target=serve, args=(name, temporary, texts, arguments.threads, child), daemon=True
            )
            process.start()
            opened[name] = pipe.recv()
            pipes[name] = pipe
        for _ in range(arguments.rounds):
            for order in ("passages", "query"):
                for name, pipe in pipes.items():
                    pipe.send(order)
                    times[name][order].append(pipe.recv())
        for name, pipe in pipes.items():
            pipe.send("stop")
            results[name] = pipe.recv()
    reference = results[REFERENCE][0]
    rows = []
    for name in runtimes:
        vectors, peak_mb = results[name]
        cosines = (vectors * reference).sum(axis=1)
        ratios = [a / b for a, b in zip(times[REFERENCE]["passages"], times[name]["passages"], strict=True)]
        rows.append(
            {
                "runtime": name,
                "ratio": round(statistics.median(ratios), 2),
                "ratio_least": round(min(ratios), 2),
                "ratio_most": round(max(ratios), 2),
                "texts_per_s": round(len(texts) / statistics.median(times[name]["passages"]), 1),
                "query_ms": round(statistics.median(times[name]["query"]) / 20 * 1e3, 2),
                "open_s": round(opened[name], 2),
                "peak_mb": round(peak_mb),
                "mean_cosine": round(float(np.mean(cosines)), 5),
                "least_cosine": round(float(np.min(cosines)), 5),
            }
        )
    if arguments.json:
        print(json.dumps({"texts": len(texts), "rounds": arguments.rounds, "runtimes": rows}))
        return
    print(f"{len(texts)} texts of 1,000 characters, {arguments.rounds} interleaved rounds, medians")
    print(
        f"{'runtime':22} {'ratio (least-most)':>20} {'texts/s':>8} {'query':>9} {'open':>7} {'peak':>8}"
        "  cosine mean  least"
    )
    for row in rows:
        span = f"{row['ratio']:.2f} ({row['ratio_least']:.2f}-{row['ratio_most']:.2f})"
        print(
            f"{row['runtime']:22} {span:>20} {row['texts_per_s']:8.1f} {row['query_ms']:6.2f} ms "
            f"{row['open_s']:5.2f} s {row['peak_mb']:5d} MB  {row['mean_cosine']:.5f}  {row['least_cosine']:.5f}"
        )


def export_once(runtime: str, data_dir: str) -> None:
    """In the child process: create the export of a runtime."""
    open_embedder(data_dir=Path(data_dir), runtime=runtime).close()


if __name__ == "__main__":
    main()
