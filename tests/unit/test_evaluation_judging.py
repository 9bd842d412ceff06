"""Passages are judged by documents, pages or excerpts, as worked out by hand, and excerpts are found as copied."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.evaluation.measures.excerpts import SearchableText, normalise_characters
from ragsvc.evaluation.measures.judging import Gold, Span, judge

PAGE_2 = Gold(frozenset([("a", 2)]))
PAGES_2_AND_3 = Gold(frozenset([("a", 2), ("a", 3)]))


def passage(page: int, start: int = 0, end: int = 100, document: str = "a") -> Span:
    return Span(document, page, start, end)


def test_pages_by_hand() -> None:
    found = [passage(1), passage(2, document="b"), passage(2), passage(2, 100, 200), passage(3)]
    judged = judge(found, PAGES_2_AND_3)
    assert (judged["hit@1"], judged["hit@3"], judged["mrr"]) == (0, 1, pytest.approx(1 / 3))
    assert (judged["recall@5"], judged["recall@10"]) == (1, 1)
    ideal = 1 / math.log2(2) + 1 / math.log2(3)
    assert judged["ndcg@10"] == pytest.approx((1 / math.log2(4) + 1 / math.log2(6)) / ideal)  # the repeat gains nothing


def test_a_document_alone_is_found_by_any_of_its_passages() -> None:
    judged = judge([passage(9), passage(1, document="b")], Gold(frozenset([("b", None)])))
    assert (judged["hit@1"], judged["hit@3"], judged["recall@5"]) == (0, 1, 1)


def test_nothing_found_is_nothing_right() -> None:
    assert set(judge([], PAGE_2).values()) == {0.0}


def test_with_excerpts_only_passages_that_hold_one_are_right() -> None:
    excerpt = Span("a", 2, 100, 140)
    gold = Gold(frozenset([("a", 2)]), (((excerpt,),),))
    judged = judge([passage(2, 0, 100), passage(2, 0, 110), passage(2, 110, 210)], gold)
    assert (judged["mrr"], judged["hit@1"]) == (pytest.approx(1 / 3), 0)  # next to it, a quarter of it, three quarters
    assert judged["excerpt_recall@5"] == 1
    assert judged["excerpt_precision@5"] == pytest.approx(40 / 210)


def test_an_excerpt_that_stands_twice_need_only_be_found_once() -> None:
    twice = ((Span("a", 2, 0, 50),), (Span("a", 7, 0, 50),))
    judged = judge([passage(7, 0, 50)], Gold(frozenset([("a", 2), ("a", 7)]), (twice,)))
    assert (judged["excerpt_recall@5"], judged["excerpt_precision@5"], judged["recall@5"]) == (1, 1, 0.5)


places = st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 50), st.integers(1, 50)).map(
    lambda one: Span(one[0], one[1], one[2], one[2] + one[3])
)


@given(st.lists(places, max_size=15), st.lists(places, min_size=1, max_size=4), st.booleans())
@settings(deadline=None)  # the first call imports scikit-learn
def test_every_measure_is_between_0_and_1_and_grows_with_depth(
    found: list[Span], right: list[Span], by_excerpts: bool
) -> None:
    items = frozenset((one.document, one.page) for one in right)
    judged = judge(found, Gold(items, tuple(((one,),) for one in right) if by_excerpts else ()))
    assert all(0 <= value <= 1 for value in judged.values())
    assert judged["hit@1"] <= judged["hit@3"] <= judged["hit@5"] <= judged["hit@10"]
    assert judged["recall@5"] <= judged["recall@10"]
    assert by_excerpts == ("excerpt_recall@5" in judged)


@given(st.lists(places, min_size=1, max_size=4))
@settings(deadline=None)  # the first call imports scikit-learn
def test_gold_itself_in_any_order_is_perfect(right: list[Span]) -> None:
    items = list(dict.fromkeys((one.document, one.page) for one in right))
    judged = judge([Span(document, page, 0, 1) for document, page in items], Gold(frozenset(items)))
    assert judged["ndcg@10"] == pytest.approx(1)
    assert judged["recall@5"] == judged["hit@1"] == 1


def test_excerpts_are_found_as_people_copy_them() -> None:
    text = SearchableText("a", {1: "A ﬁrst co-\noperative “plan”.", 2: "Nothing.", 3: "The co-operative plan"})
    assert text.find("first CO-OPERATIVE 'plan'") == ((Span("a", 1, 2, 26),),)
    assert [one[0].page for one in text.find("cooperative plan")] == [1, 3]
    assert text.find("plan. Nothing. The") == ((Span("a", 1, 22, 26), Span("a", 2, 0, 7), Span("a", 3, 0, 3)),)
    assert text.find("…") == text.find("a plan") == ()


@given(st.dictionaries(st.integers(1, 5), st.text(max_size=40), min_size=1), st.data())
def test_any_part_of_a_page_is_found_where_it_stands(pages: dict[int, str], data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(sorted(pages)))
    start = data.draw(st.integers(0, len(pages[number])))
    part = pages[number][start : data.draw(st.integers(start, len(pages[number])))]
    found = SearchableText("a", pages).find(part)
    wanted = normalise_characters(part)[0]
    assert bool(found) == bool(wanted)
    for occurrence in found:  # all stand there by their letters (a ligature may bring one letter more)
        assert wanted in "".join(
            normalise_characters(pages[span.page][span.start : span.end])[0] for span in occurrence
        )
