"""Fixtures of the browser tests: the real service with fixture documents, and pages of a real browser that watch it.

A page fails its test for every violation of the Content-Security-Policy, every error of a script, and every error in
the console. Errors that a test causes on purpose are allowed with ``watched.allow``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from ragsvc.testing.service_runner import ROOT, RunningService, create_key
from ragsvc.web.pages.files import FOLDER
from scripts.documentation.browser import chromium_path

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

DOCUMENTS = ROOT / "fixtures" / "documents"
REPORT = "apple-10-q-2022-12-31.pdf"
SMALL = "outline.pdf"
"""A document of a few pages."""
_READY_S = 240
EVERY_SCOPE = (
    "chat",
    "embeddings",
    "documents.read",
    "documents.write",
    "search",
    "proxy",
    "tenant.admin",
    "admin",
)
_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error("CSP violation: " + event.violatedDirective + " refused " + event.blockedURI);
});
"""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser without a window, for all tests of a session."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    program = chromium_path()
    if program is None:
        pytest.skip("no browser is installed (on Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that containers lack; the pages under test are our own
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


class Site:
    """A service with pages. ``key`` may do everything and belongs to ``acme``, ``other_key`` to ``globex``."""

    def __init__(self, service: RunningService, key: str, other_key: str) -> None:
        self.service = service
        self.url = service.url
        self.key = key
        self.other_key = other_key
        self._documents: dict[str, str] = {}

    def client(self, key: str | None = None) -> httpx.Client:
        return self.service.client(key or self.key)

    def new_key(self, *, tenant: str = "acme", **fields: object) -> str:
        """Create a key without request limits; ``fields`` are those of ``POST /v1/keys``."""
        body = {"tenant": tenant, "label": "browser", "requests_per_minute": None, "requests_per_hour": None, **fields}
        with self.client() as client:
            reply = client.post("/v1/keys", json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]

    def sign_in_link(self, key: str | None = None) -> str:
        """A link that signs in once."""
        with self.client(key) as client:
            reply = client.post("/v1/session/links")
        assert reply.status_code == 201, reply.text
        return reply.json()["url"]

    def document(self, name: str) -> str:
        """The id of a fixture document of ``acme``, which is ingested when it is first asked for."""
        if name not in self._documents:
            self._documents[name] = self.upload(DOCUMENTS / name)
        return self._documents[name]

    def upload(self, path: Path, *, key: str | None = None) -> str:
        """Upload a PDF, wait until it is ready, and return the id of the document."""
        with self.client(key) as client:
            reply = client.post(
                "/v1/rag/documents",
                params={"filename": path.name, "wait_s": "0"},
                content=path.read_bytes(),
                headers={"content-type": "application/pdf"},
            )
            assert reply.status_code in {201, 202}, reply.text
            document = reply.json()
            deadline = time.monotonic() + _READY_S
            while document["status"] != "ready":
                assert document["status"] != "failed", document
                assert time.monotonic() < deadline, document
                time.sleep(0.1)
                document = client.get(f"/v1/rag/documents/{document['id']}").json()
        return document["id"]


@pytest.fixture(scope="package")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service with the real model; not started where no browser is installed."""
    assert (FOLDER / "index.html").is_file(), "The pages are not built: run .venv/bin/python -m scripts.pages.build"
    data_dir = tmp_path_factory.mktemp("pages") / "data"
    scopes = tuple(part for scope in EVERY_SCOPE for part in ("--scope", scope))
    key = create_key(data_dir, tenant="acme", label="everything", extra=scopes)
    other_key = create_key(data_dir, tenant="globex", label="other")
    service = RunningService(data_dir, start_timeout_s=240)
    try:
        yield Site(service, key, other_key)
    finally:
        assert service.stop() == 0


class WatchedPage:
    """A page of the browser, with what went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        context.add_init_script(_VIOLATIONS)
        self.context = context
        self.page: Page = context.new_page()
        self._problems: list[str] = []
        self._allowed: list[re.Pattern[str]] = []
        self.page.on("console", lambda message: message.type == "error" and self._problems.append(message.text))
        self.page.on("pageerror", lambda error: self._problems.append(str(error)))

    def allow(self, pattern: str) -> None:
        """Allow console errors with this regular expression: the browser logs each response of status 400 or more."""
        self._allowed.append(re.compile(pattern))

    @property
    def problems(self) -> list[str]:
        return [text for text in self._problems if not any(pattern.search(text) for pattern in self._allowed)]


OpenPage = Callable[..., WatchedPage]


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[OpenPage]:
    """A function that opens a page of the site, signed in unless ``key`` is ``None``; it returns a ``WatchedPage``."""
    opened: list[WatchedPage] = []

    def open_(
        path: str = "/ask",
        *,
        key: str | None = "",
        theme: str = "light",
        width: int = 1280,
        height: int = 800,
        language: str = "en-GB",
    ) -> WatchedPage:
        context = browser.new_context(
            base_url=site.url,
            color_scheme=theme,  # type: ignore[arg-type]  # "light" or "dark"
            viewport={"width": width, "height": height},
            locale=language,
            reduced_motion="reduce",
        )
        context.set_default_timeout(20_000)
        watched = WatchedPage(context)
        opened.append(watched)
        if key is not None:
            watched.page.goto(site.sign_in_link(key or None))
            watched.page.locator("#navigation").wait_for(state="attached")
        if key is None or path != "/ask":
            watched.page.goto(path)
        watched.page.locator("h1").first.wait_for()
        return watched

    yield open_
    problems = [problem for watched in opened for problem in watched.problems]
    for watched in opened:
        watched.context.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """The Ask page in English at desktop width, signed in with ``site.key``."""
    return open_page().page
