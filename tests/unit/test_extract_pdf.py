"""PDFs, well-made and not, read in this process (the child's part without the child)."""

from __future__ import annotations

from pathlib import Path

import pypdf
import pytest

from ragsvc.core.documents import ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract import pypdf_fallback
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.pdf_passwords import saslprep
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.extract.read_file import extract
from ragsvc.testing.pdf_builder import Text, assemble, content, lines, make_pdf, stream

FIXTURES = Path(__file__).parents[2] / "fixtures"


def read(path, *, password=None, media_type="application/pdf", **limits):
    return extract(
        path,
        media_type=media_type,
        filename=path.name,
        password=password,
        limits=ExtractionLimits(**limits),
        reports=PageReports(on_progress=lambda done, total: None),
    )


@pytest.fixture
def read_bytes(tmp_path):
    def read_data(data, **more):
        path = tmp_path / "file.pdf"
        path.write_bytes(data)
        return read(path, **more)

    return read_data


def failure(reader, *arguments, **more):
    with pytest.raises(ExtractionFailed) as caught:
        reader(*arguments, **more)
    return caught.value


# --- well-made


def test_a_report_keeps_its_figures_with_their_labels():
    extraction = read(FIXTURES / "documents/apple-10-q-2023-07-01.pdf")
    assert extraction.page_count == len(extraction.pages) == 29
    assert extraction.problems == []
    page = extraction.pages[3].text
    assert "Total net sales 81,797 82,959 293,787 304,182\n" in page
    assert "Research and development 7,442 6,797 22,608 19,490\n" in page
    assert extraction.title is not None
    assert extraction.title.startswith("Apple Inc. - Form 10-Q")
    titles = {heading.title for heading in extraction.headings}
    assert "Item 1. Financial Statements" in titles


def test_headings_stand_where_they_say():
    for name in ("documents/apple-10-q-2023-07-01.pdf", "documents/outline.pdf"):
        extraction = read(FIXTURES / name)
        assert extraction.headings
        for heading in extraction.headings:
            text = extraction.pages[heading.page - 1].text[heading.offset :]
            assert heading.title in text.split("\n", 1)[0]


def test_two_columns_are_read_one_after_the_other_and_words_made_whole():
    text = read(FIXTURES / "documents/two-columns.pdf").pages[0].text
    assert "consectetuer adipiscing elit. Ut purus elit, vestibulum ut, placerat ac, adipiscing vitae" in text
    assert text.index("Vivamus viverra fermentum") < text.index("pellentesque ante. Phasellus")


def test_columns_that_the_file_interleaves_are_separated(read_bytes):
    left = [
        f"the left side says {word} in its own words"
        for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")
    ]
    right = [
        f"the right side has {word} to tell about it"
        for word in ("red", "green", "blue", "pink", "gray", "teal", "gold", "lime")
    ]
    rows = [
        Text(x, 700 - 14 * index, text, 10)
        for index, pair in enumerate(zip(left, right, strict=True))
        for x, text in zip((60, 320), pair, strict=True)
    ]
    text = read_bytes(make_pdf([rows])).pages[0].text
    assert text.replace("\n", " ").split() == " ".join([*left, *right]).split()


def test_scripts_from_right_to_left_are_in_logical_order():
    text = read(FIXTURES / "documents/languages.pdf").pages[0].text
    for greeting in ("مرحبا بالعالم", "Привет, мир", "你好世界", "สวัสดีชาวโลก", "こんにちは世界"):
        assert greeting in text


@pytest.mark.parametrize(("rotate", "turn"), [(90, "0 1 -1 0 595 0"), (270, "0 -1 1 0 0 595"), (0, "0 1 -1 0 595 0")])
def test_a_turned_page_reads_like_an_upright_one(read_bytes, rotate, turn):
    texts = lines([f"Line {n} of a paragraph that goes on for quite a while on this page" for n in range(5)], top=540)
    upright = read_bytes(make_pdf([texts], size=(842, 595))).pages[0].text
    turned = f"q {turn} cm\n".encode() + content(texts) + b"\nQ"
    page = make_pdf([turned], size=(595, 842), page_extra=b" /Rotate %d" % rotate)
    assert read_bytes(page).pages[0].text == upright


def test_labels_and_attachments_are_named():
    assert [page.label for page in read(FIXTURES / "documents/page-labels.pdf").pages][:5] == [
        "i",
        "ii",
        "iii",
        "iv",
        "1",
    ]
    assert read(FIXTURES / "documents/attachment.pdf").attachments == ["image.png"]


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ("Annual Report 2023", "Annual Report 2023"),
        ("Microsoft Word - x.doc", "The Great Report"),
        ("untitled", "The Great Report"),
    ],
)
def test_a_title_that_a_program_made_up_is_not_the_title(read_bytes, metadata, title):
    page = [Text(72, 760, "The Great Report", 24), *lines(["Body text of the first page."] * 5, top=700)]
    assert read_bytes(make_pdf([page], title=metadata)).title == title


def test_an_outline_leads_to_its_places(read_bytes):
    pages = [lines(["Summary", "All is well.", "Risks", "None."]), lines(["Outlook", "Good."])]
    data = make_pdf(pages, outline=[("Summary", 1), ("Risks", 1), ("Outlook", 2), ("Not there", 2)])
    headings = read_bytes(data).headings
    assert [(h.title, h.page, h.offset) for h in headings if h.title != "Not there"] == [
        ("Summary", 1, 0),
        ("Risks", 1, 21),
        ("Outlook", 2, 0),
    ]


def test_the_same_bytes_give_the_same_extraction():
    path = FIXTURES / "documents/two-columns.pdf"
    assert read(path) == read(path)


# --- dirty


def test_a_password_opens_what_it_should():
    path = FIXTURES / "dirty/password-asdfzxcv.pdf"
    assert failure(read, path).reason is FailureReason.PASSWORD_REQUIRED
    assert failure(read, path, password="guess").reason is FailureReason.PASSWORD_WRONG
    assert "encryption test" in read(path, password="asdfzxcv").pages[0].text
    assert "encryption test" in read(FIXTURES / "dirty/empty-user-password.pdf").pages[0].text


DECOMPOSED = "Re\N{COMBINING ACUTE ACCENT}sume\N{COMBINING ACUTE ACCENT}"


@pytest.mark.parametrize(
    ("encrypted_with", "given"),
    [
        ("R\u00e9sum\u00e9", DECOMPOSED),
        ("a b", "a\N{NO-BREAK SPACE}b"),
        ("IX", "I\N{SOFT HYPHEN}X"),
        ("file 9", "\N{LATIN SMALL LIGATURE FI}le \N{FULLWIDTH DIGIT NINE}"),
        (DECOMPOSED, DECOMPOSED),  # writers that do not prepare the password
        ("a\N{NO-BREAK SPACE}b", "a\N{NO-BREAK SPACE}b"),
        ("I\N{SOFT HYPHEN}X", "I\N{SOFT HYPHEN}X"),
        ("\u05d0a", "\u05d0a"),  # prohibited by SASLprep: letters of both directions
    ],
)
@pytest.mark.parametrize("algorithm", ["AES-256", "AES-256-R5"])
def test_a_password_is_tried_as_saslprep_prepares_it_and_as_it_was_given(tmp_path, algorithm, encrypted_with, given):
    plain = tmp_path / "plain.pdf"
    plain.write_bytes(make_pdf([lines(["The vault holds 42 bars."])]))
    writer = pypdf.PdfWriter(clone_from=plain)
    writer.encrypt(user_password=encrypted_with, owner_password="another", algorithm=algorithm)
    path = tmp_path / "locked.pdf"
    writer.write(path)
    assert read(path, password=given).pages[0].text == "The vault holds 42 bars."
    assert pypdf_fallback.count_pages(path, password=given) == 1
    assert failure(read, path, password=given + "!").reason is FailureReason.PASSWORD_WRONG
    with pytest.raises(ExtractionFailed) as failed:
        pypdf_fallback.count_pages(path, password=given + "!")
    assert failed.value.reason is FailureReason.PASSWORD_WRONG


def test_saslprep_follows_the_examples_of_the_rfc():
    """RFC 4013 §3."""
    examples = {"I\u00adX": "IX", "user": "user", "USER": "USER", "\u00aa": "a", "\u2168": "IX", "\u0007": None}
    examples["\u0627\u0031"] = None
    assert {text: saslprep(text) for text in examples} == examples


def test_a_scan_is_refused_with_the_reason():
    error = failure(read, FIXTURES / "dirty/scan.pdf")
    assert error.reason is FailureReason.NO_TEXT
    assert "OCR" in error.message


def test_scanned_pages_among_others_are_named():
    extraction = read(FIXTURES / "dirty/some-pages-scanned.pdf")
    (problem,) = extraction.problems
    assert (problem.code, problem.first_page, problem.last_page) == (ProblemCode.NO_TEXT_LAYER, 4, 5)
    assert problem.message.startswith("Pages 4-5 have no text layer")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", FailureReason.EMPTY_FILE),
        (b"%PDF-1.7\n" + bytes(range(256)) * 40, FailureReason.DAMAGED),
        (b"%PDF-1.7\n", FailureReason.DAMAGED),
        (b"no pdf at all", FailureReason.NOT_A_PDF),
    ],
)
def test_hopeless_files_fail_with_a_reason(read_bytes, data, reason):
    assert failure(read_bytes, data).reason is reason


def test_a_truncated_pdf_is_read_as_far_as_it_goes(read_bytes):
    pages = [lines([f"This is page {n} of the file"]) for n in range(1, 20)]
    whole = make_pdf(pages, title="So it is")
    extraction = read_bytes(whole[: int(len(whole) * 0.6)])
    assert extraction.pages[0].text == "This is page 1 of the file"
    assert [(p.code, p.last_page) for p in extraction.problems] == [(ProblemCode.PAGE_UNREADABLE, 19)]
    error = failure(read_bytes, (FIXTURES / "documents/outline.pdf").read_bytes()[:20_000])
    assert error.reason is FailureReason.DAMAGED


def test_a_pdf_is_a_pdf_whatever_it_was_sent_as(read_bytes):
    assert read_bytes(make_pdf([lines(["Hello"])]), media_type="text/plain").pages[0].text == "Hello"
    assert read_bytes(b"junk before\n" + make_pdf([lines(["Hello"])])).pages[0].text == "Hello"


def test_a_font_that_hides_its_letters_is_a_problem_not_text(read_bytes):
    codes = " ".join(f"/g{n}" for n in range(1, 90)).encode()
    font = (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /ABCDEF+Secret /FirstChar 33 /LastChar 121"
        b" /Encoding << /Type /Encoding /Differences [33 " + codes + b"] >> >>"
    )
    hidden = lines(["7KLV LV WKH TXDUWHUO UHSRUW RI WKH FRPSDQ IRU WKH VHFRQG TXDUWHU"] * 3)
    shown = [Text(72, 700, "This page can be read by anyone.", bold=True)]
    extraction = read_bytes(make_pdf([hidden, shown], font=font))
    assert [page.text for page in extraction.pages] == ["", "This page can be read by anyone."]
    assert [(p.code, p.first_page) for p in extraction.problems] == [(ProblemCode.GARBLED_TEXT, 1)]


def test_too_many_pages_are_refused_before_reading(read_bytes):
    error = failure(read_bytes, make_pdf([lines(["x"])] * 12), max_pages=10)
    assert error.reason is FailureReason.TOO_MANY_PAGES
    assert "12 pages" in error.message


def test_text_beyond_the_limits_is_left_out_and_named(read_bytes):
    data = make_pdf([lines(["word " * 10] * 5)] * 6)
    extraction = read_bytes(data, max_page_characters=100)
    assert all(len(page.text) <= 100 for page in extraction.pages)
    assert [(p.code, p.first_page, p.last_page) for p in extraction.problems] == [(ProblemCode.TEXT_TRUNCATED, 1, 6)]
    extraction = read_bytes(data, max_text_characters=600)
    assert ProblemCode.NOT_READ in {problem.code for problem in extraction.problems}


def test_a_page_tree_that_contains_itself_ends(read_bytes):
    data = assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 5 >>",
            b"<< /Type /Pages /Kids [2 0 R] /Count 1 /Parent 2 0 R >>",
        ]
    )
    assert failure(read_bytes, data).reason in (FailureReason.DAMAGED, FailureReason.NO_TEXT)


def test_an_outline_that_goes_in_circles_ends(read_bytes):
    data = make_pdf([lines(["Hello"])], outline=[("A", 1), ("B", 1)])
    circled = data.replace(b"(B) /Parent 8 0 R", b"(B) /Parent 8 0 R /Next 9 0 R")
    assert circled != data
    assert read_bytes(circled).pages[0].text == "Hello"


def test_what_pdfium_cannot_open_is_read_by_the_second_parser(read_bytes):
    pages = [lines(["Only one parser reads this."]), lines(["Not even this."])]
    extraction = read_bytes(make_pdf(pages).replace(b"/Root 1 0 R", b"/Root 2 0 R").replace(b"/Catalog", b"/#43atalog"))
    assert [page.text for page in extraction.pages] == ["Only one parser reads this.", "Not even this."]
    (problem,) = extraction.problems
    assert (problem.code, problem.first_page, problem.last_page) == (ProblemCode.SECOND_PARSER_USED, 1, 2)


def test_a_missing_page_is_named_and_takes_no_other_page_s_text(read_bytes):
    data = make_pdf([lines(["This page is here."])])
    extraction = read_bytes(data.replace(b"/Kids [6 0 R] /Count 1", b"/Kids [99 0 R 6 0 R] /Count 2"))
    assert [page.text for page in extraction.pages] == ["", "This page is here."]
    assert [(p.code, p.first_page) for p in extraction.problems] == [(ProblemCode.PAGE_UNREADABLE, 1)]


def test_a_stream_that_swells_a_hundredfold_is_bounded(read_bytes):
    data = b"BT /F 1 Tf 1 0 0 1 10 10 Tm (A) Tj ET\n" * 60_000
    page = stream(data, compress=True)
    assert len(page) < len(data) // 100
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 5 0 R /Resources << /Font << /F 3 0 R >> >> >>",
        page,
    ]
    extraction = read_bytes(assemble(objects), max_page_characters=5_000)
    assert len(extraction.pages[0].text) <= 5_000


# --- boxes


def test_a_quote_is_found_on_its_page():
    path = FIXTURES / "documents/apple-10-q-2023-07-01.pdf"
    text = read(path).pages[3].text
    start = text.index("Total net sales 81,797")
    (box,) = find_quote_boxes(path, 4, start, start + len("Total net sales"), page_text=text)
    assert 0 < box.left < box.right < 300
    assert 5 < box.top - box.bottom < 20
    lower = text.index("Total cost of sales")
    (below,) = find_quote_boxes(path, 4, lower, lower + len("Total cost of sales"), page_text=text)
    assert below.top < box.bottom


def test_the_repetition_that_is_meant_is_found(tmp_path):
    path = tmp_path / "file.pdf"
    path.write_bytes(make_pdf([lines(["The same words.", "Something else.", "The same words."])]))
    text = read(path).pages[0].text
    first, second = text.index("The same"), text.rindex("The same")
    (upper,) = find_quote_boxes(path, 1, first, first + 15, page_text=text)
    (lower,) = find_quote_boxes(path, 1, second, second + 15, page_text=text)
    assert upper.bottom > lower.top


def test_a_quote_over_a_hyphen_and_lines_has_a_box_for_each_line():
    path = FIXTURES / "documents/two-columns.pdf"
    text = read(path).pages[0].text
    quote = "consectetuer adipiscing elit. Ut purus elit, vestibulum ut, placerat ac, adipiscing vitae"
    start = text.index(quote)
    found = find_quote_boxes(path, 1, start, start + len(quote), page_text=text)
    assert len(found) == 3
    assert all(box.right < 310 for box in found)
