"""Counting of rare words for the judgement of answerability."""

from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.retrieval.answerability import BETWEEN_TEXTS, fewest_texts_with

# "\u0130" and the Kelvin sign become ASCII letters in lower case, which the quick way does not see
LETTERS = st.characters(codec="utf-8", exclude_characters="\0\u0130\u212a")
TEXTS = st.lists(st.text(LETTERS | st.sampled_from("abAB яЯ"), max_size=30), min_size=1, max_size=12)
WORDS = st.lists(st.text(st.sampled_from("abcя"), min_size=1, max_size=3), min_size=1, max_size=5)


@given(TEXTS, WORDS)
def test_the_rarest_word_is_counted_as_text_by_text(texts, words):
    expected = min(sum(word in text.lower() for text in texts) for word in words)
    assert fewest_texts_with(words, BETWEEN_TEXTS.join(texts).encode(), count=len(texts)) == expected
