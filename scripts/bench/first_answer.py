"""From the upload of a long report to the first answer that cites it, compared with an earlier revision.

    scripts/bench_first_answer [FOLDER] [--base REVISION] [--pages N] [--rounds N] [--question TEXT] [--json]

The report consists of pages of the PDFs in FOLDER, which are repeated if they are too few. In each round both services
run one after the other in a new data directory, with a small provider on another port as the chat model. A client
uploads the report, follows its events, and asks with ``use_rag`` at each event from the first parsed page on; the time
ends when the answer has a citation of the report. The round then waits until the document is ready, whose time shows
what the earlier answer costs, and compares the rankings of all rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from pypdf import PdfReader, PdfWriter
from pypdf.errors import PyPdfError

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.base_revision import checked_out
from scripts.bench.fixed_provider import fixed_provider
from scripts.bench.measuring import PeakMemory, mebibytes, median, print_json

Rankings = dict[str, list[list[Any]]]

_QUESTIONS = ("inventories and supply", "risk factors", "income taxes of 2022", "cash flows from operating activities")
_ENDED = ("ready", "failed")
_REPLY = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "quoting",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The report gives the answer [1]."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28},
}


def make_report(folder: Path, pages: int, target: Path) -> None:
    """Write a PDF of ``pages`` pages of the PDFs in ``folder``, in order of name."""
    readers = []
    for file in sorted(folder.rglob("*.pdf")):
        try:
            reader = PdfReader(file)
            if not reader.is_encrypted and len(reader.pages):
                readers.append(reader)
        except PyPdfError:
            continue
    every_page = itertools.cycle(page for reader in readers for page in reader.pages)
    writer = PdfWriter()
    for page in itertools.islice(every_page, pages):
        writer.add_page(page)
    writer.write(target)


def measure(
    root: Path, report: Path, models: Path, folder: Path, *, question: str, provider: str
) -> tuple[dict[str, Any], Rankings]:
    """Seconds until the first cited answer and until ready, and the peak memory of a service of the package in root.

    Returns them with the rankings of the finished document.
    """
    data_dir = folder / "data"
    shutil.rmtree(data_dir, ignore_errors=True)
    key = create_key(data_dir, root=root)
    shutil.copytree(models, data_dir / "models")
    config = folder / "ragsvc.toml"
    config.write_text(f'[[providers]]\nname = "bench"\nbase_url = "{provider}"\nmodels = ["quoting"]\n')
    service = RunningService(data_dir, env={"RAGSVC_CONFIG": str(config)}, root=root)
    try:
        with PeakMemory(service.process.pid, every_s=0.5) as memory, service.client(key) as client:
            _warm_up(client, question)
            figures = _first_answer(client, report, question)
            rankings = _rankings(client, question)
    finally:
        service.stop()
    return {**figures, "peak_bytes": memory.peak_bytes}, rankings


def _warm_up(client: httpx.Client, question: str) -> None:
    """Start the parser's child process and embed a first text: a service that runs for a while has done both."""
    warm = client.post(
        "/v1/rag/documents",
        params={"filename": "warm.txt", "wait_s": 60, "collection": "warm"},
        content=b"A first text.",
        headers={"content-type": "text/plain"},
    )
    warm.raise_for_status()
    client.post("/v1/rag/search", json={"query": question, "collection": "warm"}).raise_for_status()


def _first_answer(client: httpx.Client, report: Path, question: str) -> dict[str, Any]:
    content = report.read_bytes()
    begin = time.perf_counter()
    uploaded = client.post(
        "/v1/rag/documents",
        params={"filename": "report.pdf", "wait_s": 0},
        content=content,
        headers={"content-type": "application/pdf"},
    )
    document_id = uploaded.raise_for_status().json()["id"]
    searchable_s = answered_s = 0.0
    document: dict[str, Any] = {}
    with client.stream("GET", f"/v1/rag/documents/{document_id}/events", timeout=600) as events:
        for line in events.iter_lines():
            if not line.startswith("data: "):
                continue
            document = json.loads(line.removeprefix("data: "))
            if not answered_s and _may_answer(document) and _is_cited(client, question, document_id):
                answered_s = time.perf_counter() - begin
            if document["stage"] in ("searchable", *_ENDED):
                searchable_s = searchable_s or time.perf_counter() - begin
            if document["status"] in _ENDED:
                break
    ready_s = time.perf_counter() - begin
    if document["status"] != "ready" or not answered_s:
        raise RuntimeError(f"no cited answer: {document}")
    return {
        "searchable_s": searchable_s,
        "answer_s": answered_s,
        "ready_s": ready_s,
        "pages": document["pages"],
        "passages": document["passages"],
        "parse_s": document["timings"]["parse_s"],
    }


def _rankings(client: httpx.Client, question: str) -> Rankings:
    """Places and scores of the passages that searches find, by question and mode."""
    found: Rankings = {}
    for text in (question, *_QUESTIONS):
        for mode in ("hybrid", "lexical", "dense"):
            body = {"query": text, "mode": mode, "top_k": 50}
            hits = client.post("/v1/rag/search", json=body).raise_for_status().json()["data"]
            found[f"{mode}: {text}"] = [
                [hit["chunk_id"].rpartition("_")[2], hit["page"], hit["score"], hit["scores"]] for hit in hits
            ]
    return found


def _may_answer(document: dict[str, Any]) -> bool:
    """Whether pages of the document may be searchable: pages that were parsed are, in the present revision."""
    return bool(document["pages_done"]) or document["status"] in _ENDED


def _is_cited(client: httpx.Client, question: str, document_id: str) -> bool:
    body = {"model": "quoting", "use_rag": True, "messages": [{"role": "user", "content": question}]}
    reply = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    return document_id in json.dumps(reply["choices"][0]["message"].get("annotations") or reply.get("citations") or [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "fixtures" / "documents")
    parser.add_argument("--base", default="15ce559", help="revision to compare with (default: %(default)s)")
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--question", default="What were the total net sales in the quarter?")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rankings: list[Rankings] = []
    runs: dict[str, list[dict[str, Any]]] = {"base": [], "new": []}
    with (
        tempfile.TemporaryDirectory() as name,
        checked_out(options.base) as base,
        fixed_provider(json.dumps(_REPLY).encode(), media_type="application/json") as provider,
    ):
        folder = Path(name)
        make_report(options.folder, options.pages, folder / "report.pdf")
        RunningService(folder / "first").stop()  # exports the embedding model, so that no round does
        for _ in range(options.rounds):
            for side, root in (("base", base), ("new", ROOT)):
                run, ranked = measure(
                    root,
                    folder / "report.pdf",
                    folder / "first" / "models",
                    folder,
                    question=options.question,
                    provider=provider,
                )
                runs[side].append(run)
                rankings.append(ranked)
                if not options.json:
                    print(f"{side}: {json.dumps({key: round(value, 2) for key, value in run.items()})}", flush=True)
    ratios = [a["answer_s"] / b["answer_s"] for a, b in zip(runs["base"], runs["new"], strict=True)]
    figures = {
        "pages": runs["new"][0]["pages"],
        "passages": runs["new"][0]["passages"],
        "rounds": options.rounds,
        "rankings_equal": all(ranked == rankings[0] for ranked in rankings),
        "answer_ratio": median(ratios),
        "ready_ratio": median([a["ready_s"] / b["ready_s"] for a, b in zip(runs["base"], runs["new"], strict=True)]),
        **{
            side: {
                **{key: median([run[key] for run in found]) for key in ("searchable_s", "answer_s", "ready_s")},
                "peak_bytes": max(run["peak_bytes"] for run in found),
            }
            for side, found in runs.items()
        },
    }
    if options.json:
        print_json(figures)
        return 0
    base_run, new_run = figures["base"], figures["new"]
    print(
        f"{figures['pages']} pages, {figures['passages']} passages, {options.rounds} rounds: first cited answer after "
        f"{base_run['answer_s']:.1f} s and {new_run['answer_s']:.1f} s, ratio {figures['answer_ratio']:.1f} "
        f"({min(ratios):.1f} to {max(ratios):.1f}); ready after {base_run['ready_s']:.1f} s and "
        f"{new_run['ready_s']:.1f} s; peak {mebibytes(base_run['peak_bytes'])} and {mebibytes(new_run['peak_bytes'])}; "
        f"rankings {'equal' if figures['rankings_equal'] else 'DIFFER'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
