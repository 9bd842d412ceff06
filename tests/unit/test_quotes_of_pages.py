"""Quotes are found on pages in any spacing, however long page and quote are."""

import time

import pytest
from msgspec.structs import replace

from ragsvc.core.documents import Page
from ragsvc.core.errors import InvalidRequest
from ragsvc.services.page_views import find_quote
from tests.support.small_corpus import passage


def page_of(text: str) -> Page:
    return Page(number=1, text=text, label=None)


@pytest.mark.parametrize("quote", ["handled  4,711\ncontainers", " handled 4,711 containers ", "dled 4,711 con"])
def test_a_quote_is_found_in_any_spacing(quote: str):
    text = "  The harbour\n\thandled 4,711\u00a0\u00a0containers.\n"
    start, end = find_quote(page_of(text), quote)
    assert text[start:end].split() == quote.split()


def test_the_occurrence_in_the_passage_comes_first():
    text = "The harbour handled ships.  The harbour\nhandled trains."
    second = replace(passage(1, text[28:]), start=28, end=len(text))
    assert find_quote(page_of(text), "harbour handled", within=second) == (32, 47)
    assert find_quote(page_of(text), "handled ships", within=second) == (12, 25)


@pytest.mark.parametrize("quote", [" ", "\n", "harbour. The", "the harbour"])
def test_what_the_page_does_not_have_is_refused(quote: str):
    with pytest.raises(InvalidRequest):
        find_quote(page_of("The harbour handled"), quote)


def test_an_absent_quote_is_refused_at_once_on_a_page_that_repeats_its_words():
    began = time.thread_time()
    with pytest.raises(InvalidRequest):
        find_quote(page_of("a " * 500_000), "a " * 9_999 + "b")
    assert time.thread_time() - began < 2
