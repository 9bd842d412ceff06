"""Footnote marks, exponents, subscripts and drop caps, which are told from figures by size and baseline."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.extract.read_file import extract
from ragsvc.testing.pdf_builder import Text, assemble, content, make_pdf, stream

CASES = Path(__file__).parents[2] / "fixtures/cases"


def read(path):
    return extract(
        path,
        media_type="application/pdf",
        filename=path.name,
        password=None,
        limits=ExtractionLimits(),
        reports=PageReports(on_progress=lambda done, total: None),
    )


@pytest.fixture
def read_page(tmp_path):
    def read_content(data: bytes) -> str:
        path = tmp_path / "file.pdf"
        path.write_bytes(make_pdf([data]))
        return read(path).pages[0].text

    return read_content


def row(*parts: tuple[str, float, float], y: float = 700, x: float = 72) -> bytes:
    """A row of (text, size, rise) after each other; pdfium places each where the last one ended."""
    shown = "".join(f"/F {size} Tf {rise} Ts ({text}) Tj " for text, size, rise in parts)
    return f"BT {x} {y} Td {shown} ET\n".encode("cp1252")


BASE = 11.0
RAISED = (7.0, 4.0)
LOWERED = (7.0, -2.0)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((("Members: 1,482", BASE, 0), ("3", *RAISED), (" of which 211", BASE, 0)), "Members: 1,482³ of which 211"),
        ((("July 29, 2023", BASE, 0), ("12", *RAISED)), "July 29, 2023¹²"),
        ((("a share of 36.5%", BASE, 0), ("1,2", *RAISED), (" of it", BASE, 0)), "a share of 36.5%¹,² of it"),
        ((("Revenue", BASE, 0), ("1", *RAISED), (" rose", BASE, 0)), "Revenue¹ rose"),
        ((("in 2025", BASE, 0), ("a", *RAISED), (" it fell", BASE, 0)), "in 2025^a it fell"),
        ((("4.2 x 10", BASE, 0), ("-6", *RAISED), (" mol", BASE, 0)), "4.2 x 10\u207b⁶ mol"),
        ((("52 m", BASE, 0), ("2", *RAISED), (".", BASE, 0)), "52 m²."),
        ((("at 20", BASE, 0), ("2", BASE, 4.0), (" units", BASE, 0)), "at 20² units"),
        ((("the log", BASE, 0), ("2", *LOWERED), ("10 is", BASE, 0)), "the log₂10 is"),
        ((("CO", BASE, 0), ("2", *LOWERED), (" and H", BASE, 0), ("2", *LOWERED), ("O.", BASE, 0)), "CO2 and H2O."),
        ((("the 5", BASE, 0), ("th", *RAISED), (" year", BASE, 0)), "the 5th year"),
        ((("5", BASE, 0), ("1", *RAISED), ("/", BASE, 0), ("2", *LOWERED), (" hours", BASE, 0)), "5 1/2 hours"),
        ((("as amended", BASE, 0), ("(1)", *RAISED), (" in May", BASE, 0)), "as amended(1) in May"),
        ((("1", *RAISED), ("Preliminary figure.", BASE, 0)), "1 Preliminary figure."),
        ((("grown by 3 and ", BASE, 0), ("smaller text", 7.0, 0)), "grown by 3 and smaller text"),
    ],
)
def test_marks_are_kept_apart(read_page, parts, expected):
    assert read_page(row(*parts)) == expected


def test_marks_are_kept_apart_where_a_program_places_each_character(read_page):
    """Some programs write each character separately: a row has many more rectangles than are measured."""
    sizes = {**dict.fromkeys("1482937", 0.556), ",": 0.278}
    texts, x = [Text(72, 700, "Total members in all of the years until now")], 320.0
    for text, size, y in (("1,482", 11, 700), ("3", 7, 704), ("9,773", 11, 700)):
        for character in text:
            texts.append(Text(x, y, character, size))
            x += sizes[character] * size
        x += 12 * (size == 7)
    assert read_page(content(texts)).endswith("until now 1,482³ 9,773")


def test_a_mark_breaks_neither_line_nor_paragraph(read_page):
    page = read_page(
        row(
            ("The loans that the cooperative granted in the year 2025", BASE, 0), ("2", *RAISED), (" amounted", BASE, 0)
        )
        + row(("to the sum of 36.5", BASE, 0), ("1", *RAISED), (" million euros for its members.", BASE, 0), y=686)
    )
    assert page == (
        "The loans that the cooperative granted in the year 2025² amounted to the sum of 36.5¹ million euros for its "
        "members."
    )


def test_marks_in_the_cells_of_a_table_do_not_break_its_rows(read_page):
    def cell(x, y, text, mark=""):
        raised = f" /F 8 Tf 5 Ts ({mark}) Tj 0 Ts" if mark else ""
        return f"q BT 1 0 0 1 {x} {y} Tm /F 10 Tf ({text}) Tj{raised} ET Q"

    rows = [
        [cell(60, 700, "Item"), cell(220, 700, "2025", "1"), cell(380, 700, "2024", "2")],
        [cell(60, 684, "Sales", "3"), cell(220, 684, "1,482", "4"), cell(380, 684, "1,390")],
        [cell(60, 668, "Boats sold"), cell(220, 668, "736", "5"), cell(380, 668, "935")],
    ]
    text = read_page("\n".join(cell for row in rows for cell in row).encode())
    assert text.replace("\n\n", "\n").split("\n") == ["Item 2025¹ 2024²", "Sales³ 1,482⁴ 1,390", "Boats sold 736⁵ 935"]


def test_a_drop_cap_joins_its_word(read_page):
    rows = ("he first apples were grown in the valley of the river", "and the harvest was 412 tons in the first year,")
    text = [Text(72, 672, "T", 36), *(Text(96, 689 - 13 * n, line) for n, line in enumerate(rows))]
    text += [Text(72, 663 - 13 * n, "which was more than anybody in the valley had expected.") for n in range(2)]
    assert read_page(content(text)).startswith("The first apples were grown")


def test_a_large_letter_beside_a_paragraph_is_not_a_drop_cap(read_page):
    text = [Text(72, 672, "A", 36), Text(140, 689, "part of the agenda is about apples")]
    assert "Apart" not in read_page(content(text))


def test_a_figure_with_a_mark_is_found_on_its_page(tmp_path):
    path = tmp_path / "file.pdf"
    path.write_bytes(make_pdf([row(("Members: 1,482", BASE, 0), ("3", *RAISED), (" of which 211", BASE, 0))]))
    text = read(path).pages[0].text
    start = text.index("1,482³")
    boxes = find_quote_boxes(path, 1, start, start + len("1,482³"), page_text=text)
    assert boxes
    assert 110 < boxes[0].left < 130


@pytest.mark.parametrize("name", ["superscript.pdf", "typst-superscript.pdf"])
def test_marks_of_real_programs(name):
    page = read(CASES / name).pages[0].text
    assert "1,482³" in page
    assert "36.5¹ million" in page
    assert "H2O" in page


def test_marks_that_are_raised_glyphs_of_the_font():
    """Size and baseline are those of the text; only the shape of the glyph is raised (OpenType feature ``sups``)."""
    extraction = read(CASES / "typographic-marks.pdf")
    text = extraction.pages[0].text
    for words in ("1,482³ of which 211⁴ joined in 2025².", "36.5¹ million in 2025^a, as Kayak¹² reports."):
        assert words in text
    (table,) = extraction.tables[1]
    assert table.columns == ("Boat⁵", "2025", "2024⁶")
    assert [row.cells for row in table.rows] == [("Canoe", "1,390⁷", "9"), ("Raft", "12", "80")]


def test_letters_of_formulas_are_kept_and_found_on_their_page():
    page = read(CASES / "math-letters.pdf").pages[0].text
    assert "where U is the transmittance, A the area" in page
    assert "with rate r and number of years n." in page
    start = page.index("U is the transmittance")
    boxes = find_quote_boxes(CASES / "math-letters.pdf", 1, start, start + 22, page_text=page)
    assert boxes
    assert boxes[0].right - boxes[0].left > 80


def test_headings_in_mathematical_letters_are_plain_words():
    extraction = read(CASES / "bold-sans-headings.pdf")
    assert extraction.pages[0].text.startswith("Work Experience")
    assert "Education\n" in extraction.pages[0].text


def to_unicode(*pairs: tuple[int, str]) -> bytes:
    rows = "".join(f"<{code:02x}> <{text.encode('utf-16-be').hex()}>\n" for code, text in pairs)
    return (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        f"1 begincodespacerange <00> <ff> endcodespacerange {len(pairs)} beginbfchar\n{rows}endbfchar endcmap end end"
    ).encode()


@pytest.mark.parametrize("text", ["𠮷田さん", "👍 done", "\U0001d44e+\U0001d44f"])
def test_characters_beyond_16_bits_of_a_font(tmp_path, text):
    codes = {character: 65 + index for index, character in enumerate(dict.fromkeys(text))}
    shown = "".join(chr(codes[character]) for character in text)
    font = (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding /ToUnicode 3 0 R >>",
        stream(to_unicode(*((code, character) for character, code in codes.items()))),
    )
    objects = [
        b"<< /Type /Catalog /Pages 4 0 R >>",
        font[0],
        font[1],
        b"<< /Type /Pages /Kids [5 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 4 0 R /MediaBox [0 0 595 842] /Contents 6 0 R /Resources 7 0 R >>",
        stream(content([Text(72, 700, shown)])),
        b"<< /Font << /F 2 0 R >> >>",
    ]
    path = tmp_path / "file.pdf"
    path.write_bytes(assemble(objects))
    page = read(path).pages[0].text
    assert page == unicodedata.normalize("NFKC", text)
    start = len(page) - 1
    assert find_quote_boxes(path, 1, start, len(page), page_text=page)
