"""Form fields, free texts and notes: what a viewer shows on top of a page."""

from __future__ import annotations

import pytest

from ragsvc.core.documents import ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_document import read_pdf
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.testing.pdf_builder import Text, lines, make_annotated_pdf

WIDGET = b"/Subtype /Widget /F 4 /Rect [%s] "
TEXT = WIDGET + b"/FT /Tx /T (%s) /V (%s)"
TICKED = b"/AP << /N << /Yes 40 0 R /Off 41 0 R >> >> "


def extract(tmp_path, *arguments, **more):
    path = tmp_path / "form.pdf"
    path.write_bytes(make_annotated_pdf(*arguments, **more))
    reports = PageReports(on_progress=lambda *_: None)
    return read_pdf(path, password=None, limits=ExtractionLimits(ocr=False), reports=reports)


def read(tmp_path, *arguments, **more):
    return extract(tmp_path, *arguments, **more).pages[0].text


def test_values_follow_their_labels(tmp_path):
    page = [
        Text(72, 760, "Application for a mooring"),
        Text(72, 720, "Name:"),
        Text(300, 720, "Length (m):"),
        Text(72, 700, "Harbour ______________ Berth ________ (from list)"),
        Text(72, 660, "All fields are required."),
    ]
    fields = [
        TEXT % (b"370 716 450 732", b"length", b"7.35"),
        TEXT % (b"120 716 250 732", b"name", b"Ottilie Brand"),
        TEXT % (b"122 697 190 712", b"harbour", b"Emden"),
        TEXT % (b"239 697 280 712", b"berth", b"B 12"),
        TEXT % (b"400 640 450 656", b"blank", b""),
    ]
    assert read(tmp_path, page, fields).split("\n\n")[1:] == [
        "Name: Ottilie Brand Length (m): 7.35",
        "Harbour Emden ______________ Berth B 12 ________ (from list)",
        "All fields are required.",
    ]


def test_the_quote_of_a_form_value_has_its_rectangle(tmp_path):
    page = [
        Text(72, 760, "Emden is a harbour with 4 berths."),
        Text(72, 720, "Name:"),
        Text(72, 700, "First harbour:"),
        Text(72, 680, "Second harbour:"),
        Text(72, 640, "All fields are required."),
    ]
    fields = [
        TEXT % (b"122 716 250 732", b"name", b"Ottilie Brand"),
        TEXT % (b"182 676 250 692", b"second", b"Emden"),
        TEXT % (b"172 696 250 712", b"first", b"Emden"),
    ]
    text = read(tmp_path, page, fields)

    def boxes(quote, start=0):
        at = text.index(quote, start)
        found = find_quote_boxes(tmp_path / "form.pdf", 1, at, at + len(quote), page_text=text)
        return [tuple(round(value) for value in (box.left, box.top, box.right, box.bottom)) for box in found]

    assert boxes("Ottilie Brand") == boxes("Brand") == [(122, 732, 250, 716)]
    label, value = boxes("Name: Ottilie Brand")
    assert value == (122, 732, 250, 716)
    assert label[0] == 73
    assert label[2] < 122
    assert boxes("First harbour: Emden")[1] == (172, 712, 250, 696)
    assert boxes("Second harbour: Emden")[1] == (182, 692, 250, 676)
    (printed,) = boxes("Emden")  # the first line of the page
    assert 755 < printed[3] < printed[1] < 775
    (last,) = boxes("All fields are required.")
    assert 635 < last[3] < last[1] < 655


def test_the_quotes_of_a_box_and_of_a_note_have_rectangles(tmp_path):
    page = [Text(72, 720, "Membership"), Text(72, 680, "The fee is due in March.")]
    fields = [
        WIDGET % b"150 716 162 728" + b"/FT /Btn /T (Reduced) /V /Yes /AS /Yes " + TICKED,
        b"/Subtype /Text /Rect [300 676 320 696] /Contents (Paid in cash)",
    ]
    text = read(tmp_path, page, fields, appearances=[b"0 0 9 9 re f", b""])
    at = text.index("Paid in cash")
    (box,) = find_quote_boxes(tmp_path / "form.pdf", 1, at, at + 12, page_text=text)
    assert (box.left, box.top, box.right, box.bottom) == (300, 696, 320, 676)


def test_hidden_text_over_a_line_does_not_move_its_values(tmp_path):
    page = [
        Text(72, 720, "Harbour ____________ Berth ________ (from list)"),
        Text(74, 723, "x" * 90, size=0.5),
        Text(74, 600, "x", size=0.5),
    ]
    extraction = extract(tmp_path, page, [TEXT % (b"226 716 260 732", b"berth", b"B 12")])
    assert extraction.pages[0].text == "Harbour ____________ Berth B 12 ________ (from list)"
    assert [problem.code for problem in extraction.problems] == [ProblemCode.HIDDEN_TEXT]


def test_values_and_notes_beyond_the_page_are_hidden_text(tmp_path):
    fields = [
        TEXT % (b"120 716 250 732", b"name", b"Ottilie Brand"),
        TEXT % (b"120 -116 250 -100", b"code", b"Planted 7"),
        b"/Subtype /FreeText /F 4 /Rect [910 720 990 740] /DA (/F 10 Tf) /Contents (Planted 8)",
    ]
    extraction = extract(tmp_path, [Text(72, 720, "Name:")], fields)
    assert extraction.pages[0].text == "Name: Ottilie Brand"
    assert [problem.message for problem in extraction.problems] == [
        "Page 1 has 16 hidden characters that a reader cannot see; they were left out."
    ]


def test_a_value_of_a_parent_field_is_read_and_unicode_is_kept(tmp_path):
    value = "Łódź 4385 €".encode("utf-16-be").hex().encode()
    fields = [b"/FT /Tx /T (place) /V <feff%s> /Kids [60 0 R]" % value]
    text = read(tmp_path, [Text(72, 720, "Place:")], [WIDGET % b"120 716 250 732" + b"/Parent 20 0 R"], fields=fields)
    assert text == "Place: Łódź 4385 €"


def test_fields_without_a_label_have_their_name(tmp_path):
    fields = [
        TEXT % (b"72 500 200 516", b"iban", b"DE02 1203") + b" /TU (Account number)",
        TEXT % (b"72 300 300 380", b"remarks", b"two cats\\rone dog"),
        WIDGET % b"72 200 84 212" + b"/FT /Btn /T (consent) /V /Yes /AS /Yes " + TICKED,
    ]
    text = read(tmp_path, [Text(72, 720, "Questionnaire")], fields, appearances=[b"0 0 9 9 re f", b""])
    assert text == "Questionnaire\n\nAccount number: DE02 1203\n\nremarks: two cats\none dog\n\n\u2612 Yes consent"


def test_a_value_below_its_label_stands_there_without_the_name(tmp_path):
    page = [Text(72, 720, "Monthly net income (EUR)"), Text(72, 640, "Signature")]
    text = read(tmp_path, page, [TEXT % (b"72 695 250 712", b"f1_03[0]", b"4385")])
    assert text == "Monthly net income (EUR)\n4385\n\nSignature"


def test_boxes_and_choices_show_their_state(tmp_path):
    page = [
        Text(90, 720, "I own the boat"),
        Text(90, 700, "I rent the boat"),
        Text(72, 680, "Insured:"),
        Text(72, 660, "Pets:"),
    ]
    fields = [
        WIDGET % b"72 718 84 730" + b"/FT /Btn /T (own) /V /Off /AS /Off " + TICKED,
        WIDGET % b"72 698 84 710" + b"/FT /Btn /T (rent) /V /Yes /AS /Yes " + TICKED,
        WIDGET % b"130 678 142 690" + b"/FT /Btn /T (insured) /V /Yes /AS /Yes " + TICKED,
        WIDGET % b"130 655 250 672" + b"/FT /Ch /Ff 131072 /T (pets) /V (c2) /Opt [[(c0) (none)] [(c2) (two cats)]]",
    ]
    assert read(tmp_path, page, fields, appearances=[b"0 0 9 9 re f", b""]).split("\n\n") == [
        "\u2610 I own the boat",
        "\u2612 Yes I rent the boat",
        "Insured: \u2612 Yes",
        "Pets: two cats",
    ]


@pytest.mark.parametrize("entry", [b"/F 2", b"/F 32", b"/Ff 8192"])
def test_hidden_values_and_passwords_are_not_read(tmp_path, entry):
    field = b"/Subtype /Widget /Rect [120 716 250 732] /FT /Tx /T (pin) /V (4711) " + entry
    assert read(tmp_path, [Text(72, 720, "PIN:")], [field]) == "PIN:"


def test_a_value_that_only_the_appearance_has_is_read(tmp_path):
    shown = b"BT /F 10 Tf 2 4 Td (%s) Tj ET"
    fields = [
        WIDGET % b"120 716 420 756" + b"/FT /Tx /T (name) /AP << /N 40 0 R >>",
        WIDGET % b"120 600 420 640" + b"/FT /Sig /T (sig) /V << /Type /Sig >> /AP << /N 41 0 R >>",
        b"/Subtype /Stamp /F 4 /Rect [120 500 420 540] /AP << /N 42 0 R >>",
    ]
    text = read(
        tmp_path,
        [Text(72, 720, "Name:"), Text(72, 604, "Signed:")],
        fields,
        appearances=[shown % b"Ottilie Brand", shown % b"Digitally signed by O. Brand", shown % b"APPROVED 4 May"],
    )
    assert text == "Name: Ottilie Brand\n\nSigned: Digitally signed by O. Brand\n\nAPPROVED 4 May"


def test_free_texts_and_notes_do_not_break_a_paragraph(tmp_path):
    prose = [
        "The rent of the boathouse at pier seven is 640 euros a month and is due on the third",
        "working day of each month; the lease begins on 1 May 2026 and ends on 30 April 2031.",
        "Subletting needs the written consent of the landlord, who may refuse it for good cause",
        "only, and must answer within four weeks.",
    ]
    notes = [
        b"/Subtype /FreeText /F 4 /Rect [510 720 590 740] /DA (/F 10 Tf) /Contents (raised to 655 in June)",
        b"/Subtype /Text /F 4 /Rect [60 735 70 745] /Contents (ask the clerk)",
        b"/Subtype /Highlight /F 4 /Rect [72 730 200 745] /Contents (working day of each month)",
        b"/Subtype /Text /F 4 /Rect [60 735 70 745] /StateModel (Review) /State (Accepted) /Contents (Accepted)",
    ]
    text = read(tmp_path, lines([*prose, "", "Notice is given in writing."]), notes)
    assert " ".join(text.split()).startswith(" ".join(prose))
    assert "raised to 655 in June" in text
    assert "Note: ask the clerk" in text
    assert text.count("working day of each month") == 1
    assert "Accepted" not in text
    assert text.endswith("Notice is given in writing.")


def test_a_ticked_box_whose_value_is_its_label_is_ticked(tmp_path):
    page = [Text(72, 700, "Size"), Text(225, 700, "small"), Text(305, 700, "large"), Text(72, 660, "All are rented.")]
    box = WIDGET + b"/FT /Btn /T (%s) /AP << /N << /%s 40 0 R /Off 41 0 R >> >> /AS /%s /V /%s"
    fields = [
        box % (b"205 698 217 710", b"a", b"small", b"Off", b"Off"),
        box % (b"285 698 297 710", b"b", b"large", b"large", b"large"),
    ]
    text = read(tmp_path, page, fields, appearances=[b"", b""])
    assert text.split("\n\n")[0] == "Size \u2610 small \u2612 large"


def test_the_lines_of_a_field_follow_the_label_on_their_left(tmp_path):
    page = [Text(72, 700, "Size of the boat in metres"), Text(72, 660, "Note"), Text(72, 600, "All are rented.")]
    fields = [
        TEXT % (b"300 696 360 712", b"size", b"7.35"),
        WIDGET % b"200 630 400 680" + b"/FT /Tx /Ff 4096 /T (note) /V (first line\\nsecond line)",
    ]
    text = read(tmp_path, page, fields)
    assert text.split() == "Size of the boat in metres 7.35 Note first line second line All are rented.".split()
