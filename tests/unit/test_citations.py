import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.answers.citations import CitedAnswer, best_support
from ragsvc.core.answers.extractive import answer as extract_answer
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.services.citation_insertion import CitationSource
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


OWN = (
    "The hybrid system reached a word error rate of 4.9 percent. [1] The baseline was trained for three days, as "
    "described in [1], on one machine.[2] Further gains came from a larger model. [3]"
)
OWN_HITS = [SearchHit(passage(1, OWN), 0.9), SearchHit(passage(2, PAGES[2]), 0.5)]


def numbers(answer, hits=OWN_HITS, **options):
    cited = CitedAnswer(hits, **options)
    for character in answer:
        cited.feed(character)
    return [(one.index, one.quote) for one in cited.citations()], cited.unresolved


FIRST = "The hybrid system reached a word error rate of 4.9 percent."
SECOND = "The baseline was trained for three days, as described in [1], on one machine."


@pytest.mark.parametrize(
    ("answer", "quotes"),
    [
        (f"{FIRST} [1]", [FIRST]),
        (f"{FIRST} [1] {SECOND} [1]", [FIRST, SECOND]),
        (f"{SECOND} [1] {FIRST} [1]", [SECOND, FIRST]),
    ],
)
def test_sentences_quoted_with_their_own_references_are_cited_once_each(answer, quotes):
    found, unresolved = numbers(answer, extractive=True)
    assert found == [(1, quote) for quote in quotes]
    assert unresolved == 0


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("See [2] for the rest.", 1),
        ("x = prices[1]", 1),
        ("Costs fell, see [1].", 1),
        ("A [2] B [1] C", 1),
        ("In `a [1]` and $x [2]$ it holds.", 1),
    ],
)
def test_brackets_in_short_extracted_sentences_are_text(text, cited):
    hits = [SearchHit(passage(1, text), 0.9), *HITS]
    assert len(numbers(f"{text} [1]", hits, extractive=True)[0]) == cited


@pytest.mark.parametrize(
    ("answer", "quotes"),
    [
        (OWN, []),
        (OWN[OWN.index("The baseline") :], []),
        (f"{SECOND}[2] Further gains came from a larger model [1].", ["Further gains came from a larger model."]),
        (f"The rate was low. {FIRST} [1]", [FIRST]),
    ],
)
def test_references_that_a_model_copies_are_text(answer, quotes):
    found, unresolved = numbers(answer)
    assert found == [(1, quote) for quote in quotes]
    assert unresolved == 0


@pytest.mark.parametrize(
    "answer",
    [
        "y = arr[1] is enough", "prices[1] holds the city zone.", "Take arr[0][1].", "f(x)[1] is called", "a_b[1].",
        "See matrix[i][1].", "$total[1].", "{1}[1]", "x^[1]", "Values are in [1, 9].", "The price is prices[1].",
    ],
)  # fmt: skip
def test_subscripts_are_no_citations(answer):
    assert numbers(answer, HITS) == ([], 0)


@pytest.mark.parametrize(
    "answer",
    [
        "It had 154,000 employees[1].", "The year was 2021[1] and it was good.", "Wachstum von 33 %[1] in 2021.",
        "销售额增长[1]。", "It grew **strongly**[1].", "It grew _much_[1].", "Sales (net)[1]",
        "In the U.S.[1] it grew.",
        "It was “good”[1].", "| Sales | $365.8 billion[1] |", "Это рост выручки[1] в 2021.", "It grew.[1] Then",
        "Сила тока 5A[1] велика", "Depth 12 km²[1] here",
    ],
)  # fmt: skip
def test_markers_directly_after_a_statement_are_citations(answer):
    found, unresolved = numbers(answer, HITS)
    assert [number for number, _ in found] == [1]
    assert unresolved == 0


def test_every_number_of_a_range_is_cited():
    found, unresolved = numbers("Sales grew, growth will slow [1-3], as【2】says.", HITS)
    assert [number for number, _ in found] == [1, 2, 2]
    assert unresolved == 1


def test_quotes_end_before_reference_marks():
    text = "The depth of Lake Baikal is 1,642 metres.[1] Its area is 31,722 km.[2][3] It freezes from January on.²"
    for claim, quote in [("depth 1,642 metres", "The depth of Lake Baikal is 1,642 metres."),
                         ("freezing from January on", "It freezes from January on.")]:  # fmt: skip
        start, end = best_support(claim, passage(1, text))
        assert text[start:end] == quote


def test_a_claim_without_shared_words_is_still_quoted_from_its_passage():
    (citation,), _ = cite("Umsatzplus laut Bericht [1].")
    assert citation.quote in REPORT


def test_the_json_has_the_documented_fields():
    (citation,), _ = cite("Net sales reached $365.8 billion [1].")
    fields = [
        "index", "file_id", "filename", "page", "page_label", "start_index", "end_index", "quote", "score", "chunk_id",
    ]  # fmt: skip
    assert list(msgspec.to_builtins(citation)) == fields
    cited = CitedAnswer(HITS)
    cited.feed("Net sales reached $365.8 billion [1].")
    (annotation,) = CitationSource(tuple(HITS), service_url="https://host/prefix").annotations(cited)
    assert list(msgspec.to_builtins(annotation)) == ["type", "url_citation", *fields]
    assert annotation.type == "url_citation"
    assert annotation.url_citation.url.startswith("https://host/prefix/v1/rag/documents/")


@given(st.text(LETTERS, max_size=60), st.text(LETTERS, max_size=200))
def test_quotes_stand_in_the_passage_whatever_the_texts(claim, text):
    start, end = best_support(claim, passage(1, text))
    assert 0 <= start <= end <= len(text)
    assert start < end or not text.strip()


WIKI = (
    "Lake Baikal.\n\nThe maximum depth of Lake Baikal is 1,642 metres.[1] Its area is 31,722 square\nkilometres.[2][3] "
    "The lake freezes over from January to May in most years.[note 4]"
)


@pytest.mark.parametrize(
    ("text", "question", "quote"),
    [
        (WIKI, "What is the maximum depth of Lake Baikal?", "The maximum depth of Lake Baikal is 1,642 metres."),
        (WIKI, "What is its area in square kilometres?", "Its area is 31,722 square\nkilometres."),
        (WIKI, "When does the lake freeze over?", "The lake freezes over from January to May in most years."),
        (OWN, "What word error rate did the hybrid system reach?", FIRST),
        (OWN, "How long was the baseline trained?", SECOND),
    ],
)
def test_the_built_in_answer_cites_a_text_with_reference_marks(text, question, quote):
    hits = [SearchHit(passage(1, text), 0.9)]
    pieces = [
        f"{' '.join(sentence.text.split())} [{sentence.passage_index + 1}]"
        for sentence in extract_answer(question, hits, answerable=1.0).sentences
    ]
    cited = CitedAnswer(hits, extractive=True)
    cited.feed(" ".join(pieces))
    quotes = [citation.quote for citation in cited.citations()]
    assert quotes[0] == quote
    assert len(quotes) == len(pieces)


def test_of_an_answer_full_of_markers_a_bounded_number_is_resolved():
    citations, _ = cite("Net sales reached $365.8 billion [1]. " * 1000)
    assert len(citations) == 200


@pytest.mark.parametrize(
    "marker",
    ["[doc 1]", "[Document 1]", "[fuente 1]", "[来源1]", "[1†source]", "[1, p. 2]", "[1, S. 12]", "[1: pages 3-4]"],
)
def test_markers_with_labels_and_places_are_citations(marker):
    (citation,), unresolved = cite(f"Services grew to $68.4 billion {marker}.")
    assert (citation.index, unresolved) == (1, 0)


@pytest.mark.parametrize(
    "answer",
    [
        "概率在区间[1, 2]内",
        "Clamp it to [1, 1].",
        "[1, 1, 1] is a list in Python.",
        "The identity is [1, 1] here.",
        "range: [1, 2]",
    ],
)
def test_repeated_numbers_and_named_ranges_are_no_citations(answer):
    assert cite(answer) == ([], 0)
