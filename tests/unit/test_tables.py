"""Tables: found by the position of their cells, kept with their headings in every passage, and answered by the cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragsvc.core.answers.citations import CitedAnswer
from ragsvc.core.answers.extractive import answer
from ragsvc.core.documents import Extraction, Page, Passage, StoredPassage
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.parsing import ChunkingOptions, ExtractionLimits
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.core.text.chunking import embedding_text, split_pages
from ragsvc.core.text.tables import markdown_tables, passage_text, table_context
from ragsvc.extract.pdf_document import read_pdf
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_quote_boxes
from ragsvc.testing.pdf_builder import Text, make_pdf
from tests.unit.test_chunking import Words

MONTHS = ("January", "February", "March", "April")
TOWNS = {
    "Ahaus": ("310", "295", "402", "388"),
    "Borken": ("398", "", "412", "405"),
    "Coesfeld": ("", "217", "230", ""),
    "Dorsten": ("501", "489", "", "520"),
}
FIXTURES = Path(__file__).parents[2] / "fixtures"


def cells(texts, xs, y, *, size=10.0, right=False):
    """Cells of a row; ``right`` aligns all but the first at their right ends, at about Helvetica's width of digits."""
    return [
        Text(x - (0.5 * size * len(text) if right and n else 0), y, text, size)
        for n, (x, text) in enumerate(zip(xs, texts, strict=True))
        if text
    ]


def town_table(*, right=False, top=700, caption="Overnight stays by town"):
    xs = (60, 220, 300, 380, 460)
    rows = [("Town", *MONTHS), *((town, *values) for town, values in TOWNS.items())]
    drawn = [Text(60, top + 24, caption, 10)] if caption else []
    for number, row in enumerate(rows):
        drawn += cells(row, xs, top - 16 * number, right=right)
    return drawn


def read(tmp_path, *pages) -> Extraction:
    path = tmp_path / "file.pdf"
    path.write_bytes(make_pdf(pages))
    return read_pdf(
        path,
        password=None,
        limits=ExtractionLimits(ocr=False),
        reports=PageReports(on_progress=lambda _done, _total: None),
    )


def tables_of(tmp_path, *pages, page=1):
    return read(tmp_path, *pages).tables.get(page, [])


def stored(passage: Passage) -> StoredPassage:
    return StoredPassage(
        id=PassageId(passage.ordinal + 1),
        document_id=DocumentId(1),
        document_public_id="doc_1",
        filename="report.pdf",
        title=None,
        page=passage.page,
        page_label=None,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        headings=passage.headings,
        ordinal=passage.ordinal,
        tables=passage.tables,
    )


def passages_of(extraction: Extraction, **options) -> list[StoredPassage]:
    return [stored(one) for one in split_pages(extraction, options=ChunkingOptions(**options), tokens=Words())]


def ask(question: str, passages: list[StoredPassage]) -> list[str]:
    hits = [SearchHit(passage=passage, score=0.6, dense=0.5) for passage in passages]
    return [sentence.text for sentence in answer(question, hits, answerable=0.9).sentences]


# --- finding tables


@pytest.mark.parametrize("right", [False, True])
def test_empty_cells_keep_their_column(tmp_path, right):
    (table,) = tables_of(tmp_path, town_table(right=right))
    assert table.columns == ("Town", *MONTHS)
    assert [row.cells for row in table.rows] == [(town, *values) for town, values in TOWNS.items()]
    assert table.caption == "Overnight stays by town"


def test_the_text_of_the_page_stays_as_a_reader_sees_it(tmp_path):
    extraction = read(tmp_path, town_table())
    text = extraction.pages[0].text
    assert "Borken 398 412 405" in text.split("\n")
    (table,) = extraction.tables[1]
    assert [text[row.start : row.end] for row in table.rows][1:3] == ["Borken 398 412 405", "Coesfeld 217 230"]
    assert text[table.heading_start : table.heading_end] == "Town January February March April"


def test_headings_over_several_columns_are_headings_of_each(tmp_path):
    xs = (60, 280, 340, 420, 480)
    page = [
        Text(260, 730, "Three months ended", 9),
        Text(400, 730, "Six months ended", 9),
        *cells(("2023", "2022", "2023", "2022"), (270, 330, 410, 470), 716, size=9),
        Text(60, 702, "Revenue:", 9),
    ]
    rows = [
        ("Products", "$ 63,355", "$ 63,948", "$ 245,241", "$ 232,309"),
        ("Services", "19,604", "17,486", "58,941", "(148)"),
    ]
    for number, row in enumerate(rows):
        page += cells(row, xs, 688 - 14 * number, size=9, right=True)
    (table,) = tables_of(tmp_path, page)
    assert table.columns == (
        "",
        "Three months ended 2023",
        "Three months ended 2022",
        "Six months ended 2023",
        "Six months ended 2022",
    )
    assert [row.cells for row in table.rows] == [("Revenue:", "", "", "", ""), *rows]


def test_turned_headings_are_headings_of_their_column(tmp_path):
    headings = "".join(
        f"BT /F 10 Tf 0 1 -1 0 {x + 4} 700 Tm ({text}) Tj ET\n"
        for x, text in zip((220, 300, 380, 460), MONTHS, strict=True)
    )
    rows = [text for text in town_table(top=700, caption="") if text.y < 690]
    body = "\n".join(f"BT /F {size:g} Tf {x:g} {y:g} Td ({text}) Tj ET" for x, y, text, size, _ in rows)
    (table,) = tables_of(tmp_path, (headings + body).encode())
    assert table.columns == ("", *MONTHS)
    assert table.rows[1].cells == ("Borken", *TOWNS["Borken"])


def test_marks_and_single_characters_are_cells(tmp_path):
    rows = [("Plan", "Basic", "Pro"), ("Export", "x", "x"), ("Audit log", "", "x"), ("Seats", "1", "9")]
    page = [text for n, row in enumerate(rows) for text in cells(row, (60, 200, 300), 700 - 16 * n)]
    (table,) = tables_of(tmp_path, page)
    assert [row.cells for row in table.rows] == rows[1:]


def test_a_label_of_two_lines_is_one(tmp_path):
    rows = [
        ("", "2023", "2022"),
        ("Common stock withheld related to settlement of equity", "", ""),
        ("awards", "(1,371)", "(1,224)"),
        ("Dividends", "305", "210"),
    ]
    page = [text for n, row in enumerate(rows) for text in cells(row, (60, 380, 460), 700 - 12 * n)]
    (table,) = tables_of(tmp_path, page)
    assert table.rows[0].cells == ("Common stock withheld related to settlement of equity awards", "(1,371)", "(1,224)")


FORM = (("Name:", "Hydro"), ("Version:", "1.0"), ("Created:", "2003-03-07"), ("Pages:", "12"))
PROSE = (
    "Beekeepers in the northern valley report that colonies",
    "lost during the winter were mostly weak in autumn 2021",
    "already. The association therefore asks its members to",
    "treat against mites before 31 August and to feed each of",
    "the 1,204 colonies at least 15 kilograms of sugar syrup",
)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param([Text(60, 700 - 13 * n, line, 10) for n, line in enumerate(PROSE * 2)], id="prose"),
        pytest.param(
            [Text(x, 700 - 13 * n, line, 9) for n, line in enumerate(PROSE * 2) for x in (60, 330)], id="two columns"
        ),
        pytest.param(
            [
                text
                for n, line in enumerate(PROSE)
                for text in (Text(60, 700 - 15 * n, f"{n + 1}.", 10), Text(90, 700 - 15 * n, line, 10))
            ],
            id="numbered list",
        ),
        pytest.param(
            [
                text
                for n, (key, value) in enumerate(FORM)
                for text in (Text(60, 700 - 14 * n, key, 10), Text(140, 700 - 14 * n, value, 10))
            ],
            id="form",
        ),
        pytest.param(
            [
                text
                for n, (title, number) in enumerate((("Introduction", "1"), ("The valley", "4"), ("Results", "17")))
                for text in (Text(60, 700 - 14 * n, title + " " + ". " * 40, 10), Text(500, 700 - 14 * n, number, 10))
            ],
            id="contents",
        ),
    ],
)  # fmt: skip
def test_text_that_is_no_table_stays_text(tmp_path, page):
    assert tables_of(tmp_path, page) == []


# --- passages


def test_each_passage_of_a_long_table_repeats_the_headings(tmp_path):
    xs = (60, 220, 300, 380)
    rows = [
        ("Station", "Rain", "Wind", "Sun"),
        *((f"Station {n}", str(7 * n + 1), str(n % 9), str(90 - n)) for n in range(40)),
    ]
    page = [
        Text(60, 790, "Weather of the year", 10),
        *(text for n, row in enumerate(rows) for text in cells(row, xs, 770 - 14 * n, size=9)),
    ]
    extraction = read(tmp_path, page)
    passages = passages_of(extraction, max_tokens=120)
    assert len(passages) > 2
    text = extraction.pages[0].text
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        shown = passage_text(passage)
        assert "| Station | Rain | Wind | Sun |" in shown
        for row in rows[1:]:
            assert (f"| {' | '.join(row)} |" in shown) == (" ".join(row) in passage.text.split("\n"))
    later = passages[-1]
    assert table_context(later.tables, later.text) == "Weather of the year\nStation Rain Wind Sun"
    for one in split_pages(extraction, options=ChunkingOptions(max_tokens=120), tokens=Words()):
        embedded = embedding_text(one, title=None, filename="")
        assert "Wind" in embedded
        assert Words().count([embedded])[0] <= 120


def test_a_markdown_table_repeats_its_headings_too():
    rows = "\n".join(f"| Town {n} | {n + 3} | {90 - n} |" for n in range(60))
    text = f"# Stays\n\n| Town | May | June |\n|:--|--:|--:|\n{rows}\n\nSource: the office."
    passages = passages_of(Extraction([Page(1, text)]), max_tokens=100)
    assert len(passages) > 3
    assert all(passage.text == text[passage.start : passage.end] for passage in passages)
    assert all("| Town | May | June |" in passage_text(passage) for passage in passages if passage.tables)
    assert sum(len(table.rows) for passage in passages for table in passage.tables) == 60


@pytest.mark.parametrize(
    "text",
    ["a | b\nc | d", "```\n| a | b |\n|---|---|\n| 1 | 2 |\n```", "| a | b |\n|---|\n| 1 | 2 |", "a - b\n---\n| c |"],
)
def test_text_with_bars_is_no_markdown_table(text):
    assert markdown_tables(text) == []


# --- answers


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Borken, March", "Borken, March: 412"),
        ("How many overnight stays did Coesfeld have in February?", "Coesfeld, February: 217"),
        ("What was the value of Dorsten in April?", "Dorsten, April: 520"),
    ],
)
def test_the_cell_is_the_answer(tmp_path, question, expected):
    passages = passages_of(read(tmp_path, town_table()))
    assert ask(question, passages) == [expected]


def test_an_empty_cell_is_not_answered_with_another_columns_value(tmp_path):
    passages = passages_of(read(tmp_path, town_table()))
    found = ask("How many stays had Borken in February?", passages)
    assert not any("398" in text or "412" in text or "405" in text for text in found)


def test_the_cell_of_a_markdown_table_is_the_answer():
    text = "# Prices\n\n| Boat | Hour | Day |\n|---|---|---|\n| Canoe | 9 | 31 |\n| Kayak | 12 | 44 |"
    passages = passages_of(Extraction([Page(1, text)]))
    assert ask("What does a kayak cost for a day?", passages) == ["Kayak, Day: 44"]


def test_the_quote_of_a_cell_is_on_the_page_and_has_boxes(tmp_path):
    extraction = read(tmp_path, town_table())
    (passage,) = passages_of(extraction)
    hits = [SearchHit(passage=passage, score=0.6, dense=0.5)]
    cited = CitedAnswer(hits, extractive=True)
    cited.feed(f"{ask('Borken, March', [passage])[0]} [1]")
    (citation,) = cited.citations()
    text = extraction.pages[0].text
    assert "Borken 398 412 405" in citation.quote
    start = text.index(citation.quote)
    boxes = find_quote_boxes(tmp_path / "file.pdf", 1, start, start + len(citation.quote), page_text=text)
    assert any(abs(box.bottom - 668) < 3 and box.left < 62 for box in boxes)


def test_the_scale_of_a_statement_is_part_of_the_answer(tmp_path):
    rows = [
        ("", "2023", "2022"),
        ("Total net sales", "383,285", "394,328"),
        ("Net income", "96,995", "99,803"),
        ("Effective tax rate", "14.7%", "16.2%"),
    ]
    page = [Text(60, 720, "Statements of operations (in millions)", 9)]
    page += [text for n, row in enumerate(rows) for text in cells(row, (60, 330, 420), 700 - 14 * n, size=9)]
    passages = passages_of(read(tmp_path, page))
    assert ask("What was net income in 2022?", passages) == ["Net income, 2022: 99,803 (in millions)"]
    assert ask("What was the effective tax rate in 2022?", passages) == ["Effective tax rate, 2022: 16.2%"]
