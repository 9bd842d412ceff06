"""The order of text: turned and vertical text, rows of cells, and columns, each in small files of one kind."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

import pypdf
import pypdfium2
import pytest
from pypdf.generic import DictionaryObject, NameObject

from ragsvc.extract.layout import page_text
from ragsvc.extract.pdf_text import open_text_page, read_lines
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.testing.pdf_builder import Text, assemble, escape, make_pdf, stream

FIXTURES = Path(__file__).parents[2] / "fixtures"
PROSE = [
    "Beekeepers in the northern valley report that colonies lost",
    "during the winter were mostly weak in autumn already. The",
    "association therefore asks its members to treat against mites",
    "before the end of August and to feed each colony at least",
    "fifteen kilograms of sugar syrup before the first frost.",
]


def text_of(data: bytes, page: int = 1) -> str:
    with (
        pypdfium2.PdfDocument(data) as document,
        open_text_page(document.raw, page - 1, max_characters=10_000) as found,
    ):
        return page_text(read_lines(found).lines)


def words(text: str) -> str:
    return " ".join(text.split())


# --- turned pages and turned text


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_text_keeps_its_order_however_its_page_is_turned(rotate):
    indents = [72, 72, 90, 72, 72, 72, 110, 72, 72, 72]
    page = [Text(x, 700 - 16 * n, f"Line {n}: the marker post {n} stands here.") for n, x in enumerate(indents)]
    text = words(text_of(make_pdf([page], page_extra=b" /Rotate %d" % rotate)))
    assert text == " ".join(line.text for line in page)


@pytest.mark.parametrize("rotate", [90, 270])
def test_sentences_are_not_joined_across_on_a_turned_page(rotate):
    page = [Text(72, 700 - 14 * n, line) for n, line in enumerate(PROSE)]
    assert words(text_of(make_pdf([page], page_extra=b" /Rotate %d" % rotate))) == " ".join(PROSE)


@pytest.mark.parametrize(
    ("matrix", "start", "step"),
    [("0 1 -1 0", (300, 450), (14, 0)), ("0 -1 1 0", (400, 800), (-14, 0)), ("-1 0 0 -1", (500, 600), (0, 14))],
)
def test_a_turned_block_on_an_upright_page_is_read_in_its_own_direction(matrix, start, step):
    turned = "\n".join(
        f"BT /F 11 Tf {matrix} {start[0] + step[0] * n} {start[1] + step[1] * n} Tm ({escape(line)}) Tj ET"
        for n, line in enumerate(PROSE)
    )
    upright = "\n".join(
        f"BT /F 11 Tf 60 {300 - 14 * n} Td (The horizontal line {n} is of the main text of this page.) Tj ET"
        for n in range(12)
    )
    text = words(text_of(make_pdf([f"{turned}\n{upright}".encode()])))
    assert " ".join(PROSE) in text
    assert text.index("line 0 is") < text.index("line 11 is")


def test_reading_a_turned_page_leaves_its_rotation():
    page = [Text(72, 700 - 14 * n, line) for n, line in enumerate(PROSE)]
    with pypdfium2.PdfDocument(make_pdf([page], page_extra=b" /Rotate 90")) as document:
        with open_text_page(document.raw, 0, max_characters=1000):
            assert document[0].get_rotation() == 90
        assert document[0].get_rotation() == 90


def test_a_quote_is_found_on_a_turned_page(tmp_path):
    path = tmp_path / "turned.pdf"
    path.write_bytes(
        make_pdf([[Text(72, 700 - 14 * n, line) for n, line in enumerate(PROSE)]], page_extra=b" /Rotate 90")
    )
    text = text_of(path.read_bytes())
    start = text.index("autumn already. The")
    (box,) = find_quote_boxes(path, 1, start, start + len("autumn already"), page_text=text)
    assert box.bottom == pytest.approx(686, abs=4)
    assert box.left > 72


# --- vertical text

VERTICAL = ["東京都は日本の首都", "であり世界で最も人口", "の多い都市の一つです"]


def vertical_pdf(columns, *, extra=(), writing="V", stacked=False):
    """Columns of (x, y, text) in the font of the fixture."""
    writer = pypdf.PdfWriter(clone_from=FIXTURES / "cases/vertical-columns.pdf")
    page = writer.pages[0]
    fonts = page["/Resources"]["/Font"]
    font = fonts["/F1"]
    glyphs = _glyphs(font["/ToUnicode"].get_data())
    font[NameObject("/Encoding")] = NameObject(f"/Identity-{writing}")
    names = {"Type": "Font", "Subtype": "Type1", "BaseFont": "Helvetica", "Encoding": "WinAnsiEncoding"}
    fonts[NameObject("/B")] = DictionaryObject({NameObject(f"/{key}"): NameObject(f"/{v}") for key, v in names.items()})
    pieces = []
    for x, y, text in columns:
        runs = [(y - 13 * n, character) for n, character in enumerate(text)] if stacked else [(y, text)]
        pieces += [
            f"BT /F1 12 Tf {x} {top} Td <{''.join(glyphs[character] for character in run)}> Tj ET" for top, run in runs
        ]
    pieces += [f"BT /B 11 Tf {x} {y} Td ({escape(text)}) Tj ET" for x, y, text in extra]
    page["/Contents"].get_object().set_data("\n".join(pieces).encode())
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _glyphs(to_unicode: bytes) -> dict[str, str]:
    pairs = to_unicode.split(b"beginbfchar", 1)[1].split(b"endbfchar", 1)[0].replace(b"<", b" ").replace(b">", b" ")
    codes = pairs.decode().split()
    return {chr(int(value, 16)): code for code, value in zip(codes[::2], codes[1::2], strict=True)}


HORIZONTAL = [(60, 300 - 14 * n, f"The horizontal line {n} is of the main text of this page.") for n in range(12)]


def test_the_vertical_columns_of_the_case_run_from_right_to_left():
    text = text_of((FIXTURES / "cases/vertical-columns.pdf").read_bytes())
    assert text.replace("\n", "") == "".join(VERTICAL)


@pytest.mark.parametrize("extra", [(), HORIZONTAL], ids=["alone", "on a horizontal page"])
@pytest.mark.parametrize(("writing", "stacked"), [("V", False), ("V", True), ("H", True)])
def test_vertical_columns_run_from_right_to_left(writing, stacked, extra):
    columns = [(500 - 20 * n, 700, text) for n, text in enumerate(VERTICAL)]
    text = text_of(vertical_pdf(columns, writing=writing, stacked=stacked, extra=extra)).replace("\n", "")
    assert "".join(VERTICAL) in text


def test_vertical_text_in_two_tiers_ends_the_upper_one_first():
    texts = [*VERTICAL, *VERTICAL[::-1]]
    columns = [(500 - 20 * (n % 3), 700 - 300 * (n // 3), text) for n, text in enumerate(texts)]
    assert text_of(vertical_pdf(columns)).replace("\n", "") == "".join(texts)


def test_short_last_columns_belong_to_their_paragraph():
    text = text_of((FIXTURES / "cases/vertical-short-columns.pdf").read_bytes())
    paragraphs = [paragraph.replace("\n", "") for paragraph in text.split("\n\n")]
    assert paragraphs == [
        "二〇二四年年度报告 Annual report 2024",
        "本公司二〇二四年营业收入为三千二百万元\uff0c同比增长百分之十二。",
        "员工总数为四百五十人\uff0c其中研发人员一百二十人。",
        "本页以横排文字结束\uff0c联系电话 021-5555。",
        "第二栏从这里开始\uff0c董事会由七名董事组成。",
        "监事会由三名监事组成。",
    ]


def test_turned_letters_stay_in_their_column_and_readings_do_not_divide_a_sentence():
    text = text_of((FIXTURES / "cases/vertical-with-latin.pdf").read_bytes())
    assert "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" in text
    assert "この書生というのは時々我々を捕えて煮て食うという話である。PDF-2024年版。" in text
    assert text.endswith("わがはい")


# --- rows of cells


def grid(rows, *, xs, top=700.0, leading=16.0):
    """Each cell is an object of its own; empty cells are not written."""
    return [
        Text(x, top - leading * n, cell, 10)
        for n, row in enumerate(rows)
        for x, cell in zip(xs, row, strict=True)
        if cell
    ]


def test_cells_of_one_character_stay_in_their_row():
    table = [["", "Spring", "Autumn"], ["Pike", "7", "9"], ["Trout", "41", "5"], ["Eel", "X", "X"]]
    lines = text_of(make_pdf([grid(table, xs=(60, 195, 260))])).split("\n")
    assert {"Pike 7 9", "Trout 41 5", "Eel X X"} <= set(lines)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_a_row_whose_first_value_is_a_single_character_stays_a_row(rotate):
    rows = [("Boat", "Hour", "Day"), ("Canoe", "9", "31"), ("Kayak", "12", "44")]
    page = [
        Text(x, 700 - 16 * n, cell, 10)
        for n, row in enumerate(rows)
        for x, cell in zip((60, 200, 300), row, strict=True)
    ]
    text = text_of(make_pdf([page], page_extra=b" /Rotate %d" % rotate))
    assert text.split() == " ".join(map(" ".join, rows)).split()
    assert "Canoe 9 31" in text.split("\n")


def test_rows_under_turned_headings_stay_rows():
    headings = ["Spring", "Summer", "Autumn", "Winter"]
    turned = "\n".join(f"BT /F 10 Tf 0 1 -1 0 {200 + 60 * n} 700 Tm ({name}) Tj ET" for n, name in enumerate(headings))
    rows = [["Trout", "41", "52", "38", "17"], ["Pike", "7", "9", "6", "3"]]
    cells = grid(rows, xs=(60, 195, 255, 315, 375), top=680)
    plain = "\n".join(f"BT /F 10 Tf {x} {y} Td ({text}) Tj ET" for x, y, text, *_ in cells)
    assert words(text_of(make_pdf([f"{turned}\n{plain}".encode()]))) == (
        "Spring Summer Autumn Winter Trout 41 52 38 17 Pike 7 9 6 3"
    )


def test_words_set_letter_by_letter_stay_words():
    widths = dict(zip("PQVaeimorstu", (667, 778, 667, 556, 556, 222, 833, 556, 333, 500, 278, 556), strict=True))
    letters = []
    for n, word in enumerate(["Permit", "Visitor", "Quota"]):
        starts = [60 + sum(widths[letter] for letter in word[:k]) / 100 for k in range(len(word))]
        letters += [Text(x, 700 - 30 * n, letter, 10) for x, letter in zip(starts, word, strict=True)]
        letters.append(Text(200, 700 - 30 * n, str(n + 4), 10))
    assert words(text_of(make_pdf([letters]))) == "Permit 4 Visitor 5 Quota 6"


def test_a_raised_mark_is_no_cell():
    page = [Text(60, 700, "Turnover", 10), Text(101, 705, "2", 6), Text(60, 640, "Costs", 10), Text(200, 640, "8", 10)]
    text = text_of(make_pdf([page]))
    assert "Turnover2" not in text
    assert "Costs 8" in text


# --- columns that the file writes row by row

ORCHARD = (
    "The orchard programme pays ninety euros for each tall fruit tree that is planted along a public road. "
    "Applications are open from the first of February until the last day of April, and trees must be cared for during "
    "ten years."
)
FERRY = (
    "Ferry tickets are sold at the pier from six in the morning. Bicycles travel free on weekdays and cost three euros "
    "at weekends. The last boat back leaves at twenty past nine in the evening from the castle landing."
)
BEES = " ".join(PROSE)
BRUNNEN = (
    "Der Verein bittet deshalb seine Mitglieder um Spenden für den neuen Brunnen am Markt. Die Arbeiten beginnen im "
    "Herbst und dauern bis zum Ende des Jahres, wenn das Wetter es zulässt."
)


def row_by_row(texts, *, width, distance, rows=None, size=9, top=740.0):
    columns = [textwrap.wrap(text, width)[:rows] for text in texts]
    return [
        Text(40 + distance * index, top - 12 * row, column[row], size)
        for row in range(max(map(len, columns)))
        for index, column in enumerate(columns)
        if row < len(column)
    ]


@pytest.mark.parametrize(
    ("texts", "width", "distance"),
    [
        ((BEES, ORCHARD, FERRY), 30, 172),
        ((BEES, ORCHARD, BRUNNEN, FERRY), 24, 132),
        ((BEES, FERRY), 46, 260),
    ],
    ids=["three columns", "four columns", "two columns"],
)
def test_columns_written_row_by_row_keep_their_sentences(texts, width, distance):
    heading = [Text(40, 790, "The news of the valley in spring", 20), Text(540, 30, "3", 9)]
    text = words(text_of(make_pdf([[*heading, *row_by_row(texts, width=width, distance=distance)]])))
    for sentence in texts:
        assert sentence in text


BOATS = (
    "In 2025 the harbour handled 1,482 boats, of which 211 were new, and 36 percent more than in 2024, when 1,090 came "
    "to the island over the summer."
)
BUDGET = (
    "The budget for 2026 is 4.2 million euros, up from 3.9 million in 2025, and 12 posts are added in the harbour "
    "office, of which 3 are part time."
)
FEES = (
    "Fees rise to 12 euros for boats up to 8 metres, 18 euros up to 12 metres, and 31 euros above, from 1 April 2026 "
    "on, and children stay free."
)


def test_columns_with_figures_keep_their_sentences():
    text = words(text_of(make_pdf([row_by_row((BOATS, BUDGET, FEES), width=32, distance=180)])))
    for sentence in (BOATS, BUDGET, FEES):
        assert sentence in text


def by_height(texts, *, widths, lefts, leadings, offsets=(0, 0, 0)):
    """Columns as a program writes them that sorts all lines by their height on the page."""
    drawn = [
        Text(left, 740 - offset - leading * row, line, 9)
        for text, width, left, leading, offset in zip(texts, widths, lefts, leadings, offsets, strict=True)
        for row, line in enumerate(textwrap.wrap(text, width))
    ]
    return sorted(drawn, key=lambda line: (-line.y, line.x))


@pytest.mark.parametrize(
    "options",
    [
        {"widths": (32, 32, 32), "lefts": (40, 220, 400), "leadings": (12, 12, 12), "offsets": (0, 3, 5)},
        {"widths": (32, 32, 32), "lefts": (40, 220, 400), "leadings": (12, 12.7, 11.4)},
        {"widths": (20, 34, 34), "lefts": (40, 170, 400), "leadings": (12, 12, 12)},
    ],
    ids=["not level", "of different leading", "of different width"],
)
def test_columns_of_different_shapes_keep_their_sentences(options):
    texts = (BEES, ORCHARD, FERRY)
    text = words(text_of(make_pdf([by_height(texts, **options)])))
    for sentence in texts:
        assert sentence in text


def test_short_columns_keep_their_sentence():
    texts = ("The committee reviewed the annual report and", "approved the budget for the coming fiscal year.")
    text = text_of(make_pdf([row_by_row(texts, width=34, distance=260, size=10)]))
    assert text == " ".join(texts)


def test_short_columns_between_paragraphs_keep_their_sentences():
    page = [
        *(Text(40, 790 - 13 * n, line, 11) for n, line in enumerate(PROSE)),
        *row_by_row((ORCHARD, FERRY), width=40, distance=250, rows=4, top=700),
        *(Text(40, 630 - 13 * n, line, 11) for n, line in enumerate(PROSE)),
    ]
    text = words(text_of(make_pdf([page])))
    assert words(" ".join(textwrap.wrap(ORCHARD, 40)[:4])) in text
    assert words(" ".join(textwrap.wrap(FERRY, 40)[:4])) in text


def test_rows_of_words_are_no_columns():
    table = [
        ["Office of the director", "Lower Market Street", "open in the morning"],
        ["Registry of deeds", "Upper Market Street", "open on Tuesdays"],
        ["Board of the harbour", "Pier on the north side", "closed in winter"],
    ]
    lines = text_of(make_pdf([grid(table, xs=(40, 220, 400))])).split("\n")
    assert [" ".join(row) for row in table] == lines


def test_wrapped_cells_of_a_table_are_not_read_as_columns():
    table = [
        ["Rights of holders of", "The holders have the"],
        ["common shares", "right to one vote"],
        ["Rights of the holders", "The holders receive a"],
        ["of preferred shares", "dividend before others"],
        ["Duties of the board", "The board reports to"],
        ["of the company", "the general meeting"],
    ]
    text = text_of(make_pdf([grid(table, xs=(40, 300), leading=12)]))
    assert text.index("right to one vote") < text.index("of preferred shares")


# --- text that is printed twice


@pytest.mark.parametrize("offset", [(0.3, 0), (0.6, 0.2), (2.5, -2.5)])
@pytest.mark.parametrize("lines_between", [1, 20], ids=["line by line", "page by page"])
def test_text_printed_twice_for_a_bold_face_is_text_once(offset, lines_between):
    page = [Text(60, 700 - 14 * n, f"The fee number {n} is {n + 10} euros.") for n in range(20)]
    printed = []
    for start in range(0, 20, lines_between):
        block = page[start : start + lines_between]
        printed += [*block, *(line._replace(x=line.x + offset[0], y=line.y + offset[1]) for line in block)]
    assert words(text_of(make_pdf([printed]))) == " ".join(line.text for line in page)


@pytest.mark.parametrize("offset", [(0.4, 0), (1.2, -1.2)])
def test_characters_printed_twice_one_by_one_are_text_once(offset):
    printed = []
    for n, character in enumerate("HARBOUR SURVEY"):
        if character != " ":
            x = 60 + 9 * n
            printed += [Text(x, 700, character, 12), Text(x + offset[0], 700 + offset[1], character, 12)]
    assert words(text_of(make_pdf([[*printed, Text(60, 660, "The survey of 1897 lists all barns.")]]))) == (
        "HARBOUR SURVEY The survey of 1897 lists all barns."
    )


def test_words_of_double_letters_stay():
    assert words(text_of(make_pdf([[Text(60, 700, "II ll 1100 AABB ooee")]]))) == "II ll 1100 AABB ooee"


def test_equal_rows_below_each_other_are_all_text():
    page = [Text(60, 700 - 8 * n, "Nil return", 8) for n in range(4)]
    assert words(text_of(make_pdf([page]))) == " ".join(["Nil return"] * 4)


# --- rows that begin with a single character, and line numbers in the margin


def test_rows_that_begin_with_a_single_character_stay_apart():
    rows = [[str(n + 1), f"Name {letter}", str(17 * n + 3)] for n, letter in enumerate("abcdefghijkl")]
    page = [cell._replace(size=11) for cell in grid(rows, xs=(72, 95, 300), leading=14)]
    assert text_of(make_pdf([page])).split("\n") == [" ".join(row) for row in rows]


def numbered(*, first, step=1, x=50.0, size=9.0, together=True):
    """Prose with the numbers of its lines in the margin, written with the lines or after them."""
    texts = textwrap.wrap(f"{BEES} {ORCHARD} {FERRY}", 50)
    lines = [Text(90, 760 - 16 * n, text, 11) for n, text in enumerate(texts)]
    numbers = {n: Text(x, 760 - 16 * n, str(first + n), size) for n in range(len(texts)) if not (first + n) % step}
    if together:
        return [item for n, line in enumerate(lines) for item in (*([numbers[n]] if n in numbers else []), line)]
    return [*lines, *numbers.values()]


@pytest.mark.parametrize(
    "layout",
    [
        {"first": 1},
        {"first": 1, "together": False},
        {"first": 236, "size": 6, "x": 72},
        {"first": 1, "step": 5},
        {"first": 1, "step": 5, "x": 520, "together": False},
    ],
)
def test_line_numbers_in_the_margin_are_left_out(layout):
    assert words(text_of(make_pdf([numbered(**layout)]))) == f"{BEES} {ORCHARD} {FERRY}"


def test_line_numbers_go_on_beside_empty_lines():
    page = [*(Text(50, 760 - 24 * n, str(n + 1), 12) for n in range(28)), *numbered(first=1, step=99)]
    assert words(text_of(make_pdf([page]))) == f"{BEES} {ORCHARD} {FERRY}"


def test_the_numbers_of_lists_and_tables_stay():
    items = [Text(60, 760 - 16 * n, f"{n + 1} The board takes note of report {n}", 11) for n in range(12)]
    years = [Text(60, 500 - 16 * n, f"{2012 + n} 1,{n}41 2,{n}07", 11) for n in range(10)]
    text = text_of(make_pdf([[*items, *years]]))
    for line in (*items, *years):
        assert line.text in text


# --- tables that the file writes column by column, or from right to left


@pytest.mark.parametrize(
    "values",
    [
        [("714", "9"), ("43", "512"), ("89", "12")],
        [("7", "9"), ("4", "5"), ("8", "2")],
        [("7 %", "-"), ("-", "5 %"), ("8 %", "1 %")],
    ],
    ids=["numbers", "digits", "shares"],
)
def test_a_table_written_column_by_column_keeps_its_rows(values):
    rows = [(label, *cells) for label, cells in zip(("Pike", "Trout", "Eel"), values, strict=True)]
    cells = [Text(x, 700 - 16 * n, row[k], 10) for k, x in enumerate((60, 195, 260)) for n, row in enumerate(rows)]
    assert [line for line in text_of(make_pdf([cells])).split("\n") if line] == [" ".join(row) for row in rows]


def test_cells_written_from_right_to_left_are_read_from_left_to_right():
    rows = [("Pike", "7", "9"), ("Trout", "4", "5"), ("Eel", "8", "2")]
    cells = [cell for row in rows for cell in reversed(grid([row], xs=(60, 195, 260), top=700 - 16 * rows.index(row)))]
    assert [line for line in text_of(make_pdf([cells])).split("\n") if line] == [" ".join(row) for row in rows]


def test_two_lists_beside_each_other_are_no_table():
    left, right = ["Apples from the north", "Pears", "Plums"], ["Carrots and beets", "Onions", "Leeks"]
    page = [Text(x, 700 - 16 * n, item, 10) for x, items in ((60, left), (300, right)) for n, item in enumerate(items)]
    assert words(text_of(make_pdf([page]))) == " ".join([*left, *right])


# --- Hebrew

HEBREW = "".join(map(chr, range(0x05D0, 0x05EB)))
_HEBREW_CODES = {character: code for code, character in enumerate(f"{HEBREW}0123456789-.,%PDF ()", start=1)}


def hebrew_pdf(lines):
    """Lines of runs in logical order, drawn from right to left as they are seen."""
    count = len(_HEBREW_CODES)
    pairs = b" ".join(b"<%02x> <%04x>" % (code, ord(character)) for character, code in _HEBREW_CODES.items())
    cmap = b"begincmap 1 begincodespacerange <00> <ff> endcodespacerange %d beginbfchar %s endbfchar endcmap"
    body = []
    for number, runs in enumerate(lines):
        shown = "".join(run[::-1] if set(run) & set(HEBREW) else run for run in reversed(runs))
        codes = "".join(f"{_HEBREW_CODES[character]:02x}" for character in shown)
        body.append(f"BT /H 11 Tf {550 - 6.6 * len(shown):.1f} {700 - 20 * number} Td <{codes}> Tj ET")
    font = (
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 600 800] /FontMatrix [.001 0 0 .001 0 0]"
        b" /CharProcs << /g 6 0 R >> /Encoding << /Type /Encoding /Differences [1 %s] >>"
        b" /FirstChar 1 /LastChar %d /Widths [%s] /ToUnicode 7 0 R >>"
    )
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources 8 0 R >>",
            stream("\n".join(body).encode()),
            font % (b"/g " * count, count, b"600 " * count),
            stream(b"600 0 0 0 550 700 d1 50 0 450 700 re f"),
            stream(cmap % (count, pairs)),
            b"<< /Font << /H 5 0 R >> >>",
        ]
    )


@pytest.mark.parametrize(
    "runs",
    [
        ("ההכנסות ב-", "2023", " היו ", "1,482", " מיליון שקל"),
        ("עלה ב-", "12.5%", " השנה"),
        ("סעיף ", "12", "-א לחוק"),
        ("בין ה-", "1", " ל-", "10", " במאי"),
        ("הקובץ ב-", "PDF", " נשלח"),
        ("בשנים ", "2020-2023", " נמכרו"),
    ],
)
def test_a_hebrew_prefix_stands_before_its_number(runs):
    assert text_of(hebrew_pdf([runs])) == "".join(runs)
