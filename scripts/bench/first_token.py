"""Time from Enter to the first words of an answer on the Ask page, idle and while 50 files are ingested.

    scripts/bench_first_token [--rounds N] [--files N] [--pages N] [--json]

Chromium drives the page; a round is idle questions and then as many questions while files are read. Without a browser
it stops with a line that says so.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.latency import large_pdf
from scripts.bench.measuring import PeakMemory, median, percentile, print_json
from scripts.documentation.browser import chromium_path

_PDF = {"content-type": "application/pdf"}
_SUBJECTS = (
    "total net sales",
    "the gross margin of services",
    "the repurchases of common stock",
    "research and development expense",
    "the effective tax rate",
    "net sales in Greater China",
    "deferred revenue",
    "cash, cash equivalents and marketable securities",
    "commercial paper",
    "legal proceedings",
    "foreign exchange risk",
    "the dividend per share",
)
_FORMS = (
    "What does the report say about {}?",
    "How did {} change against the year before?",
    "Which figures are given for {}?",
    "What explains {} in the quarter?",
)
_WATCH = """
() => {
  let start = 0;
  window.firstWords = null;
  addEventListener("keydown", (event) => {
    if (event.key === "Enter") [start, window.firstWords] = [performance.now(), null];
  }, true);
  new MutationObserver(() => {
    if (!start) return;
    const found = document.querySelector(".turn .answer-text, .turn .absent");
    if (found?.textContent.trim()) [window.firstWords, start] = [performance.now() - start, 0];
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
}
"""


def questions() -> Iterator[str]:
    """Questions that do not repeat soon."""
    for form, subject in itertools.cycle(itertools.product(_FORMS, _SUBJECTS)):
        yield form.format(subject)


def first_words_ms(page: Page, question: str) -> float:
    """Ask in a new conversation, wait for the whole answer, and return the time to its first words."""
    page.get_by_role("button", name="New question").first.click()
    page.locator("article.turn").first.wait_for(state="detached")
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    page.locator("article.turn[aria-busy='false']").wait_for()
    return float(page.evaluate("window.firstWords"))


class Ingest(threading.Thread):
    """Uploads files one after the other and waits until all of them are ready."""

    def __init__(self, client: httpx.Client, files: list[bytes]) -> None:
        super().__init__()
        self._client = client
        self._files = files
        self.duration_s = 0.0

    def run(self) -> None:
        begin = time.monotonic()
        for number, content in enumerate(self._files):
            options = {"filename": f"report-{number}.pdf", "collection": "ingested"}
            self._client.post("/v1/rag/documents", params=options, content=content, headers=_PDF).raise_for_status()
        while self._waiting():
            time.sleep(0.2)
        self.duration_s = time.monotonic() - begin

    def _waiting(self) -> bool:
        listing = [
            self._client.get("/v1/rag/documents", params={"status": status, "limit": 1}).json()["data"]
            for status in ("queued", "processing")
        ]
        return any(listing)


def measure(page: Page, client: httpx.Client, options: argparse.Namespace) -> dict[str, float]:
    """Times to the first words, in ms, of all rounds."""
    times: dict[str, list[float]] = {"idle": [], "ingesting": []}
    asked = questions()
    seeds = itertools.count()
    durations = []
    for _ in range(3):
        first_words_ms(page, next(asked))
    for _ in range(options.rounds):
        for _ in range(options.questions):
            times["idle"].append(first_words_ms(page, next(asked)))
            time.sleep(0.3)
        ingest = Ingest(client, [large_pdf(options.pages, next(seeds)) for _ in range(options.files)])
        ingest.start()
        time.sleep(1)
        while ingest.is_alive():
            times["ingesting"].append(first_words_ms(page, next(asked)))
            time.sleep(0.3)
        ingest.join()
        durations.append(ingest.duration_s)
    figures = {f"{name}_p50_ms": median(values) for name, values in times.items()}
    figures |= {f"{name}_p95_ms": percentile(values, 0.95) for name, values in times.items()}
    figures |= {f"{name}_questions": float(len(values)) for name, values in times.items()}
    figures["ratio"] = figures["ingesting_p50_ms"] / figures["idle_p50_ms"]
    figures["ingest_s"] = median(durations)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--pages", type=int, default=12, help="pages of each file")
    parser.add_argument("--questions", type=int, default=15, help="idle questions of a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    program = chromium_path()
    if program is None:
        print("No browser is installed (on Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir)
        service = RunningService(data_dir, start_timeout_s=240)
        try:
            with service.client(key) as client, PeakMemory(service.process.pid) as memory:
                client.timeout = httpx.Timeout(700)
                for file in sorted((ROOT / "fixtures" / "documents").glob("*10-q*.pdf")):
                    body = file.read_bytes()
                    client.post("/v1/rag/documents", params={"wait_s": 600}, content=body, headers=_PDF)
                browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
                page = browser.new_page(base_url=service.url)
                page.goto(client.post("/v1/session/links").json()["url"])
                page.get_by_label("Your question").wait_for()
                page.evaluate(_WATCH)
                figures = measure(page, client, options)
                browser.close()
            figures["peak_mib"] = memory.peak_bytes / 2**20
        finally:
            service.stop()
    if options.json:
        print_json(figures)
        return 0
    for name in ("idle", "ingesting"):
        p50, p95 = figures[f"{name}_p50_ms"], figures[f"{name}_p95_ms"]
        print(f"{name:10s} p50 {p50:6.0f} ms  p95 {p95:6.0f} ms  of {figures[f'{name}_questions']:.0f} questions")
    print(f"ratio of the medians: {figures['ratio']:.2f} (bound 1.5)")
    print(f"{options.files} files of {options.pages} pages in {figures['ingest_s']:.0f} s, ", end="")
    print(f"peak memory of the service {figures['peak_mib']:.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
