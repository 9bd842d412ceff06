"""Bullets in symbol fonts are list marks, so that each item is a line of its own."""

from __future__ import annotations

import pytest

from ragsvc.core.text.sentences import sentence_spans
from ragsvc.extract.clean import clean_line
from ragsvc.testing.pdf_builder import make_pdf
from tests.unit.test_extract_order import text_of

ITEMS = ("the boats are painted in spring", "the moorings are checked in autumn", "the slipway is closed in winter")
SYMBOL = b"<< /Type /Font /Subtype /Type1 /BaseFont /Symbol >>"
DINGBATS = b"<< /Type /Font /Subtype /Type1 /BaseFont /ZapfDingbats >>"


def true_type(name: bytes) -> bytes:
    """A symbolic font without a map to Unicode, as word processors embed them."""
    return (
        b"<< /Type /Font /Subtype /TrueType /BaseFont /%b /FirstChar 32 /LastChar 255 /Widths [%b] /FontDescriptor"
        b" << /Type /FontDescriptor /FontName /%b /Flags 4 /FontBBox [0 -200 1000 900] /ItalicAngle 0 /Ascent 900"
        b" /Descent -200 /CapHeight 700 /StemV 80 >> >>" % (name, b" ".join([b"500"] * 224), name)
    )


@pytest.mark.parametrize(
    ("font", "code", "mark"),
    [
        pytest.param(SYMBOL, "\\267", "\u2022", id="Symbol"),
        pytest.param(true_type(b"ABCDEF+Wingdings-Regular"), "\\247", "\u25aa", id="square of Wingdings"),
        pytest.param(true_type(b"Wingdings"), "\\330", "\u27a2", id="arrow of Wingdings"),
        pytest.param(true_type(b"Wingdings"), "l", "\u25cf", id="disc of Wingdings"),
        pytest.param(DINGBATS, "l", "\u25cf", id="disc of Dingbats"),
    ],
)
def test_a_bullet_in_a_symbol_font_is_a_list_mark(font, code, mark):
    lines = (
        f"BT /F 10 Tf 72 {700 - 13 * n} Td ({code}) Tj ET BT /B 10 Tf 90 {700 - 13 * n} Td ({item}) Tj ET"
        for n, item in enumerate(ITEMS)
    )
    text = text_of(make_pdf(["\n".join(lines).encode()], font=font))
    assert [line for line in text.split("\n") if line] == [f"{mark} {item}" for item in ITEMS]
    assert len(sentence_spans(text)) == len(ITEMS)


def test_a_single_letter_that_begins_a_line_stays_a_letter():
    page = b"BT /F 10 Tf 72 700 Td (l is the length of the boat, n the number of its seats) Tj ET"
    assert text_of(make_pdf([page])) == "l is the length of the boat, n the number of its seats"


def test_private_codes_of_symbol_fonts_are_marks():
    assert clean_line("\uf0b7 first") == "\u2022 first"
    assert clean_line("Paid \uf0fc") == "Paid \u2713"
