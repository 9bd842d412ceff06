"""Text that is in the file but that no reader can see."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.extract.read_file import extract
from ragsvc.testing.pdf_builder import Text, assemble, content, make_pdf, make_scan, stream

FIXTURES = Path(__file__).parents[2] / "fixtures"
CASES = FIXTURES / "cases"
SEEN = "The award amount is 485,000 USD."
PLANTED = "The award amount is 7 USD."


def read(path):
    return extract(
        path,
        media_type="application/pdf",
        filename=path.name,
        password=None,
        limits=ExtractionLimits(ocr=False),
        reports=PageReports(on_progress=lambda done, total: None),
    )


@pytest.fixture
def read_bytes(tmp_path):
    def read_data(data: bytes):
        path = tmp_path / "file.pdf"
        path.write_bytes(data)
        return read(path)

    return read_data


def shown(text: str, y: float, *, size: float = 11, operators: str = "") -> bytes:
    return f"q BT /F {size} Tf {operators} 1 0 0 1 72 {y} Tm ({text}) Tj ET Q\n".encode()


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> bytes:
    return f"q {colour} rg {x} {y} {width} {height} re f Q\n".encode()


HIDDEN = {
    "invisible mode": shown(PLANTED, 600, operators="3 Tr"),
    "clipping mode": shown(PLANTED, 600, operators="7 Tr"),
    "white on white": shown(PLANTED, 600, operators="1 1 1 rg"),
    "nearly white": shown(PLANTED, 600, operators="0.99 0.99 0.98 rg"),
    "white in CMYK": shown(PLANTED, 600, operators="0 0 0 0 k"),
    "tiny": shown(PLANTED, 600, size=0.6),
    "tiny by its matrix": b"q BT /F 1 Tf .5 0 0 .5 72 600 Tm (" + PLANTED.encode() + b") Tj ET Q\n",
    "below the page": shown(PLANTED, -300),
    "beside the page": b"BT /F 11 Tf 900 600 Td (" + PLANTED.encode() + b") Tj ET\n",
    "below a black bar": shown(PLANTED, 600) + rectangle(60, 595, 300, 20, "0 0 0"),
    "below a white sheet": shown(PLANTED, 600) + rectangle(60, 500, 300, 200, "1 1 1"),
    "below a sheet, and much follows": shown(PLANTED, 600)
    + rectangle(60, 590, 300, 30, "1 1 1")
    + rectangle(60, 100, 300, 1, "0 0 0") * 50,
    "blue on blue": rectangle(60, 595, 300, 20, ".1 .2 .6") + shown(PLANTED, 600, operators=".1 .2 .6 rg"),
    "black on black": rectangle(60, 595, 300, 20, "0 0 0") + shown(PLANTED, 600),
    "yellow on yellow": rectangle(60, 595, 300, 20, "1 1 .7") + shown(PLANTED, 600, operators="1 1 .72 rg"),
    "flattened to a hair": b"q BT /F 11 Tf 1 0 0 .03 72 600 Tm (" + PLANTED.encode() + b") Tj ET Q\n",
    "of the colour of its field": rectangle(60, 595, 300, 20, "1 1 .9") + shown(PLANTED, 600, operators="1 1 .9 rg"),
}


def test_a_figure_that_was_pasted_over_is_left_out(read_bytes):
    old = shown("Fee: 4 euros", 600) + rectangle(60, 590, 200, 30, "1 1 1") + shown("Fee: 9 euros", 600)
    again = shown("Due: 3 May", 500) + rectangle(60, 490, 200, 30, "1 1 1") + shown("Due: 8 May", 500)
    assert read_bytes(make_pdf([old + again])).pages[0].text.split("\n\n") == ["Fee: 9 euros", "Due: 8 May"]


@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_hidden_text_is_left_out_and_a_problem(read_bytes, hidden):
    extraction = read_bytes(make_pdf([shown(SEEN, 700) + hidden + shown("Payments are quarterly.", 400)]))
    assert extraction.pages[0].text.split("\n\n") == [SEEN, "Payments are quarterly."]
    (problem,) = extraction.problems
    assert (problem.code, problem.first_page, problem.last_page) == (ProblemCode.HIDDEN_TEXT, 1, 1)
    assert problem.message == "Page 1 has 21 hidden characters that a reader cannot see; they were left out."


def test_white_text_across_dark_text_is_left_out(read_bytes):
    """Programs for charts write white copies of labels beside the labels."""
    labels = [shown(SEEN, 600)]
    for index, character in enumerate("General population"):
        if character != " ":
            labels.append(f"q 1 1 1 rg BT /F 11 Tf {150 + 8 * index} 603 Td ({character}) Tj ET Q\n".encode())
    assert read_bytes(make_pdf([b"".join(labels)])).pages[0].text == SEEN


VISIBLE = {
    "black in a white cell of a black frame": rectangle(60, 595, 300, 20, "0 0 0")
    + rectangle(61, 596, 298, 18, "1 1 1")
    + shown(SEEN, 600),
    "white on dark": rectangle(60, 595, 300, 20, "0 0 .4") + shown(SEEN, 600, operators="1 1 1 rg"),
    "light grey": shown(SEEN, 600, operators=".85 .85 .85 rg"),
    "small print": shown(SEEN, 600, size=3),
    "on a shape": rectangle(60, 595, 300, 20, "1 1 .8") + shown(SEEN, 600),
    "below a transparent marker": shown(SEEN, 600) + b"/T gs " + rectangle(60, 595, 300, 20, "1 1 0"),
    "beside a bar": shown(SEEN, 600) + rectangle(60, 560, 300, 20, "0 0 0"),
    "outlined": shown(SEEN, 600, operators="1 Tr 1 1 1 rg"),
    "near the edge": f"BT /F 11 Tf 415 600 Td ({SEEN}) Tj ET\n".encode(),
}


@pytest.mark.parametrize("visible", VISIBLE.values(), ids=VISIBLE)
def test_what_a_reader_can_see_is_kept(read_bytes, visible):
    data = make_pdf([visible]).replace(b"/Resources <<", b"/Resources << /ExtGState << /T << /ca .4 >> >>")
    extraction = read_bytes(data)
    assert extraction.pages[0].text == SEEN
    assert extraction.problems == []


def test_a_page_with_a_white_heading_on_a_bar_is_examined_for_covered_text(read_bytes):
    """If only light text is suspicious, the other text of the page is not examined: the shape must be noticed."""
    heading = rectangle(60, 690, 300, 30, "0 0 .5") + shown("Budget", 700, operators="1 1 1 rg")
    covered = shown(PLANTED, 600) + rectangle(60, 590, 400, 30, ".9 .9 .9") + shown(SEEN, 600)
    rules = b"".join(rectangle(60, 500 - 4 * number, 400, 1, "0 0 0") for number in range(60))
    document = read_bytes(make_pdf([heading + covered + rules]))
    assert document.pages[0].text.split("\n") == ["Budget", "", SEEN]
    assert [problem.code for problem in document.problems] == [ProblemCode.HIDDEN_TEXT]


def test_only_the_light_text_without_a_background_is_left_out(read_bytes):
    heading = rectangle(60, 690, 300, 30, "0 0 .5") + shown("Budget", 700, operators="1 1 1 rg")
    document = read_bytes(make_pdf([heading + shown(SEEN, 600) + shown(PLANTED, 560, operators="1 1 1 rg")]))
    assert PLANTED not in document.pages[0].text
    assert document.pages[0].text.split("\n") == ["Budget", "", SEEN]


def test_a_text_layer_of_a_scan_is_kept(read_bytes):
    scan = make_scan(FIXTURES / "documents/two-columns.pdf", 1, stamp=[Text(72, 700, SEEN)])
    extraction = read_bytes(scan.replace(b"BT /F 11 Tf", b"BT 3 Tr /F 11 Tf").replace(b"/Length ", b"/Length  "))
    assert SEEN in extraction.pages[0].text
    assert ProblemCode.HIDDEN_TEXT not in {problem.code for problem in extraction.problems}


def layered(state: bytes) -> bytes:
    body = b"/OC /L BDC " + shown(PLANTED, 700) + b"EMC " + shown(SEEN, 700) + shown("Payments are quarterly.", 400)
    form = b" /Type /XObject /Subtype /Form /BBox [0 0 595 842] /OC 6 0 R /Resources << /Font << /F 5 0 R >> >>"
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R /OCProperties << /OCGs [6 0 R] /D << %s [6 0 R] >> >> >>" % state,
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources 8 0 R >>",
            stream(body + b"/X Do"),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
            b"<< /Type /OCG /Name (German) >>",
            stream(shown("A form of the layer.", 500), extra=form),
            b"<< /XObject << /X 7 0 R >> /Font << /F 5 0 R >> /Properties << /L 6 0 R >> >>",
        ]
    )


def test_a_layer_that_is_off_is_left_out(read_bytes):
    extraction = read_bytes(layered(b"/OFF"))
    assert PLANTED not in extraction.pages[0].text
    assert "A form" not in extraction.pages[0].text
    assert extraction.pages[0].text == f"{SEEN}\n\nPayments are quarterly."
    assert [problem.code for problem in extraction.problems] == [ProblemCode.HIDDEN_TEXT]


def test_a_layer_that_is_on_is_kept(read_bytes):
    extraction = read_bytes(layered(b"/ON"))
    assert "A form of the layer." in extraction.pages[0].text
    assert extraction.problems == []


def test_each_half_of_a_spread_is_a_page_of_its_own(read_bytes):
    body = content([Text(60, 700, "apples"), Text(660, 700, "pears"), Text(60, 680, "412 t"), Text(660, 680, "977 t")])
    pdf = make_pdf([body, body], size=(1190, 842), page_extra=b" /CropBox [000 0 595 842]")
    second = pdf.rindex(b"/CropBox")
    pdf = pdf[:second] + pdf[second:].replace(b"[000 0 595 842]", b"[595 0 1190 842]", 1)
    pages = [page.text.split() for page in read_bytes(pdf).pages]
    assert pages == [["apples", "412", "t"], ["pears", "977", "t"]]


def test_halves_of_a_rotated_spread(read_bytes):
    body = content([Text(60, 700, "apples are sold"), Text(60, 200, "pears are sold")])
    pdf = make_pdf([body], page_extra=b" /Rotate 90 /CropBox [0 421 595 842]")
    assert read_bytes(pdf).pages[0].text == "apples are sold"


def test_a_quote_is_found_on_the_half_that_shows_it():
    extraction = read(CASES / "spread.pdf")
    assert ["apples" in page.text for page in extraction.pages] == [True, False]
    assert ["pears" in page.text for page in extraction.pages] == [False, True]
    text = extraction.pages[1].text
    boxes = find_quote_boxes(CASES / "spread.pdf", 2, 0, len(text), page_text=text)
    assert boxes
    assert {problem.code for problem in extraction.problems} == {ProblemCode.HIDDEN_TEXT}
    assert extraction.problems[0].last_page == 2


def test_the_boxes_of_a_quote_are_those_of_the_visible_words(tmp_path):
    path = tmp_path / "file.pdf"
    path.write_bytes(make_pdf([shown(SEEN, 700, operators="1 1 1 rg") + shown(SEEN, 400)]))
    assert read(path).pages[0].text == SEEN
    (box,) = find_quote_boxes(path, 1, 0, len(SEEN), page_text=SEEN)
    assert 390 < box.bottom < box.top < 420


def test_planted_sums_are_left_out():
    extraction = read(CASES / "hidden-text.pdf")
    assert "485,000 USD" in extraction.pages[0].text
    assert not any(f" {sum_} USD" in extraction.pages[0].text for sum_ in (1, 7, 9, 11))
    assert "4 euros" not in read(CASES / "cropped-header.pdf").pages[0].text
