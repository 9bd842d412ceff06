"""Texts that make a careless pattern take minutes are read in time; a pattern that searches blocks all threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ragsvc.core.answers.value_types import kind_fits
from ragsvc.core.retrieval.conversation_query import Turn, make_query
from ragsvc.core.retrieval.question_names import question_names, quotations
from ragsvc.core.text.sentences import sentence_spans


def follow_up(text: str) -> object:
    """The query of an answer to the question of an assistant, both of which are long."""
    turns = [Turn("user", "What does the boat cost?"), Turn("assistant", f"Thirty. {text}"), Turn("user", "Yes please")]
    return make_query(turns), make_query(
        [*turns[:1], Turn("assistant", "Do you want the price of B1?"), Turn("user", f"And {text}")]
    )


READERS = (sentence_spans, question_names, quotations, follow_up)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "repeated", [".", "?!", "。", "。中", "a", "中", "(1) ", "$1 ", "a-1 ", "Ab ", " ", "\n", "1,", ", ", "? "]
)
def test_a_hundred_thousand_characters_take_seconds_at_most(read: Callable[[str], object], repeated: str) -> None:
    text = repeated * (100_000 // len(repeated)) + "x"
    begin = time.process_time()
    read(text)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("repeated", ["a", "a-", "_", "1", "a1 ", "Ab "])
def test_long_words_in_a_question_for_a_number(repeated: str) -> None:
    question = "How many boats " + repeated * (1200 // len(repeated))
    begin = time.process_time()
    kind_fits(question, "There are 12 boats in the harbour.", ["boats"], is_row=False, has_unit=False)
    assert time.process_time() - begin < 1


def test_what_a_sentence_starts_with_is_found_behind_any_white_space() -> None:
    gap = " \n" * 200
    assert question_names(f"It rained.{gap}Boston was wet") == []
    assert question_names(f"It rained in{gap}Boston again") == [" boston "]
