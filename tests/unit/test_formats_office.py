"""Word, Excel and PowerPoint files are read as their programs show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragsvc.core import file_types
from ragsvc.core.documents import ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.number_formats import display
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.read_file import extract
from tests.support import office_files
from tests.support.office_files import docx, formats, paragraph, pptx, shape, xlsx

FIXTURES = Path(__file__).parents[2] / "fixtures/formats"


def read(source, tmp_path=None, *, kind=None, **limits):
    path = source
    if isinstance(source, bytes):
        path = tmp_path / "file"
        path.write_bytes(source)
    return extract(
        path,
        media_type=kind or file_types.MEDIA_TYPES_BY_SUFFIX.get(path.suffix, "application/octet-stream"),
        filename=path.name,
        password=None,
        limits=ExtractionLimits(**limits),
        reports=PageReports(on_progress=lambda done, total: None),
    )


def text_of(extraction):
    return "\n\n".join(page.text for page in extraction.pages)


def field(instruction, result, *, inner=""):
    def mark(kind):
        return f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>'

    code = f"<w:r><w:instrText>{instruction}</w:instrText></w:r>{inner}"
    return f"{mark('begin')}{code}{mark('separate')}{result}{mark('end')}"


def run(text):
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


# --- Word


def test_word_keeps_results_of_fields_and_insertions_and_drops_deletions(tmp_path):
    nested = field("IF ", run(" paid"), inner=field("MERGEFIELD", run("a condition")))
    body = (
        f"<w:p>{run('Total: ')}{field('=SUM(ABOVE)', run('1,482'))}{run(' due ')}{field('DATE', run('4 March 2026'))}"
        f"{nested}</w:p>"
        f"<w:p>{run('The fee is ')}<w:del><w:r><w:delText>10</w:delText></w:r></w:del><w:ins>{run('12')}</w:ins>"
        f"{run(' EUR')}<w:moveFrom>{run('moved')}</w:moveFrom><w:moveTo>{run(' a year')}</w:moveTo></w:p>"
        '<w:p><w:fldSimple w:instr="NUMPAGES"><w:r><w:t>7</w:t></w:r></w:fldSimple></w:p>'
    )
    assert text_of(read(docx(body), tmp_path)).split("\n\n") == [
        "Total: 1,482 due 4 March 2026 paid",
        "The fee is 12 EUR a year",
        "7",
    ]


def test_word_leaves_hidden_text_out_and_says_so(tmp_path):
    styles = '<w:style w:type="character" w:styleId="H"><w:rPr><w:vanish/></w:rPr></w:style>'
    body = (
        paragraph("Shown.")
        + paragraph("secret", run="<w:vanish/>")
        + paragraph("by style", run='<w:rStyle w:val="H"/>')
        + paragraph("Not hidden.", run='<w:rStyle w:val="H"/><w:vanish w:val="0"/>')
    )
    extraction = read(docx(body, styles=styles), tmp_path)
    assert text_of(extraction) == "Shown.\n\nNot hidden."
    assert [problem.code for problem in extraction.problems] == ["hidden_text"]
    assert "13 hidden characters" in extraction.problems[0].message


def test_word_leaves_white_and_tiny_text_out_unless_its_background_may_be_dark(tmp_path):
    def run(text, properties):
        return f"<w:p><w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r></w:p>"

    white = '<w:color w:val="ffffff"/>'
    body = (
        "<w:p><w:r><w:t>The award is 485,000 USD.</w:t></w:r></w:p>"
        + run("The award is 1 USD.", white)
        + run("The award is 2 USD.", '<w:sz w:val="2"/>')
        + run("White on a bar", white + '<w:shd w:fill="1F3864"/>')
        + run("White on a marker", white + '<w:highlight w:val="black"/>')
        + f"<w:tbl><w:tr><w:tc>{run('Boat', white)}</w:tc><w:tc>{run('Day', white)}</w:tc></w:tr></w:tbl>"
    )
    extraction = read(docx(body), tmp_path)
    assert text_of(extraction).split("\n\n") == [
        "The award is 485,000 USD.",
        "White on a bar",
        "White on a marker",
        "| Boat | Day |",
    ]
    assert [problem.code for problem in extraction.problems] == [ProblemCode.HIDDEN_TEXT]


def test_word_numbers_lists_and_repeats_merged_cells(tmp_path):
    numbering = (
        '<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="3"/><w:numFmt w:val="decimal"/>'
        '<w:lvlText w:val="%1."/></w:lvl><w:lvl w:ilvl="1"><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/>'
        '</w:lvl></w:abstractNum><w:num w:numId="9"><w:abstractNumId w:val="1"/></w:num>'
    )

    def item(text, level):
        place = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="9"/></w:numPr>'
        return paragraph(text, properties=place)

    def cell(text, properties=""):
        return f"<w:tc><w:tcPr>{properties}</w:tcPr>{paragraph(text)}</w:tc>"

    rows = [
        cell("Region") + cell("2023", '<w:gridSpan w:val="2"/>'),
        cell("North", '<w:vMerge w:val="restart"/>') + cell("007") + cell("12"),
        cell("", "<w:vMerge/>") + cell("008") + cell("13"),
    ]
    table = "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in rows) + "</w:tbl>"
    body = item("first", 0) + item("inner", 1) + item("second", 0) + table
    assert text_of(read(docx(body, numbering=numbering), tmp_path)).split("\n\n") == [
        "3. first\n3.a) inner\n4. second",
        "| Region | 2023 | 2023 |\n| --- | --- | --- |\n| North | 007 | 12 |\n| North | 008 | 13 |",
    ]


def test_word_notes_end_their_page_and_marks_stay_apart_from_figures(tmp_path):
    reference = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    rendered = "<w:r><w:lastRenderedPageBreak/></w:r>"
    explicit = '<w:r><w:br w:type="page"/></w:r>'
    body = (
        f"<w:p>{run('Sales were 1,482')}{reference}</w:p>"
        f"<w:p>{explicit}</w:p><w:p>{rendered}{run('10')}"
        '<w:r><w:rPr><w:vertAlign w:val="superscript"/></w:rPr><w:t>6</w:t></w:r></w:p>'
    )
    footnotes = f'<w:footnote w:type="separator" w:id="0"/><w:footnote w:id="2">{paragraph("Restated.")}</w:footnote>'
    extraction = read(docx(body, footnotes=footnotes), tmp_path)
    assert [page.text for page in extraction.pages] == ["Sales were 1,482¹\n\n¹ Restated.", "10⁶"]


def test_a_long_word_document_without_page_breaks_is_labelled_as_parts(tmp_path):
    extraction = read(docx("".join(paragraph(f"Sentence {n}. " * 40) for n in range(40))), tmp_path)
    assert extraction.page_count > 3
    assert [page.label for page in extraction.pages][:2] == ["part 1", "part 2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("various.docx", ["This is the header text.", "Here is a text box", "1) Number bullet 1", "~~strikethrough~~",
                          "| Row 1 Col 1 | Row 1 Col 2 | Row 1 Col 3 |", "¹ This is a footnote."]),
        ("tracked-changes.docx", ["insert this", "[Comment by Kyle Reese: This is another comment]"]),
        ("fields-and-notes.docx", ["Even page header", "| R1c1 | R1c2 | R1c3 |", "This is text within a shape"]),
        ("list-numbers.docx", ["2nd.2.1someText", "1.a.II", "2.18.ii"]),
    ],
)  # fmt: skip
def test_real_word_documents(name, expected):
    text = text_of(read(FIXTURES / name))
    for words in expected:
        assert words in text
    assert "This is hidden text" not in text


# --- Excel


def cells(*values):
    return "".join(f"<row>{''.join(row)}</row>" for row in values)


def number(value, style=0):
    return f'<c s="{style}"><v>{value}</v></c>'


def inline(text):
    return f'<c t="inlineStr"><is><t>{text}</t></is></c>'


def test_excel_shows_values_as_the_cells_do(tmp_path):
    codes = formats("000", "0.00%", "#,##0.00 &quot;EUR&quot;", "d mmmm yyyy", "@")
    row = [number(7, 1), number(0.0725, 2), number(-1234.5, 3), number(46085, 4), number("0.30000000000000004")]
    formula = '<c t="str"><f>A1&amp;"x"</f><v>007x</v></c>'
    sheet = cells([inline(text) for text in ("Id", "Rate", "Sum", "Day", "n", "f")], [*row, formula])
    (page,) = read(xlsx({"Budget": f"<sheetData>{sheet}</sheetData>"}, styles=codes), tmp_path).pages
    assert page.label == "sheet Budget"
    assert page.text.split("\n")[-1] == "| 007 | 7.25% | -1,234.50 EUR | 4 March 2026 | 0.3 | 007x |"


def test_excel_leaves_hidden_sheets_rows_and_columns_out(tmp_path):
    visible = (
        '<cols><col min="2" max="2" hidden="1"/></cols><sheetData>'
        f"<row>{inline('a')}{inline('hidden column')}{inline('c')}</row>"
        f'<row hidden="1">{inline("hidden row")}</row><row>{inline("d")}{inline("x")}{inline("f")}</row></sheetData>'
    )
    secret = f"<sheetData>{cells([inline('hidden sheet')])}</sheetData>"
    extraction = read(xlsx({"Open": visible, "Secret": secret}, states={"Secret": "veryHidden"}), tmp_path)
    assert text_of(extraction) == "| a | c |\n| --- | --- |\n| d | f |"
    assert "33 hidden characters" in extraction.problems[0].message


def test_excel_repeats_merged_cells_and_column_heads_on_further_pages(tmp_path):
    merged = (
        f'<sheetData><row r="1">{inline("Region")}{inline("Town")}{inline("Value")}</row>'
        f'<row r="2"><c r="A2" t="inlineStr"><is><t>North</t></is></c>'
        f'<c r="B2" t="inlineStr"><is><t>Borken</t></is></c><c r="C2"><v>1</v></c></row>'
        f'<row r="3"><c r="B3" t="inlineStr"><is><t>Ahaus</t></is></c><c r="C3"><v>2</v></c></row></sheetData>'
        '<mergeCells><mergeCell ref="A2:A3"/></mergeCells>'
    )
    rows = [[inline("Name"), inline("Amount")], *([inline(f"row {n} {'x' * 60}"), number(n)] for n in range(2000))]
    book = xlsx({"Merged": merged, "Long": f"<sheetData>{cells(*rows)}</sheetData>"})
    first, *others = read(book, tmp_path).pages
    assert first.text.split("\n")[2:] == ["| North | Borken | 1 |", "| North | Ahaus | 2 |"]
    assert len(others) > 2
    assert all(page.label == "sheet Long" for page in others)
    assert all(page.text.startswith("| Name | Amount |\n| --- | --- |\n") for page in others)
    assert sum(page.text.count("| row ") for page in others) == 2000


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (5551234, "[<=9999999]###-####;(###) ###-####", "555-1234"),
        (0, '_(* #,##0_);_(* (#,##0);_(* "-"_);_(@_)', "-"),
        (1234567, '#,##0.0,,"M"', "1.2M"),
        (3.25, "# ??/??", "3 1/4"),
        (12345.678, "0.00E+00", "1.23E+04"),
        (45000.75, "yyyy-mm-dd hh:mm:ss", "2023-03-15 18:00:00"),
        (1.25, "[h]:mm", "30:00"),
        (1234.5, "#,##0.00\\ [$€-407]", "1,234.50 €"),
        (46085, "[$-407]d. mmm yy", "4. Mar 26"),
        (-0.001, "0.00", "0.00"),
        (123456789012345, "General", "123456789012345"),
    ],
)
def test_number_formats(value, code, shown):
    assert display(value, code) == shown


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("number-formats.xlsx", "sheet Format Examples", ["2.50%", "($1,599.99)", "2 1/2", "17-May-07"]),
        ("dates.xlsx", "sheet testing", ["| 7 | 49 | This is row 7 of 10 | 70.00% | 85.71% | 29-07-1966 |"]),
        ("strict.xlsx", "sheet First Sheet", ["Test spreadsheet", "| 1 | 10 | 2 | 13 |"]),
    ],
)
def test_real_workbooks(name, label, expected):
    extraction = read(FIXTURES / name)
    assert extraction.pages[0].label == label
    for words in expected:
        assert words in text_of(extraction)


# --- PowerPoint


def test_slides_are_numbered_as_shown_and_hidden_ones_left_out(tmp_path):
    slides = [
        shape("Body first") + shape("The title", kind="title") + shape("unseen", hidden=True),
        shape("A hidden slide"),
        f"<p:grpSp>{shape('In a group')}</p:grpSp>",
    ]
    extraction = read(pptx(slides, attributes={2: 'show="0"'}), tmp_path)
    assert [(page.label, page.text) for page in extraction.pages] == [
        ("slide 1", "The title\n\nBody first"),
        ("slide 2", ""),
        ("slide 3", "In a group"),
    ]
    assert [(problem.code, problem.first_page, problem.last_page) for problem in extraction.problems] == [
        ("hidden_text", 1, 2)
    ]
    assert [(heading.title, heading.page) for heading in extraction.headings] == [("The title", 1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("various.pptx", ["| Row 2 Col 1 | Row 2 Col 2 | Row 2 Col 3 |", "Here is a text box"]),
        ("groups.pptx", ["Text box3", "Ungrouped text box", "WordArt1"]),
        ("chart.pptx", ["| March | 4 |"]),
        (
            "hidden-slide.pptx",
            ["Notes: NotesForSlide2", "| Category 1 | 4.3 | 2.4 | 2 |", "[Comment by Timothy Allison: "],
        ),
    ],
)
def test_real_presentations(name, expected):
    extraction = read(FIXTURES / name)
    assert extraction.pages[-1].label == f"slide {extraction.page_count}"
    for words in expected:
        assert words in text_of(extraction)


# --- hostile files

BOMB = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml", "pptx": "ppt/presentation.xml"}
ENTITIES = (
    b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
    b"<document><body><p><r><t>&c;</t></r></p></body></document>"
)


def package(kind, content):
    return office_files._package(BOMB[kind], {BOMB[kind]: content})


@pytest.mark.parametrize("kind", BOMB)
def test_entities_and_external_files_are_refused(tmp_path, kind):
    external = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><document><body>&f;</body></document>'
    for content in (ENTITIES, external):
        with pytest.raises(ExtractionFailed) as caught:
            read(package(kind, content), tmp_path)
        assert caught.value.reason is FailureReason.DAMAGED
        assert "entities" in caught.value.message


@pytest.mark.parametrize("kind", BOMB)
def test_zip_bombs_are_refused_before_they_are_unpacked(tmp_path, kind):
    with pytest.raises(ExtractionFailed) as caught:
        read(package(kind, b"<a>" + b" " * (300 << 20)), tmp_path)
    assert caught.value.reason is FailureReason.OUT_OF_MEMORY


def test_a_member_that_is_larger_than_it_states_is_refused(tmp_path):
    data = bytearray(package("docx", b"<a>" + b" " * (20 << 20)))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        position = data.rfind(mark)
        data[position + offset : position + offset + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(ExtractionFailed) as caught:
        read(bytes(data), tmp_path)
    assert caught.value.reason in (FailureReason.OUT_OF_MEMORY, FailureReason.DAMAGED)
