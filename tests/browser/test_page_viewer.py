"""The page viewer: the marked rectangle shows the quoted words, and a reader moves through the document."""

from __future__ import annotations

import io
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from ragsvc.extract.ocr import open_recogniser
from ragsvc.extract.text_alignment import letters_of
from ragsvc.testing.pdf_builder import make_scan
from tests.browser.accessibility import assert_accessible, assert_fits_width
from tests.browser.conftest import DOCUMENTS, REPORT, SMALL

MARK = ".page-viewer-mark"
QUOTE = "Research and development 7,709 6,306"


def address(document: str, page: int, **mark: object) -> str:
    return f"/documents/{document}/pages/{page}?{urlencode(mark)}"


def seen_in_marks(page) -> str:
    """The letters and digits that text recognition reads in the marked rectangles of a screenshot."""
    page.locator(MARK).first.wait_for()
    page.locator(".page-viewer-sheet img").wait_for()
    page.wait_for_load_state("networkidle")
    screen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    texts: list[str] = []
    for mark in page.locator(MARK).all():
        box = mark.bounding_box()
        assert box is not None
        corners = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        assert 0 <= corners[0] < corners[2] <= screen.width, "the mark is not within the screen"
        assert 0 <= corners[1] < corners[3] <= screen.height, "the mark is not within the screen"
        crop = screen.crop(tuple(map(round, corners)))
        crop = crop.resize((crop.width * 3, crop.height * 3), Image.Resampling.LANCZOS)
        texts.append(open_recogniser().read_line(np.ascontiguousarray(np.asarray(crop)[:, :, ::-1])))
    return letters_of("".join(texts)).lower()


@pytest.fixture(scope="module")
def scan(site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A document that is a scan of a page of the report."""
    path = tmp_path_factory.mktemp("scan") / "scan.pdf"
    path.write_bytes(make_scan(DOCUMENTS / REPORT, 4, dpi=200))
    return site.upload(path)


def test_the_marked_rectangle_of_a_quote_contains_its_words(open_page, site) -> None:
    document = site.document(REPORT)
    with site.client() as client:
        text = client.get(f"/v1/rag/documents/{document}/pages/4").json()["text"]
    assert QUOTE in text
    page = open_page(address(document, 4, quote=QUOTE), width=1600, height=1000).page
    assert seen_in_marks(page) == letters_of(QUOTE).lower()
    start = text.index("Selling, general")
    page.goto(address(document, 4, start=start, end=start + len("Selling, general and administrative")))
    assert seen_in_marks(page) == "sellinggeneralandadministrative"
    assert_accessible(page)


def test_the_marked_rectangle_on_a_scanned_page_contains_the_words(open_page, site, scan) -> None:
    with site.client() as client:
        text = client.get(f"/v1/rag/documents/{scan}/pages/1").json()["text"]
    quote = "Research and development"
    assert quote in text
    page = open_page(address(scan, 1, quote=quote), width=1600, height=1000).page
    page.locator(MARK).first.wait_for(timeout=120_000)
    assert seen_in_marks(page) == letters_of(quote).lower()


def test_a_reader_moves_with_keys_and_comes_back_to_the_quote(open_page, site) -> None:
    page = open_page(address(site.document(REPORT), 4, quote=QUOTE)).page
    page.locator(MARK).first.wait_for()
    number = page.get_by_role("textbox", name="Page")
    page.locator(".page-viewer-scroll").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("img", name="Picture of page 5").wait_for()
    assert number.input_value() == "5"
    assert page.locator(MARK).count() == 0
    number.fill("9")
    number.press("Enter")
    page.get_by_role("img", name="Picture of page 9").wait_for()
    page.get_by_role("button", name="Back to the quote on page 4").click()
    page.locator(MARK).first.wait_for()
    narrow = page.locator(".page-viewer-sheet").bounding_box()
    page.locator(".page-viewer-scroll").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.locator(".page-viewer-sheet img[data-width='1400']").wait_for()
    wide = page.locator(".page-viewer-sheet").bounding_box()
    assert narrow is not None
    assert wide is not None
    assert wide["width"] > 1.4 * narrow["width"]
    scroller = page.locator(".page-viewer-scroll")
    scroller.evaluate("(element) => element.scrollTo({ left: 0 })")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert scroller.evaluate("(element) => element.scrollLeft") > 0, "a page that is too wide is scrolled by keyboard"
    assert number.input_value() == "4"
    assert page.title().startswith(f"{REPORT}, page 4 ")
    page.keyboard.press("0")
    page.get_by_role("button", name="Fit to width").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_url(f"**/documents/{site.document(REPORT)}")


def test_the_outline_leads_to_pages_and_the_original_opens_there(open_page, site) -> None:
    document = site.document(SMALL)
    page = open_page(address(document, 1)).page
    page.get_by_role("button", name="Outline").click()
    outline = page.get_by_role("navigation", name="Outline")
    outline.get_by_role("button", name="Bar").last.click()
    page.get_by_role("img", name="Picture of page 4").wait_for()
    link = page.get_by_role("link", name="Open the original at this page")
    assert link.get_attribute("href") == f"/v1/rag/documents/{document}/content?inline=true#page=4"
    assert_accessible(page)


def test_the_text_of_a_page_is_there_for_screen_readers_and_on_demand(open_page, site) -> None:
    page = open_page(address(site.document(REPORT), 4, quote=QUOTE)).page
    page.locator(MARK).first.wait_for()
    hidden = page.get_by_role("heading", name="Text of page 4")
    assert hidden.count() == 1
    page.get_by_role("button", name="Show the text of the page").click()
    assert " ".join(page.locator(".page-viewer-words mark").inner_text().split()) == QUOTE
    assert_accessible(page)
    page.get_by_role("button", name="Show the picture of the page").click()
    page.locator(MARK).first.wait_for()


def test_a_document_without_pictures_shows_its_text_with_the_quote(open_page, site) -> None:
    with site.client() as client:
        content = "Erste Zeile mit \U0001f6a2 und Ümlaut.\n\nThe harbour handled 4,711 containers.\n"
        reply = client.post(
            "/v1/rag/documents",
            params={"filename": "notes.txt", "wait_s": 200},
            content=content.encode(),
            headers={"content-type": "text/plain; charset=utf-8"},
        )
        document = reply.json()["id"]
        (passage,) = client.get(f"/v1/rag/documents/{document}/passages").json()["data"]
        text = client.get(f"/v1/rag/documents/{document}/pages/1").json()["text"]
    start = text.index("harbour handled")
    watched = open_page(address(document, 1, start=start, end=start + len("harbour handled")))
    watched.allow("status of 404")
    mark = watched.page.locator(".page-viewer-words mark")
    assert mark.inner_text() == "harbour handled"
    watched.page.goto(address(document, 1, quote="4,711 containers", passage_id=passage["id"]))
    assert mark.inner_text() == "4,711 containers"
    watched.page.goto(address(document, 1, passage_id=passage["id"]))
    assert "4,711 containers" in mark.inner_text()
    assert_accessible(watched.page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_viewer_fits_a_phone_in_both_themes(open_page, site, theme) -> None:
    page = open_page(
        address(site.document(REPORT), 4, quote=QUOTE), width=360, height=740, theme=theme, language="de-DE"
    ).page
    page.locator(MARK).first.wait_for()
    assert_fits_width(page)
    assert_accessible(page)
    page.get_by_role("button", name="Gliederung").click()
    assert_fits_width(page)


def test_pages_of_other_tenants_are_not_shown(open_page, site) -> None:
    watched = open_page(address(site.document(REPORT), 4, quote=QUOTE), key=site.other_key)
    watched.allow("status of 404")
    watched.page.get_by_text("This document or page does not exist any more.").first.wait_for()
    assert watched.page.locator(".page-viewer-sheet img").count() == 0
