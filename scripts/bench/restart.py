"""Time of a restart until ready, and of searches over HTTP, with many passages in a single collection.

    scripts/bench_restart [--passages N] [--rounds N] [--json]

Texts are the sentences of the fixture reports in random order. Vectors are those of the real model for the reports'
passages with random noise (cosine about 0.9 to the original), so that neighbourhoods stay realistic.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.core.documents import Extraction, Page, Passage
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.core.text.chunking import embedding_text
from ragsvc.inference.factory import open_embedder
from ragsvc.store import document_rows
from ragsvc.store import vector_rows as rows
from ragsvc.store.job_rows import mark_ready
from ragsvc.store.parsed_rows import store_parsed
from ragsvc.store.serving_model import serve_model
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import mebibytes, median, percentile, print_json, tree_bytes

_PER_DOCUMENT = 100
_TENANT = TenantId("acme")
QUESTIONS = [
    "What were total net sales in the third quarter?",
    "How did services revenue change compared with last year?",
    "Which legal proceedings is the company part of?",
    "What drives data center revenue?",
    "How much was spent on research and development?",
    "What risks come from foreign currency exchange rates?",
    "How many shares were repurchased?",
    "What is the effective tax rate?",
]


def base_texts() -> list[str]:
    """Passages of 150 words from the reports in the fixtures."""
    texts: list[str] = []
    for file in sorted((ROOT / "fixtures" / "documents").glob("*10-q*.pdf")):
        words = " ".join(page.extract_text() for page in PdfReader(file).pages).split()
        texts += [" ".join(words[begin : begin + 150]) for begin in range(0, len(words), 150)]
    return texts


def fill(data_dir: Path, passages: int, seed: int) -> None:
    """Write the rows of an ingest directly, without parsing and embedding each document."""
    chance, noise = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - texts, not secrets
    texts = base_texts()
    embedder = open_embedder(data_dir=data_dir)
    model = embedder.model
    base = embedder.embed_passages(texts)
    tokens = embedder.count_tokens(texts)
    embedder.close()
    sentences = [text.split(". ") for text in texts]
    database = SqliteDatabase(data_dir / "ragsvc.sqlite")
    model_id = database.write_sync(lambda c: rows.model_row_id(c, model, setting="all-MiniLM-L6-v2", now=1))
    database.write_sync(lambda c: serve_model(c, model_id))
    for number in range(passages // _PER_DOCUMENT):
        chosen = [chance.randrange(len(texts)) for _ in range(_PER_DOCUMENT)]
        pieces = [". ".join(chance.sample(sentences[text], k=len(sentences[text]))) for text in chosen]
        vectors = base[chosen] + noise.normal(scale=0.5 / np.sqrt(model.dimension), size=(len(chosen), model.dimension))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        counts = [tokens[text] for text in chosen]
        database.write_sync(
            lambda c, n=number, p=pieces, t=counts, v=vectors: _add(c, n, p, t, v, model=model, model_id=model_id)
        )
    database.close()


def _add(connection, number: int, pieces: list[str], counts: list[int], vectors, *, model, model_id: int) -> None:
    collection = document_rows.ensure_collection(connection, _TENANT, "default", now=1)
    document = document_rows.insert_document(
        connection,
        document_rows.NewDocument(
            public_id=f"doc_{number:08d}",
            tenant=_TENANT,
            collection=collection,
            filename=f"report-{number}.pdf",
            media_type="application/pdf",
            size_bytes=1,
            sha256=f"{number:064x}",
            metadata={},
            created_at=1,
        ),
    )
    pages = [Page(page, text) for page, text in enumerate(pieces, start=1)]
    passages = [
        Passage(page.number - 1, page.number, 0, len(page.text), page.text, token_count=count)
        for page, count in zip(pages, counts, strict=True)
    ]
    parsed = ParsedDocument(Extraction(pages=pages, page_count=len(pages)), passages)
    store_parsed(connection, document.id, parsed, timings={}, now=1)
    stored = rows.passages_to_embed(connection, document.id, model_id, after=0, limit=len(passages), only_missing=True)
    texts = [embedding_text(passage, title=None, filename=document.filename) for passage in passages]
    embedded = [
        rows.PassageVector(passage.id, rows.embedding_hash(text), vector)
        for passage, text, vector in zip(stored, texts, rows.pack_vectors(vectors), strict=True)
    ]
    rows.store_vectors(connection, document, model_id, embedded, now=1)
    mark_ready(connection, document, model=model, model_id=model_id, timings={}, now=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    starts: list[float] = []
    times: dict[str, list[float]] = {"hybrid": [], "dense": [], "lexical": []}
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        fill(data_dir, options.passages, seed=1)
        begin = time.perf_counter()
        service = RunningService(data_dir, start_timeout_s=600)
        first = time.perf_counter() - begin
        service.stop()
        for number in range(options.rounds):
            begin = time.perf_counter()
            service = RunningService(data_dir, start_timeout_s=600)
            starts.append(time.perf_counter() - begin)
            with service.client(key) as client:
                for mode, found in times.items():
                    for turn in range(60):
                        query = f"{QUESTIONS[turn % len(QUESTIONS)]} ({number}.{turn})"
                        begin = time.perf_counter()
                        client.post("/v1/rag/search", json={"query": query, "mode": mode}).raise_for_status()
                        if turn >= 10:
                            found.append((time.perf_counter() - begin) * 1000)
            memory = tree_bytes(service.process.pid)
            service.stop()
    figures = {
        "passages": options.passages,
        "first_start_s": first,
        "restart_s": {"median": median(starts), "max": max(starts)},
        "search_ms": {mode: {"p50": median(found), "p99": percentile(found, 0.99)} for mode, found in times.items()},
        "memory_bytes": memory,
    }
    if options.json:
        print_json(figures)
        return 0
    print(f"{options.passages} passages in one collection, {options.rounds} restarts of the real service")
    print(f"first start (builds both indexes from rows) {first:.2f} s")
    print(f"restart: median {median(starts):.2f} s, worst {max(starts):.2f} s; memory {mebibytes(memory)}")
    for mode, found in times.items():
        print(f"search {mode:8s} p50 {median(found):6.2f} ms  p99 {percentile(found, 0.99):6.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
