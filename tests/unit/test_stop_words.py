"""The subsets of the stop words are subsets, and leave out what they say they leave out."""

from ragsvc.core.retrieval.conversation_query import content_words
from ragsvc.core.text.stop_words import CONDENSED_WORDS, FUNCTION_WORDS, QUESTION_STOP_WORDS


def test_subsets():
    assert FUNCTION_WORDS["english"] > CONDENSED_WORDS
    for language in ("english", "german", "russian"):
        assert FUNCTION_WORDS[language] - {"may"} < QUESTION_STOP_WORDS


def test_condensing_keeps_words_that_change_the_meaning():
    assert not CONDENSED_WORDS & {"not", "no", "who", "when", "if", "but", "he", "you"}


def test_bm25_keeps_words_that_can_be_a_topic():
    assert not FUNCTION_WORDS["english"] & {"list", "more", "show", "between", "no", "all"}


def test_the_month_of_may_carries_a_topic():
    assert content_words("What was sold in May 2023?") == ["sold", "may", "2023"]
