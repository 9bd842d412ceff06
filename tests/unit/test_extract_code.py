"""Code keeps its indentation; text in other fonts is not indented."""

from __future__ import annotations

import textwrap

import pytest

from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.testing.pdf_builder import escape, make_pdf
from tests.unit.test_extract_order import text_of

COURIER = b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>"
HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
PYTHON = """\
def charge(days, rate):
    total = 0
    for day in range(days):
        if day % 7 == 0:
            continue
        total += rate
    return total"""
YAML = """\
service:
  name: boats
  ports:
    - 8080
    - 8443
  limits:
    memory: 512Mi"""


def page(text: str, *, spaces: bool, size: float = 9, left: float = 90, top: float = 700) -> bytes:
    """A line each; the indentation as spaces, or as the position of the line."""
    parts = []
    for n, line in enumerate(text.split("\n")):
        bare = line.lstrip(" ")
        x = left if spaces else left + 0.6 * size * (len(line) - len(bare))
        parts.append(
            f"BT /F {size} Tf {x:.2f} {top - 1.2 * size * n:.2f} Td ({escape(line if spaces else bare)}) Tj ET"
        )
    return "\n".join(parts).encode()


@pytest.mark.parametrize("spaces", [True, False])
@pytest.mark.parametrize("code", [PYTHON, YAML])
def test_code_keeps_its_indentation(code, spaces):
    assert text_of(make_pdf([page(code, spaces=spaces)], font=COURIER)) == code


def test_code_between_prose_keeps_its_indentation():
    prose = "BT /B 11 Tf 72 740 Td (The charge is computed without Sundays, which are free of charge:) Tj ET\n"
    body = prose.encode() + page(PYTHON, spaces=True, top=720)
    assert PYTHON in text_of(make_pdf([body], font=COURIER))


def test_code_of_the_size_of_the_prose_keeps_its_indentation():
    prose = "BT /B 9 Tf 72 714 Td (The charge is computed without Sundays, which are free:) Tj ET\n"
    after = "\nBT /B 9 Tf 72 618 Td (Rates of the season apply in May and June.) Tj ET"
    body = prose.encode() + page(PYTHON, spaces=False, top=702) + after.encode()
    assert PYTHON in text_of(make_pdf([body], font=COURIER))


@pytest.mark.parametrize("code", [PYTHON, YAML])
def test_lines_in_a_proportional_font_are_not_indented(code):
    text = text_of(make_pdf([page(code, spaces=False)], font=HELVETICA))
    assert not any(line.startswith(" ") for line in text.split("\n"))


def test_paragraphs_with_an_indented_first_line_stay_paragraphs():
    lines = textwrap.wrap("The association asks its members to treat against mites before the end of August. " * 4, 60)
    body = "\n".join(
        f"BT /F 10 Tf {90 if n % 4 == 0 else 72} {700 - 12 * n} Td ({line}) Tj ET" for n, line in enumerate(lines)
    )
    assert "\n " not in text_of(make_pdf([body.encode()], font=HELVETICA))


def test_a_quote_of_indented_code_is_on_the_page_and_has_boxes(tmp_path):
    path = tmp_path / "code.pdf"
    path.write_bytes(make_pdf([page(PYTHON, spaces=True)], font=COURIER))
    text = text_of(path.read_bytes())
    start = text.index("        if day")
    boxes = find_quote_boxes(path, 1, start, start + 50, page_text=text)
    assert boxes
    assert boxes[0].left > 120
