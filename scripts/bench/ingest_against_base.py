"""Ingest the same PDFs with this revision and an older one, interleaved: time, processor time and peak memory.

``scripts/bench_ingest --base REV`` runs it. Each round starts both services with a new data directory, in turn: this
revision is first in every second round. Processor time is that of the service and its child processes, and depends less
on other load of the machine than the time does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from scripts.bench.base_revision import checked_out
from scripts.bench.measuring import PeakMemory, Usage, mebibytes, median

_LIMITS = {"RAGSVC_REQUESTS_PER_MINUTE": "100000", "RAGSVC_REQUESTS_PER_HOUR": "1000000"}
_UPLOADS_AT_ONCE = 4
_FIRST_TEXT = b"The first document starts a child process and opens the model and the indexes.\n"


def compare(files: Sequence[Path], base: str, rounds: int) -> dict[str, Any]:
    """Medians of each revision, and the median and the extremes of the ratios new / base of the rounds."""
    runs: dict[str, list[dict[str, Any]]] = {"base": [], "new": []}
    with tempfile.TemporaryDirectory() as name, checked_out(base) as checkout:
        roots = {"base": checkout, "new": ROOT}
        for root in roots.values():  # the exports of the model are made before the first round
            RunningService(Path(name, "models", root.name), root=root, env={"PYTHONPATH": str(root)}).stop()
        for number in range(rounds):
            for revision in sorted(roots, reverse=number % 2 == 1):
                root = roots[revision]
                models = Path(name, "models", root.name, "models")
                runs[revision].append(_ingest(files, root, models, Path(name, "data")))
    pairs = list(zip(runs["new"], runs["base"], strict=True))
    return {
        "files": len(files),
        "rounds": rounds,
        "revisions": {
            revision: {
                "pages": found[0]["pages"],
                "passages": found[0]["passages"],
                **{key: median([run[key] for run in found]) for key in ("seconds", "processor_s")},
                "peak_bytes": max(run["peak_bytes"] for run in found),
            }
            for revision, found in runs.items()
        },
        "ratio": {
            key: {"median": median(values), "min": min(values), "max": max(values)}
            for key in ("seconds", "processor_s", "peak_bytes")
            if (values := [new[key] / old[key] for new, old in pairs])
        },
    }


def _ingest(files: Sequence[Path], root: Path, models: Path, data_dir: Path) -> dict[str, Any]:
    """One round of one revision: from the first upload until all documents are ready."""
    shutil.rmtree(data_dir, ignore_errors=True)
    key = create_key(data_dir, root=root, settings={"PYTHONPATH": str(root)})
    shutil.copytree(models, data_dir / "models")
    service = RunningService(data_dir, root=root, env={"PYTHONPATH": str(root), **_LIMITS})
    try:
        _upload(service, key, "first.txt", _FIRST_TEXT, "text/plain")
        pid = service.process.pid
        with PeakMemory(pid, every_s=1.0) as memory, Usage(pid) as usage:
            begin = time.perf_counter()
            with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
                documents = list(
                    pool.map(lambda file: _upload(service, key, file.name, file.read_bytes(), "application/pdf"), files)
                )
            seconds = time.perf_counter() - begin
    finally:
        service.stop()
    return {
        "pages": sum(document["pages"] for document in documents),
        "passages": sum(document["passages"] for document in documents),
        "seconds": seconds,
        "processor_s": usage.totals[1],
        "peak_bytes": memory.peak_bytes,
    }


def _upload(service: RunningService, key: str, name: str, content: bytes, media_type: str) -> dict[str, Any]:
    with service.client(key) as client:
        client.timeout = 900
        reply = client.post(
            "/v1/rag/documents",
            params={"filename": name, "wait_s": 600},
            content=content,
            headers={"content-type": media_type},
        )
    document: dict[str, Any] = reply.json()
    if document.get("status") != "ready":
        raise RuntimeError(f"{name}: {document}")
    return document


def report(figures: dict[str, Any]) -> str:
    """The figures as lines of text."""
    lines = [f"{figures['files']} PDFs, {figures['rounds']} interleaved rounds, medians"]
    for revision, run in figures["revisions"].items():
        lines.append(
            f"{revision:4}  {run['pages']} pages, {run['passages']} passages  {run['seconds']:6.1f} s  "
            f"{run['processor_s']:6.2f} s of processor ({1000 * run['processor_s'] / run['pages']:.1f} ms a page)  "
            f"peak {mebibytes(run['peak_bytes'])}"
        )
    for key, values in figures["ratio"].items():
        lines.append(f"ratio of {key:11} {values['median']:.3f}  (min {values['min']:.3f}, max {values['max']:.3f})")
    return "\n".join(lines)
