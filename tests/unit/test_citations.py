import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.answers.citations import CitedAnswer, best_support
from ragsvc.core.retrieval.search import SearchHit
from tests.support.small_corpus import PAGES, passage

REPORT = (
    "Risk factors. Our revenue depends on a few customers. In fiscal 2021 net sales were $365.8 billion, an increase "
    "of 33 percent. Services grew to $68.4 billion. Operating expenses, as shown in [2], were $43.9 billion, which is "
    "12 percent of net sales. We had 154,000 employees at the end of the year."
)
LETTERS = "ab12 .,!?[]\n\t«é中。"
HITS = [SearchHit(passage(1, REPORT), 0.91), SearchHit(passage(2, PAGES[2]), 0.5)]


def cite(answer, hits=HITS):
    cited = CitedAnswer(hits)
    for at in range(0, len(answer), 5):
        cited.feed(answer[at : at + 5])
    return cited.citations(), cited.unresolved


@pytest.mark.parametrize(
    ("answer", "quoted"),
    [
        ("Net sales reached $365.8 billion [1].", "$365.8 billion"),
        ("The company was large. It employed 154,000 people. [1] More follows.", "154,000 employees"),
        ("Services brought in $68.4 billion[1], a record.", "Services grew"),
        ("Opex was 43.9 billion dollars, that is 12 percent of sales [1]", "$43.9 billion"),
    ],
)
def test_the_quote_is_the_sentence_that_supports_the_claim(answer, quoted):
    (citation,), unresolved = cite(answer)
    assert quoted in citation.quote
    assert citation.quote in REPORT
    assert len(citation.quote) < len(REPORT) / 2
    assert answer[citation.start_index : citation.end_index] == "[1]"
    assert unresolved == 0


def test_one_marker_may_name_several_passages():
    citations, unresolved = cite("Sales grew, growth will slow [1, 2, 7].")
    assert [(one.index, one.page) for one in citations] == [(1, 1), (2, 2)]
    assert len({(one.start_index, one.end_index) for one in citations}) == 1
    assert unresolved == 1


def test_a_documents_own_reference_is_no_citation():
    citations, unresolved = cite("Operating expenses, as shown in [2], were $43.9 billion. [1]")
    assert [one.index for one in citations] == [1]
    assert unresolved == 0


def test_a_claim_without_shared_words_is_still_quoted_from_its_passage():
    (citation,), _ = cite("Umsatzplus laut Bericht [1].")
    assert citation.quote in REPORT


def test_the_json_has_the_documented_fields():
    (citation,), _ = cite("Net sales reached $365.8 billion [1].")
    assert list(msgspec.to_builtins(citation)) == [
        "type", "index", "file_id", "filename", "page", "page_label", "start_index", "end_index", "quote", "score",
        "chunk_id",
    ]  # fmt: skip


@given(st.text(LETTERS, max_size=60), st.text(LETTERS, max_size=200))
def test_quotes_stand_in_the_passage_whatever_the_texts(claim, text):
    start, end = best_support(claim, passage(1, text))
    assert 0 <= start <= end <= len(text)
    assert start < end or not text.strip()
