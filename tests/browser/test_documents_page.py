"""The Documents page: bringing files, following them, and finding, changing and deleting documents."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import ROOT
from tests.browser.accessibility import assert_accessible, assert_fits_width
from tests.browser.conftest import OpenPage, Site

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

DroppedFile = tuple[str, str, bytes]
"""Name, media type and content."""

PROTECTED = (ROOT / "fixtures" / "dirty" / "password-asdfzxcv.pdf").read_bytes()
PASSWORD = "asdfzxcv"
_READY_MS = 180_000
_COUNT_UPLOADS = """
window.mostUploads = 0;
let uploads = 0;
const send = XMLHttpRequest.prototype.send;
XMLHttpRequest.prototype.send = function (body) {
  window.mostUploads = Math.max(window.mostUploads, ++uploads);
  this.addEventListener("readystatechange", () => this.readyState === 4 && --uploads);
  return send.call(this, body);
};
"""
_SEND = """async ([kind, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, content] of files) {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const target = document.querySelector("main");
  if (kind === "paste") {
    const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
    target.dispatchEvent(event);
    return;
  }
  for (const name of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


def report(number: int) -> DroppedFile:
    lines = [f"Report {number} of the harbour.", f"It handled {4000 + number} containers."]
    return f"report {number:02}.pdf", "application/pdf", text_pdf([lines])


def send(page: Page, files: Sequence[DroppedFile], *, kind: str = "drop") -> None:
    """Drop or paste files on the page."""
    page.evaluate(_SEND, [kind, [[name, kind_, base64.b64encode(data).decode()] for name, kind_, data in files]])


def uploads(page: Page) -> Locator:
    return page.get_by_role("region", name="Uploads")


def wait_for_range(page: Page, first: int, last: int, *, of: int) -> None:
    """Wait until the list says which of all documents it shows; the numbers have a dash between them."""
    page.get_by_text(re.compile(rf"^{first}\W{last} of {of}$")).wait_for()


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name="Documents", exact=True).get_by_role("row").filter(has_text=name)


@pytest.fixture
def new_key(site: Site, request: pytest.FixtureRequest) -> Callable[..., str]:
    """A function that creates a key of a tenant that only this test uses."""
    tenant = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60]

    def new(**fields: object) -> str:
        return site.new_key(tenant=tenant, **fields)

    return new


def add_text(site: Site, key: str, text: str, *, filename: str, kind: str = "text/plain", **query: object) -> str:
    with site.client(key) as client:
        reply = client.post(
            "/v1/rag/documents",
            params={"filename": filename, "wait_s": 120, **query},
            content=text.encode(),
            headers={"content-type": kind},
        )
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]


def test_fifty_files_are_dropped_sent_four_at_a_time_and_become_ready(open_page: OpenPage, new_key) -> None:
    watched = open_page("/documents", key=new_key())
    page = watched.page
    watched.context.add_init_script(_COUNT_UPLOADS)
    page.reload()
    page.get_by_role("button", name="Add files").wait_for()
    send(page, [report(number) for number in range(50)])
    panel = uploads(page)
    panel.get_by_text("of 50 files ready").wait_for()
    bar = panel.get_by_role("progressbar", name="Progress of all uploads")
    shares = []
    deadline = time.monotonic() + _READY_MS / 1000
    while (share := float(bar.get_attribute("value") or 0)) < 1:
        shares.append(share)
        assert time.monotonic() < deadline, panel.inner_text()
        page.wait_for_timeout(100)
    panel.get_by_text("50 of 50 files ready").wait_for()
    assert len(set(shares)) > 5, "the progress of all files is shown while they are read"
    assert shares == sorted(shares)
    assert page.evaluate("window.mostUploads") == 4
    wait_for_range(page, 1, 50, of=50)
    assert row(page, "report 49.pdf").get_by_text("Ready").is_visible()


def test_files_are_pasted_and_chosen_in_dialogs(open_page: OpenPage, new_key, tmp_path: Path) -> None:
    page = open_page("/documents", key=new_key()).page
    send(page, [("pasted.txt", "text/plain", b"Pasted words.")], kind="paste")
    folder = tmp_path / "papers"
    (folder / "inner").mkdir(parents=True)
    (folder / "first.txt").write_text("The first paper.")
    (folder / "inner" / "second.txt").write_text("The second paper.")
    (folder / ".hidden.txt").write_text("Not meant.")
    page.get_by_test_id("folder").set_input_files(folder)
    page.get_by_test_id("files").set_input_files([folder / "first.txt"])  # the same bytes again
    panel = uploads(page)
    panel.get_by_text("4 of 4 files ready").wait_for(timeout=_READY_MS)
    assert panel.get_by_text("papers/inner/second.txt").is_visible()
    assert panel.get_by_text("Was already there").count() + panel.get_by_text("Ready", exact=True).count() == 4
    wait_for_range(page, 1, 3, of=3)


def test_failures_say_why_and_are_retried_with_a_password(open_page: OpenPage, new_key) -> None:
    watched = open_page("/documents", key=new_key())
    watched.allow("status of 415")
    page = watched.page
    send(
        page,
        [
            ("broken.pdf", "application/pdf", b"%PDF-1.7 nothing"),
            ("locked.pdf", "application/pdf", PROTECTED),
            ("program.exe", "application/x-msdownload", b"MZ\x90\x00 not a document"),
        ],
    )
    panel = uploads(page)
    panel.get_by_text("0 of 3 files ready, 3 failed").wait_for(timeout=_READY_MS)
    assert panel.get_by_text("The file is damaged.").is_visible()
    assert panel.get_by_text("Files of this kind cannot be read.").is_visible()
    panel.get_by_role("button", name="Try broken.pdf again").click()
    panel.get_by_role("button", name="Enter password").click()
    dialog = page.get_by_role("dialog", name="This file is protected")
    dialog.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    panel.get_by_text("The password was wrong.").wait_for(timeout=_READY_MS)
    panel.get_by_role("button", name="Enter password").click()
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Read the file").click()
    panel.get_by_text("1 of 3 files ready, 2 failed").wait_for(timeout=_READY_MS)
    row(page, "locked.pdf").get_by_text("Ready").wait_for()
    row(page, "broken.pdf").get_by_text("The file is damaged.").wait_for()
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
    assert PASSWORD not in kept
    assert page.locator("input[type=password]").count() == 0


def test_documents_are_renamed_described_filtered_and_deleted_with_undo(
    open_page: OpenPage, site: Site, new_key
) -> None:
    key = new_key()
    first = add_text(site, key, "The lease of the harbour.", filename="lease.txt")
    second = add_text(site, key, "The minutes of May.", filename="minutes.txt")
    add_text(site, key, "The minutes of June.", filename="june.txt", collection="archive")
    page = open_page("/documents", key=key).page
    page.get_by_role("button", name="Change name and properties of lease.txt").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("lease 2024.txt")
    dialog.get_by_role("button", name="Add a property").click()
    dialog.get_by_label("Property", exact=True).fill("year")
    dialog.get_by_label("Kind").select_option("number")
    dialog.get_by_label("Value").fill("not a number")
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text("“not a number” is not a number.").wait_for()
    dialog.get_by_label("Value").fill("2024")
    dialog.get_by_role("button", name="Save").click()
    dialog.wait_for(state="detached")
    row(page, "lease 2024.txt").wait_for()
    with site.client(key) as client:
        stored = client.get(f"/v1/rag/documents/{first}").json()
        assert (stored["filename"], stored["metadata"]) == ("lease 2024.txt", {"year": 2024})

    page.get_by_label("Property").fill("year=2024")
    wait_for_range(page, 1, 1, of=1)
    page.get_by_role("button", name="Remove filters").click()
    wait_for_range(page, 1, 3, of=3)
    page.get_by_label("Name contains").fill("MINUTES")
    wait_for_range(page, 1, 1, of=1)
    page.get_by_label("Name contains").fill("")
    page.get_by_label("Collection", exact=True).select_option("archive")
    wait_for_range(page, 1, 1, of=1)
    page.get_by_role("button", name="Remove filters").click()
    page.get_by_label("Sort by").select_option("name:asc")
    wait_for_range(page, 1, 3, of=3)
    links = page.get_by_role("region", name="Documents", exact=True).locator("tbody a")
    links.nth(1).filter(has_text="lease 2024.txt").wait_for()  # the former order has the same range
    assert links.all_inner_texts() == ["june.txt", "lease 2024.txt", "minutes.txt"]

    page.get_by_role("button", name="Delete minutes.txt").click()
    row(page, "minutes.txt").wait_for(state="detached")
    with site.client(key) as client:
        assert client.get(f"/v1/rag/documents/{second}").status_code == 200
    page.get_by_role("button", name="Undo").click()
    row(page, "minutes.txt").wait_for()
    page.get_by_label("Select minutes.txt").check()
    page.get_by_label("Select june.txt").check()
    page.get_by_text("2 documents selected").wait_for()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("2 documents are deleted.").wait_for()
    wait_for_range(page, 1, 1, of=1)
    page.goto("/ask")  # leaving the page finishes the deletion
    with site.client(key) as client:
        deadline = time.monotonic() + 20
        while client.get("/v1/rag/documents").json()["data"][1:]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert client.get(f"/v1/rag/documents/{first}").status_code == 200


def test_a_deletion_happens_after_ten_seconds(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    document = add_text(site, key, "Soon gone.", filename="gone.txt")
    page = open_page(f"/documents/{document}", key=key).page
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/documents")
    page.get_by_text("“gone.txt” is deleted.").wait_for()
    page.get_by_text("No documents yet.").wait_for()
    with site.client(key) as client:
        assert client.get(f"/v1/rag/documents/{document}").status_code == 200
        page.wait_for_timeout(10_500)
        deadline = time.monotonic() + 10
        while client.get(f"/v1/rag/documents/{document}").status_code != 404:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_signing_out_finishes_deletions_and_another_key_sees_nothing_of_the_former(
    open_page: OpenPage, site: Site, new_key
) -> None:
    key = new_key()
    document = add_text(site, key, "Soon gone.", filename="gone.txt")
    page = open_page("/documents", key=key).page
    send(page, [("secret plan.txt", "text/plain", b"The secret plan.")])
    uploads(page).get_by_text("1 of 1 file ready").wait_for(timeout=_READY_MS)
    page.get_by_role("button", name="Delete gone.txt").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()
    with site.client(key) as client:
        assert client.get(f"/v1/rag/documents/{document}").status_code == 404
    page.get_by_label("API key").fill(site.other_key)
    page.keyboard.press("Enter")
    page.get_by_role("navigation", name="Pages").wait_for()
    page.get_by_role("link", name="Documents", exact=True).click()
    page.get_by_text("No documents yet.").wait_for()
    assert "secret plan" not in page.content()


def test_what_is_done_in_one_tab_is_not_done_as_the_key_of_another_tab(
    open_page: OpenPage, site: Site, new_key
) -> None:
    watched = open_page("/documents", key=new_key())
    watched.allow("status of 403")
    page = watched.page
    page.get_by_role("button", name="Collections").click()
    dialog = page.get_by_role("dialog", name="Collections")
    dialog.get_by_label("Name of a new collection").fill("of the first tenant")
    page.wait_for_timeout(1_500)  # the list is read again after the snapshot of the events
    other = watched.context.new_page()
    other.goto(site.sign_in_link(site.other_key))
    other.get_by_role("button", name="Sign in with the link").click()
    other.get_by_role("navigation", name="Pages").wait_for()
    dialog.get_by_role("button", name="Create").click()
    dialog.wait_for(state="detached")
    page.get_by_role("navigation", name="Pages").wait_for()
    with site.client(site.other_key) as client:
        names = [collection["name"] for collection in client.get("/v1/rag/collections").json()["data"]]
    assert "of the first tenant" not in names


def test_an_upload_continues_when_another_tab_signs_in_again(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    watched = open_page("/documents", key=key)
    watched.allow("status of 403")
    watched.page.wait_for_timeout(1_500)  # the list is read again after the snapshot of the events
    other = watched.context.new_page()
    other.goto(site.sign_in_link(key))
    other.get_by_role("button", name="Sign in with the link").click()
    other.get_by_role("navigation", name="Pages").wait_for()
    send(watched.page, [("plan.txt", "text/plain", b"The plan.")])
    uploads(watched.page).get_by_text("1 of 1 file ready").wait_for(timeout=_READY_MS)


def test_an_upload_that_is_read_while_the_connection_is_lost_becomes_ready(
    open_page: OpenPage, site: Site, new_key
) -> None:
    key = new_key()
    watched = open_page("/documents", key=key)
    watched.allow("ERR_FAILED|status of 401")
    page = watched.page
    page.route("**/v1/rag/events", lambda route: route.abort())
    page.reload()
    page.get_by_text("The connection was lost.").wait_for()
    send(page, [("plan.txt", "text/plain", b"The plan."), ("map.txt", "text/plain", b"The map.")])
    page.locator(".uploads-item[data-state=processing]").nth(1).wait_for()
    with site.client(key) as client:
        deadline = time.monotonic() + 60
        while client.get("/v1/rag/documents/counts").json()["ready"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    watched.context.clear_cookies()  # the session ends as well
    page.unroute("**/v1/rag/events")
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    uploads(page).get_by_text("2 of 2 files ready").wait_for()
    row(page, "plan.txt").get_by_text("Ready").wait_for()


def test_what_is_typed_into_a_filter_stays_when_the_list_changes(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    add_text(site, key, "The lease of the harbour.", filename="lease.txt")
    page = open_page("/documents", key=key).page
    row(page, "lease.txt").wait_for()
    typed = page.evaluate(
        """async () => {
          const [name, property] = document.querySelectorAll(".filters input[type=search]");
          for (const [field, text] of [[name, "le"], [property, "year"]]) {
            field.value = text;
            field.dispatchEvent(new InputEvent("input", { bubbles: true }));
          }
          document.querySelector(".select-all input").click();
          await new Promise((resolve) => setTimeout(resolve, 150));
          return [name.value, property.value];
        }"""
    )
    assert typed == ["le", "year"]
    page.wait_for_url("**/documents?name=le&property=year")
    page.get_by_role("button", name="Remove filters").click()
    page.wait_for_url("**/documents")
    assert page.get_by_label("Name contains").input_value() == ""


def test_collections_are_created_filled_and_deleted(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    page = open_page("/documents", key=key).page
    page.get_by_role("button", name="Collections").click()
    dialog = page.get_by_role("dialog", name="Collections")
    dialog.get_by_label("Name of a new collection").fill("leases/2024")
    dialog.get_by_role("button", name="Create").click()
    dialog.get_by_text("leases/2024").wait_for()
    dialog.get_by_role("button", name="Close").click()
    assert page.get_by_label("Add to collection").input_value() == "leases/2024"
    send(page, [("lease.txt", "text/plain", b"The lease ends in May.")])
    uploads(page).get_by_text("1 of 1 file ready").wait_for(timeout=_READY_MS)
    with site.client(key) as client:
        assert client.get("/v1/rag/collections/leases/2024").json()["ready"] == 1
    page.get_by_role("button", name="Collections").click()
    dialog.get_by_role("button", name="Delete the collection leases/2024").click()
    dialog.get_by_text("and its document are deleted").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('role')") == "alertdialog"
    dialog.get_by_role("button", name="Delete collection and documents").click()
    dialog.locator(".collections-name", has_text="leases/2024").wait_for(state="detached")
    dialog.get_by_role("button", name="Close").click()
    page.get_by_text("No documents yet.").wait_for()


def test_changes_from_elsewhere_appear_by_themselves(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    page = open_page("/documents", key=key).page
    page.get_by_text("No documents yet.").wait_for()
    document = add_text(site, key, "From elsewhere.", filename="elsewhere.txt")
    row(page, "elsewhere.txt").get_by_text("Ready").wait_for()
    with site.client(key) as client:
        client.patch(f"/v1/rag/documents/{document}", json={"filename": "renamed.txt"})
        row(page, "renamed.txt").wait_for()
        client.delete(f"/v1/rag/documents/{document}")
    page.get_by_text("No documents yet.").wait_for()


def test_a_search_says_why_each_passage_was_found(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    add_text(site, key, "The harbour handled 4,711 containers in 2023.", filename="harbour.txt")
    add_text(site, key, "The museum sold 300 tickets in 2023.", filename="museum.txt")
    page = open_page("/documents", key=key).page
    page.get_by_role("tab", name="Search in the text").click()
    page.get_by_label("What are you looking for?").fill("How many containers did the harbour handle?")
    page.keyboard.press("Enter")
    best = page.locator(".hit").first
    best.get_by_role("link", name="harbour.txt, page 1").wait_for()
    assert best.locator("mark").all_inner_texts() == ["harbour", "handled", "containers"]
    for mode, parts in (
        ("hybrid", {"Same meaning", "Your words"}),
        ("dense", {"Same meaning"}),
        ("lexical", {"Your words"}),
    ):
        page.get_by_label("How to search").select_option(mode)
        page.wait_for_url(re.compile(f"mode={mode}") if mode != "hybrid" else "**")
        best.locator("summary").click()
        table = best.locator("table")
        table.wait_for()
        page.wait_for_function(
            "(names) => names.every((name) => document.querySelector('.hit table').innerText.includes(name))",
            arg=sorted(parts),
        )
        points = [percent(text) for text in table.locator("tbody td:last-child").all_inner_texts()]
        together = percent(table.locator("tfoot td").inner_text())
        assert sum(points) == pytest.approx(together, abs=0.3)
        assert_accessible(page)
        best.locator("summary").click()
    page.goto(page.url)  # the address holds the search
    best.get_by_role("link", name="harbour.txt, page 1").click()
    page.wait_for_url("**/documents/doc_*")
    page.get_by_role("heading", level=1, name="harbour.txt").wait_for()
    marked = page.locator(".page-text mark")
    marked.wait_for()
    assert marked.inner_text() == "The harbour handled 4,711 containers in 2023."


def percent(text: str) -> float:
    return float(text.rstrip("%").strip())


def test_a_document_shows_its_pages_passages_outline_and_facts(open_page: OpenPage, site: Site) -> None:
    document = site.document("outline.pdf")
    with site.client() as client:
        facts = client.get(f"/v1/rag/documents/{document}").json()
        second = client.get(f"/v1/rag/documents/{document}/pages/2").json()
    page = open_page(f"/documents/{document}").page
    page.locator(".page-lines").wait_for()
    picture = page.locator(".page-viewer img")
    picture.wait_for()
    page.get_by_role("button", name="Next page").click()
    page.get_by_role("heading", name=f"Page 2 of {facts['pages']}").wait_for()
    page.wait_for_url("**page=2*")
    page.wait_for_function("(text) => document.querySelector('.page-lines')?.textContent === text", arg=second["text"])
    page.get_by_role("tab", name="Passages").click()
    page.get_by_role("button", name="Show on page 1").first.click()
    page.locator(".page-text mark").wait_for()
    page.get_by_role("tab", name="Outline").click()
    page.locator(".outline button").first.wait_for()
    page.get_by_role("tab", name="About").click()
    with site.client() as client:
        timings = client.get(f"/v1/rag/documents/{document}").json()["timings"]
    took = page.locator(".facts div").filter(has_text="Time to read").locator("dd").inner_text()
    assert float(took.removesuffix(" s")) == pytest.approx(timings["parse_s"] + timings["embed_s"], abs=0.06)
    assert page.get_by_text(facts["sha256"]).is_visible()
    assert_accessible(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible_in_both_themes(open_page: OpenPage, site: Site, new_key, theme: str) -> None:
    key = new_key()
    document = add_text(site, key, "The harbour handled 4,711 containers.", filename="harbour.txt")
    page = open_page("/documents", key=key, theme=theme).page
    send(
        page,
        [
            ("broken.pdf", "application/pdf", b"%PDF-1.7 nothing"),
            report(1),
            ("locked.pdf", "application/pdf", PROTECTED),
        ],
    )
    uploads(page).get_by_text("1 of 3 files ready, 2 failed").wait_for(timeout=_READY_MS)
    row(page, "broken.pdf").get_by_text("The file is damaged.").wait_for()
    page.get_by_label("Select harbour.txt").check()
    assert_accessible(page)
    page.get_by_role("button", name="Change name and properties of harbour.txt").click()
    page.get_by_role("dialog").get_by_role("button", name="Add a property").click()
    assert_accessible(page)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Collections").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the collection default").click()
    assert_accessible(page)
    page.goto(f"/documents/{document}?page=1&start=0&end=11")
    page.locator(".page-text mark").wait_for()
    assert_accessible(page)


def test_the_page_fits_a_phone_and_is_german(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    name = "ein-sehr-langer-Dateiname-ohne-Leerzeichen-der-umbrechen-muss-2024-Fassung-3.txt"
    document = add_text(site, key, "Der Hafen schlug 4.711 Container um.", filename=name)
    page = open_page("/documents", key=key, width=360, height=740, language="de-DE").page
    send(page, [("kaputt.pdf", "application/pdf", b"%PDF-1.7 nothing"), report(1)])
    page.get_by_text("1 von 2 Dateien fertig, 1 fehlgeschlagen").wait_for(timeout=_READY_MS)
    row_ = page.get_by_role("link", name=name)
    row_.wait_for()
    assert_fits_width(page)
    assert_accessible(page)
    page.get_by_role("button", name=f"Name und Eigenschaften von {name} ändern").click()
    page.get_by_role("dialog").get_by_role("button", name="Eigenschaft hinzufügen").click()
    assert_fits_width(page)
    assert_accessible(page)
    page.goto("/documents?view=search&q=Container")
    page.locator(".hit summary").first.click()
    assert_fits_width(page)
    page.goto(f"/documents/{document}")
    page.locator(".page-lines").wait_for()
    assert_fits_width(page)
    assert_accessible(page)


def test_stored_html_and_names_with_html_run_no_script(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    hostile = (
        "<!doctype html><title>Hostile</title><h1>Terms</h1><p>The rent is 900 euros.</p>"
        "<script>document.title = 'ran'; parent.hacked = 1</script>"
        "<svg xmlns='http://www.w3.org/2000/svg' onload='parent.hacked = 1'><script>parent.hacked = 1</script></svg>"
        "<img src=x onerror='parent.hacked = 1'>"
    )
    web_page = add_text(site, key, hostile, filename="terms.html", kind="text/html")
    name = "<img src=x onerror=window.hacked=1>.txt"
    text = add_text(site, key, "<svg onload=window.hacked=1><script>window.hacked=1</script> Rent.", filename=name)
    watched = open_page("/documents", key=key)
    page = watched.page
    page.get_by_role("link", name=name).wait_for()
    for document in (text, web_page):
        page.goto(f"/documents/{document}")
        page.locator(".page-lines").wait_for()
        page.get_by_role("tab", name="Passages").click()
        page.locator(".hit-quote").first.wait_for()
        assert page.evaluate("window.hacked") is None
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the original").click()
        assert download.value.suggested_filename
    content = f"{site.url}/v1/rag/documents/{web_page}/content"
    reply = watched.context.request.get(content, headers={"sec-fetch-site": "same-origin"})
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["content-security-policy"] == "sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"
    watched.allow("frame-src|default-src|Refused|Framing|X-Frame-Options|frame-ancestors")
    page.evaluate(
        "(url) => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }",
        content,
    )
    page.wait_for_timeout(1000)
    assert page.evaluate("window.hacked") is None
    assert page.title() != "ran"


def test_a_long_list_is_shown_in_pages(open_page: OpenPage, site: Site, new_key) -> None:
    key = new_key()
    with site.client(key) as client:
        for number in range(120):
            reply = client.post(
                "/v1/rag/documents",
                params={"filename": f"note {number:03}.txt", "wait_s": 0},
                content=f"Note {number}.".encode(),
                headers={"content-type": "text/plain"},
            )
            assert reply.status_code == 202, reply.text
    page = open_page("/documents?sort=name:asc", key=key).page
    wait_for_range(page, 1, 50, of=120)
    page.get_by_role("button", name="Next").click()
    wait_for_range(page, 51, 100, of=120)
    links = page.get_by_role("region", name="Documents", exact=True).locator("tbody a")
    assert links.first.inner_text() == "note 050.txt"
    page.get_by_role("button", name="Next").click()
    wait_for_range(page, 101, 120, of=120)
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_role("button", name="Previous").click()
    wait_for_range(page, 51, 100, of=120)


def test_a_key_that_may_only_read_sees_no_changes_to_make(open_page: OpenPage, site: Site, new_key) -> None:
    add_text(site, new_key(), "Readable.", filename="readable.txt")
    page = open_page("/documents", key=new_key(scopes=["documents.read", "search"])).page
    row(page, "readable.txt").wait_for()
    page.get_by_text("Your key may read documents").wait_for()
    for name in ("Add files", "Delete readable.txt", "Change name and properties of readable.txt"):
        assert page.get_by_role("button", name=name).count() == 0


def test_a_list_that_changes_all_the_time_is_not_loaded_all_the_time(open_page: OpenPage, site: Site, new_key) -> None:
    """A key has 60 requests a minute by default, and the other pages use the same key."""
    key = new_key()
    page = open_page("/documents", key=key).page
    page.get_by_text("Add files").first.wait_for()
    page.wait_for_timeout(1500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {urlsplit(request.url).path}"))
    began = time.monotonic()
    for number in range(30):
        add_text(site, key, f"Note {number} of the harbour.", filename=f"note {number:02}.txt")
        page.wait_for_timeout(400)
    most = 6 + (time.monotonic() - began) / 10 + 1
    assert 1 <= asked.count("GET /v1/rag/documents") <= most, asked
    assert 1 <= asked.count("GET /v1/rag/collections") <= most, asked
    wait_for_range(page, 1, 30, of=30)
