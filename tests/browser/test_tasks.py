"""Ten tasks of people who do not program, done with what is visible on the pages, in at most so many steps.

A step is a click, a text that is typed, or a key that is pressed. ``docs/benchmarks.md`` has the table of the tasks.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ragsvc.store.last_backup import LAST_BACKUP_FILE_NAME
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT, service_environment
from tests.browser.conftest import OpenPage, Site, WatchedPage
from tests.support.quoting_provider import QuotingProvider
from tests.support.upstream_server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.timeout(300)

PROTECTED = ROOT / "fixtures" / "dirty" / "password-asdfzxcv.pdf"
PASSWORD = "asdfzxcv"
READY_MS = 180_000
LEASE = [
    [
        "LEASE AGREEMENT between Harbour Estates Ltd (the Landlord) and Northwind GmbH (the Tenant).",
        "1. Rent. The monthly rent is 4,200 euros, due on the third working day.",
    ],
    ["3. Use. The premises may be used as an office only.", "4. Repairs. The Landlord repairs roof and heating."],
    [
        "6. Term. The lease ends on 28 February 2029.",
        "7. Termination. Only the Tenant may terminate the lease before that day, with six months' notice.",
    ],
]
MIETVERTRAG = [
    ["MIETVERTRAG zwischen der Hafen GmbH (Vermieterin) und der Nordwind GmbH (Mieterin)."],
    ["6. Kündigung. Nur die Mieterin darf den Mietvertrag vorzeitig kündigen, mit sechs Monaten Frist."],
]


class Person:
    """Somebody at a page, who uses what is visible only; ``steps`` counts what they do."""

    def __init__(self, watched: WatchedPage) -> None:
        self.watched = watched
        self.page: Page = watched.page
        self.steps = 0

    def click(self, target: Locator) -> None:
        target.click()
        self.steps += 1

    def open(self, name: str) -> None:
        """Follow a link of the navigation."""
        self.click(self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True))

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.page.keyboard.type(text)
        self.steps += 1

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.steps += 1

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).select_option(label=option)
        self.steps += 1

    def bring(self, *files: Path) -> None:
        """Choose files in the dialog that a button opens: two steps."""
        with self.page.expect_file_chooser() as chooser:
            self.click(self.page.get_by_role("button", name="Add files"))
        chooser.value.set_files(files)
        self.steps += 1

    def sees(self, target: Locator, *, timeout: float = 20_000) -> None:
        """Wait for something, which is on the screen without scrolling."""
        target.wait_for(timeout=timeout)
        target.evaluate(
            """(element) => {
              const { top, bottom, left, right } = element.getBoundingClientRect();
              const inside = top >= 0 && bottom <= innerHeight && left >= 0 && right <= innerWidth;
              if (!inside) throw new Error(`not on the screen: ${element.textContent}`);
            }"""
        )

    def waits_for_focus(self, target: Locator) -> None:
        """Wait until the focus is there, without a step."""
        target.wait_for()
        handle = target.element_handle()
        self.page.wait_for_function("(element) => element === document.activeElement", arg=handle)


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> str:
    """A tenant of one task."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "lease.pdf").write_bytes(text_pdf(LEASE))
    (tmp_path / "mietvertrag.pdf").write_bytes(text_pdf(MIETVERTRAG))
    return tmp_path


def ask_field(person: Person) -> Locator:
    return person.page.get_by_label(re.compile("^(Your question|Ihre Frage)$"))


def answer_of(person: Person) -> Locator:
    turn = person.page.locator("article.turn[aria-busy='false']").last
    turn.wait_for()
    return turn


def uploads(person: Person) -> Locator:
    return person.page.get_by_role("region", name="Uploads")


def test_find_who_may_terminate_the_lease_and_see_the_place(open_page: OpenPage, site: Site, tenant, files) -> None:
    key = site.new_key(tenant=tenant)
    site.upload(files / "lease.pdf", key=key)
    person = Person(open_page(key=key))
    person.waits_for_focus(ask_field(person))
    assert person.page.get_by_label("Model", exact=True).count() == 0, "only models that chat are offered"
    person.type("Who may terminate the lease?")
    person.press("Enter")
    answer = answer_of(person)
    assert "Only the Tenant may terminate the lease" in answer.inner_text()
    person.click(answer.locator(".chip").first)
    person.sees(person.page.locator(".page-viewer-mark").first)
    assert person.page.locator(".page-viewer-number input").input_value() == "3"
    assert person.steps == 3


def test_bring_twenty_reports_and_see_which_failed_and_why(open_page: OpenPage, site: Site, tenant, files) -> None:
    reports = [files / f"report {number:02}.pdf" for number in range(16)]
    for number, path in enumerate(reports):
        path.write_bytes(text_pdf([[f"Report {number} of the harbour.", f"It handled {4000 + number} containers."]]))
    (files / "copy of 00.pdf").write_bytes(reports[0].read_bytes())
    (files / "empty.pdf").write_bytes(b"")
    (files / "damaged.pdf").write_bytes(b"%PDF-1.7 nothing")
    (files / "setup.exe").write_bytes(b"MZ\x90\x00 not a document")
    others = [files / name for name in ("copy of 00.pdf", "empty.pdf", "damaged.pdf", "setup.exe")]
    watched = open_page(key=site.new_key(tenant=tenant))
    watched.allow("status of 415")
    person = Person(watched)
    person.open("Documents")
    person.bring(*reports, *others)
    panel = uploads(person)
    person.sees(panel.get_by_text("17 of 20 files ready, 3 failed"), timeout=READY_MS)
    for name, reason in (
        ("empty.pdf", "The file is empty."),
        ("damaged.pdf", "The file is damaged."),
        ("setup.exe", "Files of this kind cannot be read."),
    ):
        person.sees(panel.get_by_role("listitem").filter(has_text=name).get_by_text(reason))
    assert panel.get_by_text("the same file as").count() == 1, "a copy is no document of its own"
    assert panel.get_by_role("button", name=re.compile("^Try .* again$")).count() == 1, "only what may help is offered"
    assert person.steps == 3


def test_give_a_colleague_a_key_with_a_daily_limit(open_page: OpenPage, site: Site, tenant, files) -> None:
    site.upload(files / "lease.pdf", key=site.new_key(tenant=tenant))
    key = site.new_key(tenant=tenant, scopes=["chat", "search", "documents.read", "tenant.admin"])
    watched = open_page(key=key)
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    person = Person(watched)
    page = person.page
    person.open("Keys and use")
    person.click(page.get_by_role("button", name="New key"))
    dialog = page.get_by_role("dialog")
    person.waits_for_focus(dialog.get_by_label("Name", exact=True))
    person.sees(dialog.get_by_role("button", name="Create the key"))
    dialog.get_by_text("There are: default.").wait_for()
    person.type("Maria")
    person.click(dialog.get_by_label("Tokens a day"))
    person.type("100,000")
    person.press("Enter")
    person.waits_for_focus(dialog.get_by_role("button", name="Copy", exact=True))
    person.sees(dialog.get_by_text(f"signs in with it at {site.url}/"))
    person.press("Enter")
    dialog.get_by_role("button", name="Copied", exact=True).wait_for()
    person.click(dialog.get_by_role("button", name="I have copied it"))
    person.sees(page.get_by_role("row").filter(has_text="Maria").get_by_text("100,000 Tokens a day"))
    with site.client(page.evaluate("navigator.clipboard.readText()")) as client:
        own = client.get("/v1/key").json()
    assert (own["label"], own["tokens_per_day"]) == ("Maria", 100_000)
    assert person.steps == 8


def test_ask_only_within_one_collection(open_page: OpenPage, site: Site, tenant, files) -> None:
    key = site.new_key(tenant=tenant)
    site.upload(files / "lease.pdf", key=key)
    with site.client(key) as client:
        reply = client.post(
            "/v1/rag/documents",
            params={"filename": "offer.txt", "wait_s": 120, "collection": "Offers"},
            content=b"The monthly rent of the other office is 3,100 euros.",
            headers={"content-type": "text/plain"},
        )
        assert reply.status_code == 201, reply.text
    person = Person(open_page(key=key))
    page = person.page
    person.click(page.get_by_role("button", name="All documents"))
    dialog = page.get_by_role("dialog")
    person.click(dialog.get_by_label("Offers (1)"))
    person.click(dialog.get_by_role("button", name="Done"))
    person.waits_for_focus(ask_field(person))
    person.type("What is the monthly rent?")
    person.press("Enter")
    answer = answer_of(person)
    assert "3,100 euros" in answer.inner_text()
    assert "4,200 euros" not in answer.inner_text()
    person.sees(page.get_by_role("button", name="Offers", exact=True))
    assert person.steps == 5


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_delete_a_document_by_mistake_and_take_it_back(open_page: OpenPage, site: Site, tenant, files, by) -> None:
    key = site.new_key(tenant=tenant)
    site.upload(files / "lease.pdf", key=key)
    person = Person(open_page(key=key))
    page = person.page
    person.open("Documents")
    delete = page.get_by_role("button", name="Delete lease.pdf")
    undo = page.get_by_role("button", name="Undo")
    if by == "mouse":
        person.click(delete)
    else:
        delete.focus()
        person.press("Enter")
    person.sees(page.get_by_text("You can undo this for 10 seconds."))
    person.waits_for_focus(undo)
    if by == "mouse":
        person.click(undo)
    else:
        person.press("Enter")
    person.sees(page.get_by_role("row").filter(has_text="lease.pdf").get_by_text("Ready"))
    page.wait_for_timeout(11_000)
    with site.client(key) as client:
        assert [each["filename"] for each in client.get("/v1/rag/documents").json()["data"]] == ["lease.pdf"]
    assert person.steps == 3


@pytest.fixture
def priced_model(site: Site) -> Iterator[str]:
    """A model that costs 0.10 for 100 tokens of input and 20 of output."""
    provider = QuotingProvider()
    with serving(provider, timeout_graceful_shutdown=1) as (url, _server), site.client() as admin:
        models = [{"id": "quoter", "pricing": {"input": 0.8, "output": 1.0}}]
        reply = admin.post("/v1/providers", json={"name": "priced", "base_url": f"{url}/v1", "models": models})
        assert reply.status_code == 201, reply.text
        yield "quoter"
        assert admin.delete("/v1/providers/priced").status_code == 200


def test_see_what_the_last_week_cost_by_key(open_page: OpenPage, site: Site, tenant, priced_model) -> None:
    manager = site.new_key(tenant=tenant, label="manager", scopes=["chat", "tenant.admin"])
    for label, count in (("website", 2), ("Anna", 1)):
        with site.client(site.new_key(tenant=tenant, label=label, scopes=["chat"])) as client:
            for _ in range(count):
                chat = {"model": priced_model, "messages": [{"role": "user", "content": "Hello"}]}
                assert client.post("/v1/chat/completions", json=chat).status_code == 200
    person = Person(open_page(key=manager))
    page = person.page
    person.open("Keys and use")
    person.click(page.get_by_role("tab", name="Use", exact=True))
    person.choose("Period", "7 days")
    person.choose("Divided by", "key")
    table = page.get_by_role("table", name="Use, summed")
    person.sees(table.get_by_role("row").filter(has_text="website").get_by_text("0.20"))
    person.sees(table.get_by_role("row").filter(has_text="Anna").get_by_text("0.10"))
    page.get_by_text("Money is in the currency of the prices").wait_for()
    assert person.steps == 4


def test_open_a_protected_pdf_and_enter_its_password_once(open_page: OpenPage, site: Site, tenant, files) -> None:
    minutes = files / "minutes.pdf"
    minutes.write_bytes(PROTECTED.read_bytes())
    person = Person(open_page(key=site.new_key(tenant=tenant)))
    page = person.page
    person.open("Documents")
    person.bring(minutes)
    panel = uploads(person)
    person.click(panel.get_by_role("button", name="Enter password of minutes.pdf"))
    person.waits_for_focus(page.get_by_role("dialog").get_by_label("Password"))
    person.type(PASSWORD)
    person.press("Enter")
    person.sees(panel.get_by_text("1 of 1 file ready"), timeout=READY_MS)
    person.click(panel.get_by_role("link", name="minutes.pdf"))
    page.locator(".page-viewer-sheet img").wait_for()
    assert page.get_by_label("Password of the file").count() == 0
    assert person.steps == 7
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, document.cookie])")
    assert PASSWORD not in kept
    assert not person.watched.problems
    person.watched.allow("status of 422")
    page.reload()
    form = page.get_by_label("Password of the file")
    form.wait_for()
    box = form.bounding_box()
    assert box is not None
    assert box["height"] < 60, "the form is not stretched over the viewer"


@pytest.fixture
def backup(site: Site, tmp_path: Path) -> Iterator[None]:
    """A backup of the service's data; other tests see none."""
    command = [sys.executable, "-m", "ragsvc", "backup", str(tmp_path / "backup")]
    environment = service_environment(site.service.data_dir)
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment, timeout=120)
    yield
    (site.service.data_dir / LAST_BACKUP_FILE_NAME).unlink()


def test_see_whether_the_service_is_healthy_and_when_it_was_backed_up(open_page: OpenPage, backup) -> None:
    person = Person(open_page())
    person.open("Service")
    person.sees(person.page.get_by_text("The service works."))
    person.sees(person.page.get_by_text(re.compile(r"\d{4}.* documents, .* in /")))
    assert person.steps == 1


def test_read_an_answer_in_german_on_a_phone(open_page: OpenPage, site: Site, tenant, files) -> None:
    key = site.new_key(tenant=tenant)
    site.upload(files / "mietvertrag.pdf", key=key)
    person = Person(open_page(key=key, width=390, height=780, language="de-DE"))
    page = person.page
    assert page.get_by_label("Modell").count() == 0, "the only chat model needs no choice"
    scope = page.get_by_role("button", name="Alle Dokumente").locator("span")
    assert scope.evaluate("(element) => element.scrollWidth <= element.clientWidth"), "the label is cut off"
    person.click(ask_field(person))
    person.type("Wer darf den Mietvertrag kündigen?")
    person.click(page.get_by_role("button", name="Fragen", exact=True))
    answer = answer_of(person)
    person.sees(answer.get_by_text("Nur die Mieterin darf den Mietvertrag vorzeitig kündigen").first)
    person.click(answer.locator(".chip").first)
    person.sees(page.locator(".page-viewer-mark").first)
    person.click(page.get_by_role("button", name="Seitenansicht schließen"))
    person.sees(answer.get_by_text("Nur die Mieterin darf den Mietvertrag vorzeitig kündigen").first)
    assert person.steps == 5


def test_rate_a_wrong_answer_and_export_the_ratings(open_page: OpenPage, site: Site, tenant, files) -> None:
    key = site.new_key(tenant=tenant)
    site.upload(files / "lease.pdf", key=key)
    person = Person(open_page(key=key))
    page = person.page
    person.type("What is the monthly rent?")
    person.press("Enter")
    answer = answer_of(person)
    person.click(answer.get_by_role("button", name="Bad answer"))
    person.waits_for_focus(page.get_by_label("What is wrong or missing?"))
    notice = page.get_by_text("Your rating is stored.").last
    notice.wait_for()
    field, shown = page.locator(".composer").bounding_box(), page.locator(".toast").last.bounding_box()
    assert field is not None
    assert shown is not None
    assert shown["y"] + shown["height"] <= field["y"], "a notice does not cover the field for the question"
    person.type("It was raised to 4,400 euros.")
    person.click(page.get_by_role("button", name="Save the note"))
    page.locator(".turn-note").wait_for(state="detached")
    with page.expect_download() as download:
        person.click(page.get_by_role("link", name="Download ratings as CSV"))
    assert download.value.suggested_filename == "ratings.csv"
    with Path(download.value.path()).open(encoding="utf-8-sig", newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["rating"], row["note"]) == ("down", "It was raised to 4,400 euros.")
    assert (row["question"], row["sources"]) == ("What is the monthly rent?", "lease.pdf, page 1")
    assert person.steps == 6
