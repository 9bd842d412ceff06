"""Pages that are pictures, read by text recognition in this process; the models are the real ones."""

from __future__ import annotations

import re
import socket
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import rapidocr

from ragsvc.core.documents import ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract import ocr
from ragsvc.extract.ocr import OcrUnavailable, open_recogniser
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.extract.read_file import extract
from ragsvc.testing.pdf_builder import Text, lines, make_pdf, make_scan, make_unmapped_pdf

FIXTURES = Path(__file__).parents[2] / "fixtures"
REPORT = FIXTURES / "documents/apple-10-q-2023-07-01.pdf"
COLUMNS = FIXTURES / "documents/two-columns.pdf"
WORDS = re.compile(r"\w+")


def read(path, **limits):
    warnings: list[str] = []
    reports = PageReports(on_progress=lambda done, total: None, on_warning=warnings.append)
    extraction = extract(
        path,
        media_type="application/pdf",
        filename=path.name,
        password=None,
        limits=ExtractionLimits(**limits),
        reports=reports,
    )
    return extraction, warnings


@pytest.fixture
def scan(tmp_path):
    def make(source=REPORT, page=5, **how):
        path = tmp_path / f"{source.stem}-{page}-{how}.pdf"
        path.write_bytes(make_scan(source, page, **how))
        return path

    return make


def words(text):
    return Counter(WORDS.findall(text))


def shared(expected, found):
    """Recall and precision of words."""
    common = sum((words(expected) & words(found)).values())
    return common / sum(words(expected).values()), common / max(1, sum(words(found).values()))


@pytest.fixture(scope="module")
def letter(tmp_path_factory):
    """A small page with a heading, a paragraph and a table."""
    prose = (
        "The board of the cooperative met on 14 March 2019 in Oulu and",
        "approved the budget for the new greenhouse. Costs rose by 12.5%",
        "because glass became dearer; the members agreed to pay half.",
    )
    rows = (("Item", "2018", "2019"), ("Glass", "41,250", "46,407"), ("Heating", "9,880", "10,316"))
    table = [
        Text(40 + 130 * column, 130 - 16 * y, cell) for y, row in enumerate(rows) for column, cell in enumerate(row)
    ]
    page = [Text(40, 230, "Minutes of the meeting", 18), *lines(prose, x=40, top=200), *table]
    path = tmp_path_factory.mktemp("letter") / "letter.pdf"
    path.write_bytes(make_pdf([page], size=(420, 270)))
    return path


@pytest.mark.parametrize("how", [{}, {"turns": 1}, {"turns": 2}, {"turns": 3}, {"skew": 2.0}], ids=str)
def test_a_picture_of_a_page_reads_like_the_page(scan, letter, how):
    extraction, warnings = read(scan(letter, 1, **how))
    assert extraction.pages[0].text == read(letter)[0].pages[0].text
    assert [(one.code, one.first_page, one.last_page) for one in extraction.problems] == [(ProblemCode.OCR_USED, 1, 1)]
    assert warnings == []


def test_long_lines_are_not_taken_for_upside_down(tmp_path, scan):
    words = (
        "Die Verteidigung der Mannschaft lie\xdf in dieser Spielzeit nur 308 Punkte zu und war damit die sechstbeste.",
        "Sie f\xfchrte die Liga auch bei den B\xe4llen an, die sie dem Gegner abnahm: vierundzwanzig insgesamt.",
        "Vier ihrer Spieler wurden f\xfcr das Auswahlspiel nominiert, darunter ein \xdcberraschungsgast aus K\xf6ln.",
    )
    path = tmp_path / "deutsch.pdf"
    path.write_bytes(make_pdf([lines(words, x=20, top=100, size=10)], size=(560, 130)))
    for turns in (0, 2):
        assert read(scan(path, 1, turns=turns))[0].pages[0].text == read(path)[0].pages[0].text


def test_a_stamp_on_a_scan_does_not_hide_it(scan, letter):
    extraction, _ = read(scan(letter, 1, stamp=[Text(150, 255, "Case 2:18-cv-12857 Page 1 of 16", 9)]))
    text = extraction.pages[0].text
    assert "Case 2:18-cv-12857 Page 1 of 16" in text
    assert read(letter)[0].pages[0].text in text
    assert [one.code for one in extraction.problems] == [ProblemCode.OCR_USED]


def test_a_caption_over_a_picture_without_text_stays_as_it_is(tmp_path):
    photo = tmp_path / "photo.pdf"
    photo.write_bytes(
        make_pdf([b"0.2 0.5 0.3 rg 30 40 200 150 re f 0.8 0.3 0.1 rg 90 90 150 60 re f"], size=(420, 270))
    )
    path = tmp_path / "captioned.pdf"
    path.write_bytes(make_scan(photo, 1, stamp=[Text(150, 20, "Two fields in spring", 12)]))
    extraction, _ = read(path)
    assert extraction.pages[0].text == "Two fields in spring"
    assert extraction.problems == []


def test_a_scanned_report_page_has_its_words_and_its_rows(scan):
    original = read(REPORT)[0].pages[4].text
    text = read(scan())[0].pages[0].text
    recall, precision = shared(original, text)
    assert recall > 0.95
    assert precision > 0.95
    row = next(line for line in original.splitlines() if line.startswith("Net income"))
    numbers = re.findall(r"[\d,]{3,}", row)
    assert len(numbers) == 4
    assert any(re.findall(r"[\d,]{3,}", line) == numbers for line in text.splitlines())


def test_scanned_columns_are_read_one_after_the_other(scan):
    original = [word for word in WORDS.findall(read(COLUMNS)[0].pages[1].text) if len(word) > 3]
    found = [word for word in WORDS.findall(read(scan(COLUMNS, 2))[0].pages[0].text) if len(word) > 3]
    pairs = set(pairwise(original))
    assert len(pairs & set(pairwise(found))) > 0.97 * len(pairs)


def test_the_same_scan_gives_the_same_text(scan, letter):
    path = scan(letter, 1)
    assert read(path)[0].pages == read(path)[0].pages


def test_nothing_is_fetched(scan, letter, monkeypatch):
    def refuse(*_):
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    ocr.Recogniser()
    assert read(scan(letter, 1))[0].pages[0].text


@pytest.mark.parametrize("turns", [0, 1])
def test_a_quote_of_a_scan_is_found_in_the_picture(scan, letter, turns):
    path = scan(letter, 1, turns=turns)
    text, original = (read(one)[0].pages[0].text for one in (path, letter))
    wanted = "greenhouse. Costs"
    (found,) = find_quote_boxes(path, 1, text.index(wanted), text.index(wanted) + len(wanted), page_text=text)
    at = original.index(wanted)
    (there,) = find_quote_boxes(letter, 1, at, at + len(wanted), page_text=original)
    if turns:  # the page is 420 wide: what stood at (x, y) stands at (y, 420 - x)
        there = type(there)(there.bottom, 420 - there.left, there.top, 420 - there.right)
    for edge in ("left", "top", "right", "bottom"):
        assert getattr(found, edge) == pytest.approx(getattr(there, edge), abs=8)


def test_recognition_can_be_switched_off(scan, letter):
    with pytest.raises(ExtractionFailed) as caught:
        read(scan(letter, 1), ocr=False)
    assert caught.value.reason is FailureReason.NO_TEXT
    assert "disabled" in caught.value.message


def test_pages_beyond_the_limit_are_named(tmp_path):
    path = tmp_path / "blank.pdf"
    path.write_bytes(make_pdf([[]] * 4 + [b"BT /F 20 Tf 72 700 Td (Some text in a layer) Tj ET"]))
    extraction, _ = read(path, ocr_max_pages=2)
    found = [(one.code, one.first_page, one.last_page) for one in extraction.problems]
    assert found == [(ProblemCode.NO_TEXT_LAYER, 1, 2), (ProblemCode.NOT_READ, 3, 4)]


def test_without_its_models_documents_are_read_as_before_and_the_reason_is_given(letter, tmp_path, monkeypatch):
    monkeypatch.setitem(ocr._MODELS, "Rec.model_path", "gone.onnx")
    open_recogniser.cache_clear()
    path = tmp_path / "mixed.pdf"
    path.write_bytes(make_scan(letter, 1, then=[[Text(40, 200, "Some text in a layer")]]))
    try:
        with pytest.raises(OcrUnavailable, match=r"gone\.onnx"):
            open_recogniser()
        extraction, warnings = read(path)
    finally:
        open_recogniser.cache_clear()
    assert extraction.pages[1].text == "Some text in a layer"
    assert [one.code for one in extraction.problems] == [ProblemCode.NO_TEXT_LAYER]
    assert len(warnings) == 1
    assert "gone.onnx" in warnings[0]


LONG_STAMP = [
    "Electronically filed with the land registry of the district, envelope 7F21-88C0-41AD. This copy was certified by",
    "the clerk on duty and is valid without a signature. Page 1 of 1. Printed for internal use only, do not forward to",
    "third parties without the consent of the registry office.",
]


def test_a_long_stamp_does_not_hide_a_scan_and_both_are_kept(tmp_path, letter):
    path = tmp_path / "stamped.pdf"
    path.write_bytes(make_scan(letter, 1, stamp=lines(LONG_STAMP, x=20, top=20, leading=7, size=6)))
    extraction, _ = read(path)
    text = extraction.pages[0].text
    assert read(letter)[0].pages[0].text in text
    assert text.endswith("\n\n" + " ".join(LONG_STAMP))
    assert [one.code for one in extraction.problems] == [ProblemCode.OCR_USED]


def test_a_long_stamp_on_a_turned_scan_is_kept_once(tmp_path, letter):
    path = tmp_path / "stamped.pdf"
    path.write_bytes(make_scan(letter, 1, turns=1, stamp=lines(LONG_STAMP, x=6, top=24, leading=7, size=4.5)))
    extraction, _ = read(path)
    text = extraction.pages[0].text
    assert "approved the budget for the new greenhouse" in text
    assert text.count("third parties without the consent") == 1


def test_text_above_a_scan_is_kept(tmp_path, letter):
    report = tmp_path / "report.pdf"
    above = lines(["The minutes of the spring meeting are shown below as a picture. " * 2] * 3, x=5, top=262, size=6)
    report.write_bytes(make_scan(letter, 1, stamp=above))
    text = read(report)[0].pages[0].text
    assert text.count("shown below as a picture") == 6
    assert "Heating 9,880 10,316" in text


def test_a_photograph_behind_text_is_not_recognised(tmp_path, monkeypatch):
    shades = b"\n".join(
        b"%.2f %.2f %.2f rg %d %d 21 14 re f" % (x / 20, y / 20, (x * y) % 20 / 20, 21 * x, 14 * y)
        for x in range(20)
        for y in range(20)
    )
    photo = tmp_path / "photo.pdf"
    photo.write_bytes(make_pdf([shades], size=(420, 270)))
    path = tmp_path / "captioned.pdf"
    caption = ["The harbour of Emden in spring, seen from the lock; boats for rent lie at the left pier."] * 3
    path.write_bytes(make_scan(photo, 1, stamp=lines(caption, x=20, top=40, size=5, leading=7)))
    monkeypatch.setattr(ocr.Recogniser, "read", lambda *_: pytest.fail("a photograph was recognised"))
    extraction, _ = read(path)
    assert extraction.pages[0].text.count("harbour of Emden") == 3
    assert extraction.problems == []


@pytest.mark.parametrize("target", ["0000", "0003", "E010"])
def test_figures_without_characters_are_recognised_in_their_lines(tmp_path, target):
    path = tmp_path / "lease.pdf"
    parts = ["The yearly rent is ", "1186", " euros for a plot of ", "250", " square metres, payable on 1 March."]
    path.write_bytes(make_unmapped_pdf([parts], target=target))
    extraction, _ = read(path)
    assert extraction.pages[0].text == "".join(parts)
    assert [one.code for one in extraction.problems] == [ProblemCode.OCR_USED]


def test_a_page_of_glyph_codes_is_recognised(tmp_path):
    path = tmp_path / "codes.pdf"
    path.write_bytes(
        make_unmapped_pdf([["", "The yearly rent of a garden plot is 186 euros and is due."]], target="0000")
    )
    extraction, _ = read(path)
    assert extraction.pages[0].text == "The yearly rent of a garden plot is 186 euros and is due."
    assert [one.code for one in extraction.problems] == [ProblemCode.OCR_USED]


def test_text_that_only_looks_like_codes_is_kept_when_the_picture_agrees(tmp_path):
    path = tmp_path / "signs.pdf"
    signs = ["(a<b) (c>d) (e=f) [g] {h}", "(i+j) (k*l) [m] {n} (o=p)", "Copyright Mueller"]
    path.write_bytes(make_pdf([lines(signs, size=12)]))
    extraction, _ = read(path)
    assert extraction.pages[0].text.split() == " ".join(signs).split()
    assert extraction.problems == []


@pytest.mark.parametrize("name", sorted(ocr._MODELS.values()))
def test_a_model_with_one_changed_byte_is_refused(tmp_path, name):
    original = Path(rapidocr.__file__).parent / "models" / name
    ocr._check_model(original)
    changed = bytearray(original.read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / name).write_bytes(changed)
    with pytest.raises(OcrUnavailable, match=f"{re.escape(name)} of the rapidocr package has the wrong SHA-256"):
        ocr._check_model(tmp_path / name)


def test_the_engine_does_not_start_with_an_unknown_model(monkeypatch):
    monkeypatch.setitem(ocr._MODEL_SHA256, "PP-OCRv6_rec_small.onnx", "0" * 64)
    open_recogniser.cache_clear()
    try:
        with pytest.raises(OcrUnavailable, match="wrong SHA-256"):
            open_recogniser()
    finally:
        open_recogniser.cache_clear()
