"""Files that were read wrongly: fonts without characters, stamps on scans, form values and damaged texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.annotations import FreeText

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.read_file import extract
from ragsvc.testing.pdf_builder import Text, make_pdf, make_scan

CASES = Path(__file__).parents[2] / "fixtures/cases"
LEASE = (
    "Lease of garden plots The yearly rent of a garden plot is 186 euros and is due on the first of March. Fires are"
    " not allowed between June and September. Sheds may cover at most twelve square metres and must not be lived in."
    " Water is turned off on the last day of October and turned on again in April. Members vote on new rules in the"
    " assembly held each November at the town hall."
)


def read(path):
    extraction = extract(
        path,
        media_type="application/pdf" if path.suffix == ".pdf" else "text/plain",
        filename=path.name,
        password=None,
        limits=ExtractionLimits(),
        reports=PageReports(on_progress=lambda *_: None),
    )
    return extraction.pages[0].text, [problem.code for problem in extraction.problems]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("unmapped-glyphs-become-hyphens/idh_nul.pdf", ProblemCode.OCR_USED),
        ("unmapped-glyphs-become-hyphens/idh_digitsnul.pdf", ProblemCode.OCR_USED),
        ("type3-codes-as-text/type3_names.pdf", ProblemCode.SECOND_PARSER_USED),
        ("type3-codes-as-text/type3_g.pdf", ProblemCode.OCR_USED),
    ],
)
def test_fonts_without_characters_are_read(name, code):
    text, problems = read(CASES / name)
    assert " ".join(text.split()) == LEASE
    assert problems == [code]


def test_amounts_without_characters_are_recognised_beside_their_labels():
    text, problems = read(CASES / "unmapped-glyphs-become-hyphens/inv_nul.pdf")
    assert "Consumption in cubic metres: 183\n" in text
    assert "Amount due in euros: 412.75\n" in text
    assert "Payable until day 21\n" in text
    assert problems == [ProblemCode.OCR_USED]


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("foot150", "This copy was certified by the clerk on duty and is valid withou"),
        ("foot280", "do not forward to third parties without the consent of the registry off"),
        ("half", "the chair refers to the text of the agreement which everyone has received."),
    ],
)
def test_a_stamp_and_the_scan_below_it_are_both_read(name, typed):
    text, problems = read(CASES / f"stamp-hides-scan/{name}.pdf")
    assert "The monthly rent is 640 euros and is due on the third working day." in text
    assert typed in text
    assert ProblemCode.OCR_USED in problems


def test_the_values_of_a_form_follow_their_labels():
    text, problems = read(CASES / "form-values-lost/form.pdf")
    assert text.split("\n\n")[2:7] == [
        "Full name of applicant: Ottilie Brandstaetter",
        "Monthly net income (EUR): 4385",
        "Preferred move-in date: 17 November 2026",
        "Number of pets: two cats",
        "Has a guarantor: \u2612 Yes",
    ]
    assert problems == []


@pytest.mark.parametrize(("name", "words"), [("badbyte", "Die Miete beträgt 640 Euro"), ("cut", "租金每月六百四十元")])
def test_a_damaged_text_is_read_except_for_a_character(name, words):
    text, problems = read(CASES / f"one-bad-byte-garbles-all/{name}.txt")
    assert words in text
    assert text.count("\ufffd") == 1
    assert problems == [ProblemCode.BAD_CHARACTERS]


@pytest.mark.parametrize("turns", [0, 1])
def test_values_typed_onto_a_scanned_form_are_kept(tmp_path, turns):
    form = tmp_path / "form.pdf"
    form.write_bytes(make_pdf([[Text(30, 200, "Monthly net income:"), Text(30, 160, "Berth:")]], size=(420, 270)))
    scan = tmp_path / "scan.pdf"
    scan.write_bytes(make_scan(form, 1, turns=turns))
    writer = PdfWriter(clone_from=scan)
    rectangle = (180, 196, 320, 214) if not turns else (196, 420 - 320, 214, 420 - 180)
    writer.add_annotation(0, FreeText(text="4385 euros", rect=rectangle, font_size="11pt"))
    path = tmp_path / "typed.pdf"
    writer.write(path)
    text, problems = read(path)
    assert text.splitlines()[0] == "Monthly net income: 4385 euros"
    assert "Berth:" in text
    assert problems == [ProblemCode.OCR_USED]
