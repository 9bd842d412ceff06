"""Rows of tables and lists are quoted with their headings; doubtful answers are recognised."""

import pytest
from msgspec.structs import replace

from ragsvc.core.answers.extractive import ExtractedAnswer, answer
from ragsvc.core.text.sentences import sentence_spans
from ragsvc.core.text.tables import markdown_tables
from tests.unit.test_answering import hit

CENSUS = (
    "The county grew fast.\nTable 3. Population of Adler County\nYear Inhabitants 1870 130\n1880 8,267\n1890 14,096\n"
    "1900 13,330\n1910 13,459"
)
BOATS = (
    "| Boat | Price 2023 | Price 2024 |\n|---|---|---|\n| Canoe | 12 EUR | 14 EUR |\n| Sailing boat | 30 EUR | 33 EUR |"
)
PREFIXES = (
    "Table 1. Prefix Identification\n\nPrefix Package Temperature Range\n\nP Plastic Commercial\n\n"
    "N Ceramic Commercial\n\nTD Cerdip Extended\n\nLP Plastic Extended"
)
RIDERS = (
    "Average weekday riders\nRank 2012 2013 2014 Change\nAlmond Park 2 4,461 5,469 6,156 38%\nHill View 3 3,670 3,876"
)


def ask(question: str, *texts: str) -> ExtractedAnswer:
    return answer(question, [hit(text) for text in texts], answerable=1.0)


@pytest.mark.parametrize(
    ("question", "text", "heading", "row"),
    [
        (
            "What was the population of Adler County in 1890?",
            CENSUS,
            "Table 3. Population of Adler County",
            "1890 14,096",
        ),
        ("What was the price of the canoe in 2024?", BOATS, "| Boat | Price 2023 | Price 2024 |", "| Canoe | 12 EUR |"),
        ("Which package does the prefix TD stand for?", PREFIXES, "Prefix Package Temperature", "TD Cerdip Extended"),
        (
            "How many weekday riders had Almond Park in 2013?",
            RIDERS,
            "Average weekday riders\nRank",
            "Almond Park 2 4,461",
        ),
    ],
)
def test_a_row_is_quoted_after_the_headings_of_its_table(question: str, text: str, heading: str, row: str):
    found = ask(question, text)
    assert not found.doubtful
    quoted = [sentence.text for sentence in found.sentences]
    assert heading in quoted[0]
    assert quoted[1].startswith(row)
    assert all(text[sentence.start : sentence.end] == sentence.text for sentence in found.sentences)


def test_a_caption_is_no_answer_where_a_row_has_the_value():
    quoted = [sentence.text for sentence in ask("How many weekday riders had Hill View in 2012?", RIDERS).sentences]
    assert any(text.startswith("Hill View 3 3,670") for text in quoted)
    assert quoted[-1] != "Average weekday riders"


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How many weekday riders had Almond Park in 2019?", RIDERS),
        ("What was the price of the canoe in 2019?", BOATS),
        ("How much did Adler County spend in 2022?", "Adler County spent 4 million euros in 2019."),
    ],
)
def test_a_statement_for_other_years_only_is_doubtful(question: str, text: str):
    assert ask(question, text).doubtful


def test_a_passage_without_the_thing_asked_about_is_doubtful():
    tesco = "Tesco today\nStock at 11 year low\nShedding 9000 jobs\nClosing 43 stores"
    assert not ask("How many stores is Tesco closing?", tesco).doubtful
    assert ask("How many stores is Walmart closing?", tesco).doubtful
    assert not ask("How many stores is the British firm closing?", tesco).doubtful


def test_a_sentence_under_a_heading_needs_none_of_the_words_of_the_heading():
    text = "Master of Arts (Applied Psychology)\n\nFor counsellors and educators who want to serve in schools."
    assert (
        ask("Who is the Master of Arts in Applied Psychology for?", text)
        .sentences[0]
        .text.startswith("For counsellors")
    )


def test_lines_of_a_double_spaced_page_continue_their_sentences():
    lines = [
        "of two hundred thousand and four dollars. The reverse side of the",
        "check showed that this check was used to purchase a cashier's check.",
        "Further investigation revealed that the manager purchased a red",
        "convertible from the dealer for three hundred thirty nine thousand,",
        "nine hundred and ninety five dollars ($339,995.00). The dealer had",
        "confirmed the sale in writing to the agents of the bureau in 2014,",
        "and it sent the papers to the office on the following day by mail.",
    ]
    text = "\n\n".join(lines)
    sentences = [" ".join(text[start:end].split()) for start, end in sentence_spans(text)]
    expected = "Further investigation revealed that the manager purchased a red convertible from the dealer for three"
    assert any(sentence.startswith(expected) and "$339,995.00" in sentence for sentence in sentences)
    paragraphs = "\n\n".join(f"Rule {n} has a paragraph of its own that ends here." for n in range(8))
    assert len(sentence_spans(paragraphs)) == 8


def test_a_heading_without_the_number_asked_about_is_no_answer():
    heading = "Pin assignment, signal name and wiring diagram of the DVI terminal"
    found = ask("What is the signal name of pin 7 of the DVI terminal?", heading, "Pin 7 has the DDC data.")
    assert [sentence.text for sentence in found.sentences] == ["Pin 7 has the DDC data."]


def ask_table(question: str, table: str) -> list[str]:
    """The quotes of an answer from a passage with a Markdown table, which the reader has found."""
    found = hit(table)
    read = replace(found, passage=replace(found.passage, tables=tuple(markdown_tables(table))))
    return [sentence.text for sentence in answer(question, [read], answerable=1.0).sentences]


SALES = (
    "| Region | Month | Sales | Costs |\n|---|---|---|---|\n| North | May | 31 | 12 |\n| North | June | 35 | 14 |\n"
    "| South | May | 52 | 25 |\n| South | June | 57 | 28 |"
)
MERGED = (
    "| Company | Year | Revenue | Staff |\n|---|---|---|---|\n| Borken Boats | 2021 | 310 | 12 |\n"
    "|  | 2022 | 350 | 14 |\n| Adler Ferries | 2021 | 520 | 25 |\n|  | 2022 | 570 | 28 |\n| Total |  | 1750 | 79 |"
)


@pytest.mark.parametrize(
    ("question", "table", "statement"),
    [
        ("What were the sales in the South region in June?", SALES, "South, June, Sales: 57"),
        ("What were the costs of the North in May?", SALES, "North, May, Costs: 12"),
        ("What was the revenue of Borken Boats in 2022?", MERGED, "Borken Boats, 2022, Revenue: 350"),
        ("How many staff had Adler Ferries in 2022?", MERGED, "Adler Ferries, 2022, Staff: 28"),
    ],
)
def test_rows_told_apart_by_two_columns_are_stated_with_both(question: str, table: str, statement: str):
    assert ask_table(question, table)[0] == statement


def test_a_row_without_a_second_key_is_stated_by_its_label():
    assert ask_table("What was the total revenue?", MERGED)[0] == "Total, Revenue: 1750"


def test_a_code_with_a_number_is_not_the_number_that_tells_rows_apart():
    pins = (
        "Pin assignment and signal name of the HD15 input terminal (mini D-Sub 15 pin)\n\nPin No. Signal Name\n\n"
        "4 NC 12 SDA\n5 GND 13 SYNC\n6 GND 14 VD"
    )
    quoted = [
        sentence.text for sentence in ask("Which signal is on pin 13 of the HD15 input terminal?", pins).sentences
    ]
    assert any("5 GND 13 SYNC" in text for text in quoted)


def test_a_word_that_a_hyphen_cuts_goes_on_after_a_blank_line():
    text = "There is a possible companion case (Case No. 17-cr-\n\n20406, judge Borman presiding) in Husum."
    assert [text[start:end] for start, end in sentence_spans(text)] == [text]
    heading = "Boats for hire-\n\nCanoes cost 12 euros."
    assert len(sentence_spans(heading)) == 2


def test_a_share_in_brackets_on_the_next_line_belongs_to_its_sentence():
    first = (
        "Those who say the town has done a bad job are more likely to have no confidence in it (64%) than those who say"
    )
    text = f"{first}\nit has done a good job\n(39%). The same is true of those who blame the town for its ferries."
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    assert sentences[0].endswith("good job\n(39%).")
