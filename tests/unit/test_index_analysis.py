"""Terms of passages and questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.text.languages import detect_language
from ragsvc.index.analysis import MAX_TERM_CHARACTERS, passage_terms, query_terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10-Q", ["10-q", "10", "q"]),
        ("up 3.2%.", ["up", "3.2", "3.2%"]),
        ("$1,234,567.89", ["1234567.89"]),
        ("03/31/2023", ["03/31/2023", "03", "31", "2023"]),
        ("FY2023 2022Q3_AAPL.pdf", ["fy2023", "fy", "2023", "2022q3", "2022", "q3", "aapl", "pdf"]),
        ("the U.S. and AT&T", ["the", "us", "and", "at&t", "at"]),
        ("long-term", ["long", "term", "longterm"]),
        ("ﬁnancial re\u00adsults", ["financi", "result"]),
        ("２０２３年", ["2023", "年"]),
        ("収入", ["収", "入", "収入"]),
        ("naïve CAFÉ", ["naiv", "cafe"]),
        ("36.5¹ in 2025²", ["36.5", "1", "in", "2025", "2"]),
        ("Revenue¹ of 52 m² at log₂10", ["revenu", "1", "of", "52", "m2", "at", "log", "2", "10"]),
        ("\U0001d5ea\U0001d5fc\U0001d5ff\U0001d5f8", ["work"]),
    ],
)
def test_terms(text, expected):
    assert passage_terms(text, language="english")[0] == expected


def test_a_footnote_mark_does_not_change_a_figure():
    assert passage_terms("members: 1,482³", language="english") == passage_terms("members: 1,482 3", language="english")
    assert set(query_terms("1,482 members", languages=["english"])) <= set(passage_terms("1,482³ members")[0])


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the cost of goods and services", "english"),
        ("die kosten der waren und dienste", "german"),
        ("les coûts des biens et des services", "french"),
        ("los costes de los bienes y servicios", "spanish"),
        ("revenue 2023", None),
    ],
)
def test_languages_are_known_by_their_function_words(text, language):
    assert detect_language(text.split()) == language


def test_a_question_loses_its_function_words_unless_nothing_is_left():
    assert query_terms("What is the revenue of Apple?", languages=["english"]) == ["revenu", "appl"]
    assert query_terms("What is it?", languages=["english"]) == ["what", "is", "it"]


def test_a_question_takes_the_stems_of_every_language_among_the_passages():
    assert query_terms("Häuser", languages=["english", "german"]) == ["hauser", "haus"]


@given(st.text())
def test_any_text_gives_bounded_terms_without_spaces_that_a_question_finds_again(text):
    terms, language = passage_terms(text)
    assert all(term and len(term) <= MAX_TERM_CHARACTERS * 4 and not any(c.isspace() for c in term) for term in terms)
    assert set(query_terms(text, languages=[language])) <= set(terms)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("We are certified to ISO 9001.", "ISO9001"),
        ("Certified to ISO9001.", "ISO 9001"),
        ("Stand: 06.2024, ohne Gewähr.", "2024"),
        ("Revenue was 1'500'000 francs.", "1500000"),
        ("Revenue was 1500000 francs.", "1'500'000"),
        ("The bag weighs 2,5 kg.", "2.5kg"),
        ("The bag weighs 2.5kg.", "2,5 kg"),
    ],
)
def test_codes_dates_and_measures_are_found_in_other_spellings(text: str, asked: str):
    units = {"kg", "iso"}
    found = set(passage_terms(text, language="english")[0]) & set(query_terms(asked, languages=["english"]))
    assert found - units
