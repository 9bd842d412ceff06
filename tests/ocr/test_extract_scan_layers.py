"""Scans with an invisible text layer of another program, which is judged against the picture."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pypdfium2
import pytest

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.pdf_text import open_text_page, read_lines
from ragsvc.extract.read_file import extract
from ragsvc.testing.pdf_builder import Text, make_scan

REPORT = Path(__file__).parents[2] / "fixtures/documents/apple-10-q-2023-07-01.pdf"
WORDS = re.compile(r"\w+")
MISREAD = str.maketrans("aeo1389", "oca78B4")


def layer_of(page: int) -> list[Text]:
    with (
        pypdfium2.PdfDocument(REPORT) as document,
        open_text_page(document.raw, page - 1, max_characters=100_000) as text_page,
    ):
        lines = read_lines(text_page).lines
    ascii_lines = [(line, line.text.encode("ascii", "ignore").decode()) for line in lines if line.text]
    return [Text(line.left, line.bottom + 0.2 * line.size, text, line.size) for line, text in ascii_lines]


def misread(text: str) -> str:
    return text.translate(MISREAD)


@pytest.fixture
def read_scan(tmp_path):
    def read(page: int, layer: list[Text], **how):
        path = tmp_path / "scan.pdf"
        path.write_bytes(make_scan(REPORT, page, layer=layer, **how))
        reports = PageReports(on_progress=lambda done, total: None)
        return extract(
            path,
            media_type="application/pdf",
            filename=path.name,
            password=None,
            limits=ExtractionLimits(),
            reports=reports,
        )

    return read


def codes(extraction):
    return [problem.code for problem in extraction.problems]


@pytest.mark.parametrize("page", [4, 9])
def test_a_layer_that_agrees_is_kept_to_the_letter(read_scan, page):
    layer = layer_of(page)
    extraction = read_scan(page, layer)
    assert codes(extraction) == []
    expected, found = (
        Counter(WORDS.findall(text)) for text in (" ".join(t.text for t in layer), extraction.pages[0].text)
    )
    assert (expected & found).total() > 0.98 * expected.total()


@pytest.mark.parametrize("page", [4, 9])
def test_a_layer_of_misread_words_is_replaced(read_scan, page):
    layer = layer_of(page)
    extraction = read_scan(page, [text._replace(text=misread(text.text)) for text in layer])
    assert codes(extraction) == [ProblemCode.OCR_USED]
    expected, found = (
        Counter(WORDS.findall(text)) for text in (" ".join(t.text for t in layer), extraction.pages[0].text)
    )
    assert (expected & found).total() > 0.9 * expected.total()


def test_a_layer_of_misread_figures_is_replaced(read_scan):
    def swapped(text: str) -> str:
        return re.sub(r"\d", lambda digit: str((int(digit[0]) + 3) % 10), text)

    layer = layer_of(4)
    extraction = read_scan(4, [text._replace(text=swapped(text.text)) for text in layer])
    assert codes(extraction) == [ProblemCode.OCR_USED]
    figures = re.findall(r"\d{1,3},\d{3}", " ".join(text.text for text in layer))
    assert len(figures) > 20
    assert sum(figure in extraction.pages[0].text for figure in figures) > 0.9 * len(figures)


def test_a_layer_on_a_turned_scan_is_judged_as_displayed(read_scan, tmp_path):
    """The page is displayed with a quarter turn; the layer and the picture belong together all the same."""
    path = tmp_path / "turned.pdf"
    layer = layer_of(9)
    path.write_bytes(
        make_scan(REPORT, 9, layer=layer).replace(b"/Type /Page /Parent", b"/Type /Page /Rotate 90 /Parent")
    )
    reports = PageReports(on_progress=lambda done, total: None)
    extraction = extract(
        path,
        media_type="application/pdf",
        filename="turned.pdf",
        password=None,
        limits=ExtractionLimits(),
        reports=reports,
    )
    assert codes(extraction) == []
    assert layer[3].text.split()[0] in extraction.pages[0].text
