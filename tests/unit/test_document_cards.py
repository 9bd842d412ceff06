"""Which documents a question names, judged from cards that follow the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.ports.indexes import DocumentCard
from ragsvc.index.document_cards import MAX_CARDS, DocumentCards
from ragsvc.index.registry import IndexRegistry
from ragsvc.testing.memory_index_source import MemorySource

COVER = "FORM 10-Q For the quarterly period ended {period} Commission File Number {company} (Exact name of registrant)"
REPORTS = [
    ("Apple Inc.", "June 25, 2022", "2022 Q3 AAPL"),
    ("Apple Inc.", "July 1, 2023", "2023 Q3 AAPL"),
    ("NVIDIA Corporation", "October 30, 2022", "2022 Q3 NVDA"),
    ("Intel Corporation", "July 1, 2023", "2023 Q2 INTC"),
    ("Microsoft Corporation", "June 30, 2023", "2023 Q2 MSFT"),
    ("Amazon.com, Inc.", "June 30, 2023", "2023 Q2 AMZN"),
    ("The Boeing Company", "December 31, 2022", "BOEING_2022_10K"),
    ("Siemens Aktiengesellschaft", "September 30, 2023", "siemens annual report"),
]


def cards(*, opaque: bool = False, passages: int = 300) -> DocumentCards:
    return DocumentCards(
        DocumentCard(
            number, f"{number * 7919:x}" if opaque else name, COVER.format(company=company, period=period), passages
        )
        for number, (company, period, name) in enumerate(REPORTS, 1)
    )


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    ("question", "document", "rest"),
    [
        (
            "How much did Apple spend on R&D in the period ended June 25, 2022?",
            1,
            "How much did spend on R&D in the period",
        ),
        ("What was the capital expenditure of Intel in the quarter ended July 1, 2023?", 4, "What was the capital"),
        ("Boeing's inventories at December 31, 2022?", 7, "inventories at"),
    ],
)
def test_company_and_period_name_the_report_also_if_its_file_name_says_nothing(
    question: str, document: int, rest: str, opaque: bool
) -> None:
    judged = cards(opaque=opaque).judge(question)
    assert judged.documents[np.argmax(judged.scores)] == document
    assert np.sort(judged.scores)[-2] < 0.95
    assert judged.scores.max() == 1
    assert judged.is_useful
    assert judged.rest.startswith(rest)


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("What was the gross margin of Apple in the latest 10-Q?", 2),
        ("What does the most recent Apple report say about inventories?", 2),
        ("Wie hoch war der Umsatz von Apple im neuesten Bericht?", 2),
        ("What did the latest Boeing 10-K report as inventories?", 7),
        ("What was the gross margin of Apple in the latest quarter of 2022?", 1),
    ],
)
def test_the_latest_report_is_the_last_by_date_unless_a_year_is_named(
    question: str, document: int, opaque: bool
) -> None:
    judged = cards(opaque=opaque).judge(question)
    assert judged.documents[np.argmax(judged.scores)] == document


def test_fiscal_years_and_quarters_match_file_names() -> None:
    judged = cards().judge("What was the dividend of Boeing in FY2022?")
    assert judged.best(1).tolist() == [7]
    assert "FY2022" not in judged.rest
    spelled = cards().judge("What was the revenue of AAPL in the third quarter of 2022?")
    assert spelled.best(1).tolist() == [1]


@pytest.mark.parametrize(
    "question",
    [
        "What was the effective tax rate?",
        "How large were the inventories in 2022?",  # a year alone is on the cover of half of the reports
        "Please list 12 risks. Describe the largest.",
        "Welche Risiken gibt es?",
        "\u58f2\u4e0a\u306f\u3044\u304f\u3089\u3067\u3059\u304b 2022",
        "Who is Marie Curie, and what did Pierre and Irene find in Paris?",
        "",
    ],
)
def test_questions_without_a_name_of_a_document_are_not_judged(question: str) -> None:
    judged = cards(opaque=True).judge(question)
    assert not judged.is_useful
    assert judged.rest == question


def test_names_that_the_documents_lack_reduce_the_confidence() -> None:
    sure = cards().judge("What did Apple pay in 2022?").confidence
    unsure = cards().judge("What did Apple, Tesla, Volvo and Renault pay to Magna in 2022?").confidence
    assert sure > 0.9
    assert unsure < 0.35


def test_a_short_document_is_not_judged_apart_from_its_passages() -> None:
    assert not cards(passages=10).judge("How much did Apple spend in the period ended June 25, 2022?").is_useful


def test_lower_case_questions_find_names_of_files() -> None:
    assert cards().judge("revenue of siemens").best(1).tolist() == [8]


def test_a_comparison_names_both_documents() -> None:
    judged = cards().judge("Compare the revenue of Microsoft and Amazon in the quarter ended June 30, 2023")
    assert set(judged.compared) == {5, 6}
    assert set(judged.best(2).tolist()) == {5, 6}
    assert not cards().judge("What was the revenue of Microsoft?").compared


def test_the_choice_is_restricted_to_documents() -> None:
    judged = cards().judge("What did Apple pay in the period ended June 25, 2022?", np.array([2, 4, 99], np.int64))
    assert judged.best(1).tolist() == [2]
    assert set(judged.documents.tolist()) <= {2, 4}
    assert not cards().judge("What did Apple pay?", np.array([], np.int64)).is_useful


def test_scores_of_documents_that_are_not_listed_are_0() -> None:
    judged = cards().judge("What did Boeing pay?")
    assert judged.of(np.array([7, 1, 1000], np.int64)).tolist() == [1.0, 0.0, 0.0]


def test_very_large_collections_are_not_judged() -> None:
    many = DocumentCards(DocumentCard(number, f"Report {number}", "", 100) for number in range(MAX_CARDS + 1))
    assert not many.judge("What says Report 77?").is_useful


NAMES = st.sampled_from(["Apple", "Intel", "Boeing", "Siemens", "Danone", "Enel"])
CHANGES = st.lists(st.tuples(st.integers(1, 6), st.none() | st.tuples(NAMES, st.integers(2018, 2023))), max_size=120)


@given(CHANGES, NAMES, st.integers(2018, 2023))
def test_after_any_changes_the_judgement_is_that_of_the_present_documents(changes, name, year) -> None:
    following, present = DocumentCards(), {}
    for document, named in changes:
        if named is None:
            present.pop(document, None)
            following.replace([document], [])
        else:
            present[document] = DocumentCard(document, f"{named[0]} {named[1]}", f"Annual report of {named[0]}", 200)
            following.replace([document], [present[document]])
    fresh = DocumentCards(present[document] for document in sorted(present))
    question = f"What did {name} earn in FY{year}?"
    one, other = following.judge(question), fresh.judge(question)
    assert len(following) == len(fresh) == len(present)
    assert one.documents.tolist() == other.documents.tolist()
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
    assert one.confidence == pytest.approx(other.confidence)


def test_the_cards_of_a_collection_follow_the_index_log(tmp_path) -> None:
    source = MemorySource(4)
    vectors = np.eye(4, dtype=np.float32)[[0] * 150]
    for company in ("Apple 2021", "Apple 2022", "Boeing 2022"):
        source.add_document(1, [f"passage {n}" for n in range(150)], vectors, context=company)
    registry = IndexRegistry(tmp_path, source, model=EmbeddingModel("m", 4, 128, "f"), background=False)
    try:
        assert not registry.is_loaded(1)
        assert registry.judge_documents(1, "What did Apple earn in 2022?").best(1).tolist() == [2]
        assert registry.is_loaded(1)
        source.delete_document(1, 2)
        registry.catch_up(1)
        assert registry.judge_documents(1, "What did Apple earn in 2022?").best(1).tolist() == [1]
        source.rename_document(1, 3, context="Airbus 2022")
        added, _ = source.add_document(1, ["one"] * 150, vectors, context="Boeing 2023")
        registry.catch_up(1)
        assert registry.judge_documents(1, "What did Boeing earn?").best(1).tolist() == [added]
        assert registry.judge_documents(1, "What did Airbus earn?").best(1).tolist() == [3]
    finally:
        registry.close()
