"""The judgement of answerability: names, coverage, relevance, and the counting of rare words."""

# ruff: noqa: RUF001 - Cyrillic letters and full-width signs are meant

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.documents import StoredPassage
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW, BETWEEN_TEXTS, answerable, fewest_texts_with
from ragsvc.core.retrieval.question_names import question_names
from tests.support.evidence import evidence_of

# "\u0130" and the Kelvin sign become ASCII letters in lower case, which the quick way does not see
LETTERS = st.characters(codec="utf-8", exclude_characters="\0\u0130\u212a")
TEXTS = st.lists(st.text(LETTERS | st.sampled_from("abAB яЯ"), max_size=30), min_size=1, max_size=12)
WORDS = st.lists(st.text(st.sampled_from("abcя"), min_size=1, max_size=3), min_size=1, max_size=5)


@given(TEXTS, WORDS)
def test_the_rarest_word_is_counted_as_text_by_text(texts, words):
    expected = min(sum(word in text.lower() for text in texts) for word in words)
    assert fewest_texts_with(words, BETWEEN_TEXTS.join(texts).encode(), count=len(texts)) == expected


def _score(question: str, *texts: str, cosine: float = 0.5) -> float:
    passages = [
        StoredPassage(
            id=PassageId(number),
            document_id=DocumentId(1),
            document_public_id="doc_1",
            filename="report.pdf",
            title=None,
            page=number,
            page_label=None,
            start=0,
            end=len(text),
            text=text,
            headings=(),
            ordinal=number,
        )
        for number, text in enumerate(texts, 1)
    ]
    return answerable(question, evidence_of(passages, [cosine] * len(passages)))


FERRY = "The ferry to Norderney carried 2,400 passengers in 2021. A ticket costs 24 euros for adults."
BRIDGE = "The bridge at Emden was repaired in 2023. Repairing it took nine weeks."


def test_a_name_in_no_passage_halves_the_evidence_at_least():
    asked = _score("How many passengers did the ferry to Norderney carry in 2021?", FERRY, BRIDGE)
    assert asked >= ABSTAIN_BELOW
    for wrong in ("Juist in 2021", "Norderney in 2019", "Juist in 2019"):
        assert _score(f"How many passengers did the ferry to {wrong} carry?", FERRY, BRIDGE) < asked / 2


def test_names_together_in_one_passage_are_better_evidence_than_in_two():
    together = _score("How many passengers did the ferry carry to Norderney in 2021?", FERRY, BRIDGE)
    apart = _score("How many passengers did the ferry carry to Emden in 2021?", FERRY, BRIDGE)
    assert apart < together


def test_words_together_on_one_page_are_better_evidence_than_on_two():
    question = "Which ferry ticket costs adults how many euros?"
    apart = ("A ferry ticket is sold at the harbour.", "In winter it costs adults more euros.")
    assert _score(question, *apart) < _score(question, " ".join(apart))


def test_a_mistyped_name_does_not_deny_the_answer_but_a_wrong_number_does():
    assert _score("How many passengers did the ferry to Nordeney carry in 2021?", FERRY) >= ABSTAIN_BELOW
    assert _score("How many passengers did the ferry to Norderney carry in 2022?", FERRY) < ABSTAIN_BELOW


def test_words_about_the_document_are_not_expected_in_the_passage():
    plain = _score("How much does a ferry ticket cost?", FERRY)
    assert _score("Which ferry ticket cost is mentioned in the following section of this report?", FERRY) >= plain * 0.9


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("渡轮票多少钱？", "渡轮票价为二十四欧元。儿童免费乘坐渡轮。"),
        ("Сколько стоит билет на паром?", "Билет на паром стоит 24 евро."),
    ],
)
def test_scripts_without_spaces_and_other_alphabets_are_compared_as_well(question: str, text: str):
    other = "桥梁在去年修好了。" if question[0] == "渡" else "Мост в Эмдене починили за девять недель."
    assert _score(question, text) >= ABSTAIN_BELOW
    assert _score(question, other) < 0.75 * _score(question, text)


def test_a_question_in_another_language_than_the_documents_can_be_answered():
    """A multilingual model gives the passage a high cosine although no word is shared."""
    assert _score("Wie viel kostet eine Überfahrt?", "A ferry crossing is 24 euros.", cosine=0.8) >= ABSTAIN_BELOW
    assert _score("Wie viel kostet eine Überfahrt?", "A ferry crossing is 24 euros.", cosine=0.2) < ABSTAIN_BELOW


def test_a_passage_with_the_phrase_that_a_question_quotes_is_relevant():
    greeting = "English:\nHello World\n\nRussian:\nПривет, мир"
    assert _score("Wie grüßt man die Welt auf Russisch? Привет, мир", greeting, cosine=0.2) >= ABSTAIN_BELOW
    assert _score("Wie grüßt man die Welt auf Russisch? Добрый день", greeting, cosine=0.2) < ABSTAIN_BELOW


def test_a_question_in_capitals_has_no_names():
    assert question_names("WHAT DOES the FERRY COST?") == []
    assert question_names("What does the IAEA cost?") == [" iaea "]


def test_what_is_said_far_from_a_name_is_weaker_evidence_than_what_is_said_near_it():
    filler = "The weather stayed calm for weeks and the harbour was full of visitors from the mainland. " * 4
    near = f"In May the ferry to Norderney carried 2,400 passengers. {filler} A bus goes to Emden."
    far = f"In May the ferry to Juist carried 2,400 passengers. {filler} A bus goes to Norderney."
    question = "How many passengers did the ferry to Norderney carry in May?"
    assert _score(question, far) < 0.97 * _score(question, near)


def test_a_name_that_is_frequent_in_a_passage_is_near_if_any_mention_is():
    question = "How many passengers did the ferry to Norderney carry?"
    often = "Norderney has beaches. " * 12 + "The ferry to Norderney carried 2,400 passengers."
    assert _score(question, often) == _score(question, "The ferry to Norderney carried 2,400 passengers.")


def test_words_that_describe_a_picture_are_not_expected_in_the_text_of_the_page():
    plain = _score("How many passengers did the ferry carry to Norderney?", FERRY, BRIDGE)
    seen = _score(
        "How many passengers did the ferry in the coloured chart at the top carry to Norderney?", FERRY, BRIDGE
    )
    assert seen >= 0.9 * plain
