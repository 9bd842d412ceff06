"""Time of page pictures over HTTP, drawn and kept, on quarterly reports, and the memory of the processes that draw.

    scripts/bench_page_images [--width W] [--pages N] [--json]

Peaks are those of resident memory (VmHWM, Linux). The last lines are a page of 10,000 x 10,000 points at the largest
width, which has to stay within the memory of a process, and ``If-None-Match``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.pdf_builder import Text, make_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import percentile, print_json

_PDF = {"content-type": "application/pdf"}


def peak_mib(pid: int) -> float:
    """The largest resident memory that a process had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def drawing_processes(service: RunningService) -> list[int]:
    """The child processes of the service that draw pages: those with the niceness of the service."""
    children = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    own = _niceness(service.process.pid)
    return [int(pid) for file in children for pid in file.read_text().split() if _niceness(int(pid)) == own]


def _niceness(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[16])


def timed(client: httpx.Client, path: str, **options: object) -> tuple[float, httpx.Response]:
    """Milliseconds of a request, and its answer."""
    begin = time.perf_counter()
    reply = client.get(path, **options)  # type: ignore[arg-type]
    return (time.perf_counter() - begin) * 1000, reply


def measure(client: httpx.Client, service: RunningService, *, width: int, most: int) -> dict[str, float]:
    """Draw pages of reports one after the other, then ask for them again."""
    paths: list[str] = []
    for file in sorted((ROOT / "fixtures" / "documents").glob("*10-q*.pdf")):
        reply = client.post("/v1/rag/documents", params={"wait_s": 600}, content=file.read_bytes(), headers=_PDF)
        reply.raise_for_status()
        pages = reply.json()["pages"]
        paths += [f"/v1/rag/documents/{reply.json()['id']}/pages/{n}/image" for n in range(1, pages + 1)]
    step = max(1, len(paths) // most)
    warm, asked = paths[1::step][:3], paths[::step][:most]
    for path in warm:  # starts the process
        client.get(path, params={"width": 640})
    figures: dict[str, list[float]] = {"drawn": [], "kept": [], "unchanged": []}
    sizes: list[float] = []
    for path in asked:
        duration, reply = timed(client, path, params={"width": width})
        reply.raise_for_status()
        figures["drawn"].append(duration)
        sizes.append(len(reply.content) / 1000)
    for path in asked * 3:
        duration, reply = timed(client, path, params={"width": width})
        figures["kept"].append(duration)
        known = {"if-none-match": reply.headers["etag"]}
        duration, reply = timed(client, path, params={"width": width}, headers=known)
        if reply.status_code != 304:
            raise RuntimeError(f"status {reply.status_code} instead of 304")
        figures["unchanged"].append(duration)
    result = {"pages": float(len(asked)), "size_kb_p50": percentile(sizes, 0.5)}
    for name, times in figures.items():
        result[f"{name}_p50_ms"] = percentile(times, 0.5)
        result[f"{name}_p95_ms"] = percentile(times, 0.95)
    result["peak_mib"] = max(map(peak_mib, drawing_processes(service)))
    return result


def huge_page(client: httpx.Client, service: RunningService) -> dict[str, float]:
    """A page of 10,000 x 10,000 points at the largest width."""
    content = make_pdf(
        [[Text(500, 9000 - 500 * line, f"Harbour {line}", 300) for line in range(17)]], size=(10_000,) * 2
    )
    reply = client.post("/v1/rag/documents", params={"wait_s": 600}, content=content, headers=_PDF)
    path = f"/v1/rag/documents/{reply.json()['id']}/pages/1/image"
    duration, reply = timed(client, path, params={"width": 4000})
    reply.raise_for_status()
    return {"huge_ms": duration, "huge_peak_mib": max(map(peak_mib, drawing_processes(service)))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        service = RunningService(data_dir)
        try:
            with service.client(key) as client:
                client.timeout = httpx.Timeout(700)
                figures = measure(client, service, width=options.width, most=options.pages)
                figures |= huge_page(client, service)
        finally:
            service.stop()
    if options.json:
        print_json(figures)
        return 0
    print(f"{figures['pages']:.0f} pages of reports, {options.width} pixels wide, p50 {figures['size_kb_p50']:.0f} kB")
    for name, bound in (("drawn", 120), ("kept", 5), ("unchanged", 5)):
        p50, p95 = figures[f"{name}_p50_ms"], figures[f"{name}_p95_ms"]
        print(f"{name:10s} p50 {p50:7.1f} ms  p95 {p95:7.1f} ms   bound of p50: {bound} ms")
    print(f"peak memory of a drawing process: {figures['peak_mib']:.0f} MiB")
    print(f"10,000 x 10,000 points: {figures['huge_ms']:.0f} ms, peak {figures['huge_peak_mib']:.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
