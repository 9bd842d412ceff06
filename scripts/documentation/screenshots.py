"""Takes the pictures of the web pages in ``docs/images/pages`` from a running service with the fixture documents.

    scripts/screenshots [--out FOLDER]

Chromium draws every page in light colours, and the Ask page also in dark ones and as wide as a phone.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from ragsvc.testing.service_runner import RunningService, create_key
from scripts.documentation.browser import chromium_path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "images" / "pages"
DOCUMENTS = ROOT / "fixtures" / "documents"
REPORT = "apple-10-q-2022-12-31.pdf"
QUESTION = "How much did Apple repurchase of its common stock?"
SCOPES = ("chat", "embeddings", "documents.read", "documents.write", "search", "proxy", "tenant.admin", "admin")
_COLOURS = 128
_SETTLE_MS = 700


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    program = chromium_path()
    if program is None:
        print("No browser is installed (on Debian: apt-get install chromium).", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ragsvc-") as folder, sync_playwright() as driver:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir, tenant="acme", extra=tuple(part for name in SCOPES for part in ("--scope", name)))
        service = RunningService(data_dir, start_timeout_s=240)
        try:
            with service.client(key) as client:
                client.timeout = httpx.Timeout(600)
                report = fill(client)
                browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
                for picture in pictures(report):
                    context = browser.new_context(
                        base_url=service.url, locale="en-GB", reduced_motion="reduce", **picture.look
                    )
                    page = context.new_page()
                    page.goto(sign_in_link(client))
                    page.locator("#navigation").wait_for(state="attached")
                    picture.show(page)
                    save(page, options.out / f"{picture.name}.png")
                    context.close()
                browser.close()
        finally:
            service.stop()
    return 0


def fill(client: httpx.Client) -> str:
    """Upload the fixture documents, make a few keys and requests; returns the id of the report."""
    ids = {}
    for file in sorted(DOCUMENTS.glob("*.pdf")):
        reply = client.post(
            "/v1/rag/documents",
            params={"filename": file.name, "wait_s": 600},
            content=file.read_bytes(),
            headers={"content-type": "application/pdf"},
        )
        reply.raise_for_status()
        ids[file.name] = reply.json()["id"]
    for label, limits in (("Intranet", {"tokens_per_day": 2_000_000}), ("Oda", {"tokens_per_day": 100_000})):
        client.post("/v1/keys", json={"tenant": "acme", "label": label, **limits}).raise_for_status()
    body = {"model": "local/chat-model", "use_rag": True, "messages": [{"role": "user", "content": QUESTION}]}
    for _ in range(12):
        client.post("/v1/chat/completions", json=body).raise_for_status()
        client.post("/v1/rag/search", json={"query": QUESTION}).raise_for_status()
    return ids[REPORT]


def sign_in_link(client: httpx.Client) -> str:
    return str(client.post("/v1/session/links").raise_for_status().json()["url"])


class Picture(NamedTuple):
    """A picture: its name, the look of the browser, and the steps to its moment."""

    name: str
    look: dict[str, Any]
    show: Callable[[Page], None]


def pictures(report: str) -> list[Picture]:
    light: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
    dark = {**light, "color_scheme": "dark"}
    phone = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2}
    return [
        Picture("ask", light, ask_and_open_source),
        Picture("ask-dark", dark, ask_and_open_source),
        Picture("ask-phone", phone, ask),
        Picture("documents", light, lambda page: go(page, "/documents", REPORT)),
        Picture("document", light, lambda page: go(page, f"/documents/{report}", "Passages")),
        Picture("playground", light, try_model),
        Picture("keys", light, lambda page: go(page, "/keys", "Oda")),
        Picture("service", light, lambda page: go(page, "/service", "Providers")),
        Picture("reference", light, lambda page: go(page, "/reference", "/v1/chat/completions")),
    ]


def ask(page: Page) -> None:
    page.get_by_label("Your question").fill(QUESTION)
    page.keyboard.press("Enter")
    page.locator("article.turn[aria-busy='false'] .chip").first.wait_for()


def ask_and_open_source(page: Page) -> None:
    ask(page)
    page.locator(".chip").first.click()
    page.locator(".page-viewer-mark").first.wait_for()


def try_model(page: Page) -> None:
    go(page, "/playground", "Send")
    page.get_by_label("Message").first.fill(QUESTION)
    page.get_by_role("button", name="Send", exact=True).click()
    page.get_by_text("200", exact=False).first.wait_for()


def go(page: Page, path: str, text: str) -> None:
    """Open a page, and wait until it shows a text."""
    page.goto(path)
    page.get_by_text(text).first.wait_for()


def save(page: Page, out: Path) -> None:
    """Save what the page shows, with few colours so that the repository stays small."""
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    page.wait_for_timeout(_SETTLE_MS)
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
