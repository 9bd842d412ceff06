"""Struck-out text is marked in the page's text, and never the answer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pypdf
import pytest
from pypdf.annotations import MarkupAnnotation
from pypdf.generic import ArrayObject, FloatObject, NameObject, RectangleObject

from ragsvc.core.documents import Extraction, Page
from ragsvc.testing.pdf_builder import Text, content, make_pdf
from tests.unit.test_extract_order import text_of
from tests.unit.test_tables import ask, cells, passages_of, read

PRICE = "The price is 1,200 euros a day."


def drawn(*shapes: str, texts: Sequence[Text] = ()) -> bytes:
    return content(texts or [Text(72, 700, PRICE, 12)]) + ("\n" + "\n".join(shapes)).encode()


def bar(x: float, y: float, width: float, height: float = 0.7) -> str:
    return f"{x} {y} {width} {height} re f"


def stroke(x: float, y: float, width: float) -> str:
    return f"0.6 w {x} {y} m {x + width} {y} l S"


@pytest.mark.parametrize(
    "shape", [bar(139, 703.2, 33), stroke(139.5, 703.6, 31), f"q 1 0 0 1 100 600 cm {bar(39, 103.2, 33)} Q"]
)
def test_a_line_through_the_middle_strikes_out(shape):
    assert text_of(make_pdf([drawn(shape)])) == "The price is ~~1,200~~ euros a day."


@pytest.mark.parametrize("width", [1.2, 1.6])
def test_a_thick_line_strikes_out(width):
    shape = f"1 0 0 RG {width} w 139.5 704 m 170.5 704 l S"
    assert text_of(make_pdf([drawn(shape)])) == "The price is ~~1,200~~ euros a day."


def test_a_line_on_a_page_of_many_objects_strikes_coloured_text():
    words = [Text(72 + 24 * (n % 18), 660 - 12 * (n // 18), f"w{n}", 9) for n in range(450)]
    deleted = content([Text(72, 700, PRICE, 12)])
    page = b"1 0 0 rg " + deleted + b" 0 g\n" + bar(139, 703.2, 33).encode() + b"\n" + content(words)
    assert text_of(make_pdf([page])).startswith("The price is ~~1,200~~ euros a day.")


def test_several_words_are_one_mark():
    assert text_of(make_pdf([drawn(bar(139, 703.2, 68))])) == "The price is ~~1,200 euros~~ a day."
    assert (
        text_of(make_pdf([drawn(bar(139, 703.2, 32), bar(173.5, 703.2, 33))])) == "The price is ~~1,200 euros~~ a day."
    )


def test_text_on_a_turned_page_is_struck_out_too():
    assert text_of(make_pdf([drawn(bar(139, 703.2, 33))], page_extra=b" /Rotate 90")).startswith(
        "The price is ~~1,200~~"
    )


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(bar(139, 698.0, 33), id="underline"),
        pytest.param(bar(139, 699.5, 33), id="close underline"),
        pytest.param(bar(139, 709.8, 33), id="overline"),
        pytest.param(bar(60, 703.2, 480), id="rule across the page"),
        pytest.param("0.9 g " + bar(139, 698, 33, 12) + " 0 g", id="highlight"),
        pytest.param("72 690 200 24 re S", id="box"),
        pytest.param(bar(139, 703.2, 1.5), id="dot"),
    ],
)
def test_other_lines_do_not(shape):
    assert "~~" not in text_of(make_pdf([drawn(shape)]))


def test_a_fraction_bar_strikes_nothing():
    texts = (Text(100, 706, "84", 9), Text(100, 694, "12", 9), Text(72, 700, "x =", 10))
    assert "~~" not in text_of(make_pdf([drawn(bar(99, 703.4, 12, 0.5), texts=texts)]))


def test_a_rule_between_the_rows_of_a_table_strikes_nothing():
    rows = [("Boat", "Hour", "Day"), ("Canoe", "9", "31"), ("Kayak", "12", "44")]
    texts = [text for n, row in enumerate(rows) for text in cells(row, (72, 200, 300), 700 - 14 * n)]
    shapes = [bar(70, 695 - 14 * n, 260, 0.5) for n in range(3)]
    assert "~~" not in text_of(make_pdf([drawn(*shapes, texts=texts)]))


def test_a_strike_out_annotation_strikes_out(tmp_path: Path):
    path = tmp_path / "file.pdf"
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(make_pdf([[Text(72, 700, PRICE, 12)]])))
    note = MarkupAnnotation()
    note[NameObject("/Subtype")] = NameObject("/StrikeOut")
    note[NameObject("/Rect")] = RectangleObject((139, 697, 172, 711))
    points = (139, 711, 172, 711, 139, 697, 172, 697)
    note[NameObject("/QuadPoints")] = ArrayObject(map(FloatObject, points))
    writer.add_annotation(0, note)
    writer.write(path)
    assert text_of(path.read_bytes()) == "The price is ~~1,200~~ euros a day."


def test_a_struck_figure_is_never_the_answer(tmp_path):
    texts = (Text(72, 700, "The price of a canoe is 1,200 900 euros a day.", 12),)
    extraction = read(tmp_path, drawn(bar(198, 703.2, 33), texts=texts))
    assert "~~1,200~~ 900" in extraction.pages[0].text
    assert ask("What is the price of a canoe?", passages_of(extraction)) == ["The price of a canoe is 900 euros a day."]


def test_a_struck_cell_is_never_the_answer(tmp_path):
    rows = [("Boat", "Hour", "Day"), ("Canoe", "9", "31"), ("Kayak", "12", "44"), ("Raft", "15", "50")]
    texts = [text for n, row in enumerate(rows) for text in cells(row, (72, 200, 300), 700 - 14 * n)]
    extraction = read(tmp_path, drawn(bar(299.5, 675, 12.5), texts=texts))
    (table,) = extraction.tables[1]
    assert table.rows[1].cells == ("Kayak", "12", "~~44~~")
    assert not any("44" in text for text in ask("What does a kayak cost for a day?", passages_of(extraction)))


def test_struck_text_of_markdown_is_no_answer():
    text = "# Prices\n\nA canoe costs ~~31~~ 35 euros a day.\n\n~~A kayak costs 44 euros a day.~~"
    passages = passages_of(Extraction([Page(1, text)]))
    assert ask("What does a canoe cost?", passages) == ["A canoe costs 35 euros a day."]
    assert not any("44" in text for text in ask("What does a kayak cost a day?", passages))
