"""Passages cover the text, keep their offsets, and stay within the token budget, for any text."""

# ruff: noqa: RUF001 - texts in several scripts

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.documents import Extraction, Heading, Page
from ragsvc.core.ports.parsing import ChunkingOptions
from ragsvc.core.text.chunking import document_name, embedding_text, lexical_context, split_pages
from ragsvc.core.text.sentences import sentence_spans


class Words:
    """Counts words of at most four letters, and each other character, as tokens."""

    pattern = re.compile(r"[^\W_]{1,4}|[^\w\s]|_")

    def __init__(self) -> None:
        self.calls = 0

    def count(self, texts: Sequence[str]) -> list[int]:
        self.calls += 1
        return [len(self.pattern.findall(text)) for text in texts]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self.pattern.finditer(text)]


PIECES = st.sampled_from(
    ["Revenue rose 3.5 % in 2022. ", "Dr. Roe said so! ", "a b c ", "\n", "\n\n", "• item ", "Total $ 1,204 $ 1,100\n",
     "第一句。第二句！", "Выручка выросла. Почему? ", "x" * 90, "word " * 30, "\u00a0", "\t", ". ", "(", "”", "é", "日"]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=200))
PAGES = st.lists(TEXTS, min_size=1, max_size=4).map(lambda texts: [Page(i + 1, t) for i, t in enumerate(texts)])
OPTIONS = st.builds(
    ChunkingOptions, max_tokens=st.integers(8, 60), overlap_tokens=st.integers(0, 10), min_tokens=st.integers(0, 8)
)


@settings(max_examples=150, deadline=None)
@given(pages=PAGES, options=OPTIONS)
def test_passages_cover_the_text_within_their_budget(pages: list[Page], options: ChunkingOptions):
    passages = split_pages(Extraction(pages=pages), options=options, tokens=Words())
    covered = {page.number: set[int]() for page in pages}
    for ordinal, passage in enumerate(passages):
        text = pages[passage.page - 1].text
        assert passage.ordinal == ordinal
        assert passage.text == text[passage.start : passage.end]
        assert passage.text.strip() == passage.text != ""
        covered[passage.page].update(range(passage.start, passage.end))
        assert Words().count([passage.text])[0] <= options.max_tokens
    for page in pages:
        missing = [c for i, c in enumerate(page.text) if not c.isspace() and i not in covered[page.number]]
        assert missing == []


@settings(max_examples=100, deadline=None)
@given(pages=PAGES, options=OPTIONS)
def test_without_overlap_passages_are_disjoint_and_in_order(pages: list[Page], options: ChunkingOptions):
    plain = ChunkingOptions(max_tokens=options.max_tokens, min_tokens=options.min_tokens)
    passages = split_pages(Extraction(pages=pages), options=plain, tokens=Words())
    for one, two in itertools.pairwise(passages):
        assert (one.page, one.end) <= (two.page, two.start) or one.page < two.page


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_sentences_cover_the_text(text: str):
    spans = sentence_spans(text)
    assert all(a < b for a, b in spans)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))
    inside = "".join(text[a:b] for a, b in spans)
    assert "".join(inside.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Sales of U.S. firms rose 2.5%. They fell later.", ["Sales of U.S. firms rose 2.5%.", "They fell later."]),
        ("Apple Inc. The company grew.", ["Apple Inc.", "The company grew."]),
        ("Apple Inc. Annual Report", ["Apple Inc. Annual Report"]),
        ("Am 3. Oktober 1990 war es so. Danach nicht.", ["Am 3. Oktober 1990 war es so.", "Danach nicht."]),
        ("Er kam z.B. Montag. Sie nicht.", ["Er kam z.B. Montag.", "Sie nicht."]),
        ("Это было в 1990 г. Москва ждала. Потом уехали.", ["Это было в 1990 г. Москва ждала.", "Потом уехали."]),
        ("第一句。第二句！他说：“好。”然后走了。", ["第一句。", "第二句！", "他说：“好。”", "然后走了。"]),
        ("A line that is\nwrapped goes on. Next.", ["A line that is\nwrapped goes on.", "Next."]),
        ("Heading\nA long line of prose follows here now\nand on.",
         ["Heading", "A long line of prose follows here now\nand on."]),
        ("Items:\n• one thing\n• two things", ["Items:", "• one thing", "• two things"]),
        ("Net sales $ 10 $ 20\nCost of sales 5 7", ["Net sales $ 10 $ 20", "Cost of sales 5 7"]),
        ("1. First point. 2. Second.", ["1. First point.", "2. Second."]),
        ("J. K. Roe wrote it. Who else?", ["J. K. Roe wrote it.", "Who else?"]),
        ("It is deep.[1] It is old. [2, 3] So it is.[note 2] Yes.", ["It is deep.[1]", "It is old. [2, 3]",
                                                                     "So it is.[note 2]", "Yes."]),
        ("It was so.² Then not.", ["It was so.²", "Then not."]),
        ("Roe et al. [2] showed it. See Fig. [3] too.", ["Roe et al. [2] showed it.", "See Fig. [3] too."]),
        ("The end.\n[1] Roe, J. A title.", ["The end.", "[1] Roe, J. A title."]),
        ("第一句。[1]第二句。[2]", ["第一句。[1]", "第二句。[2]"]),
    ],
)  # fmt: skip
def test_sentence_borders(text: str, sentences: list[str]):
    assert [text[a:b] for a, b in sentence_spans(text)] == sentences


def test_a_passage_ends_with_a_paragraph_rather_than_inside_one():
    first, second = "One two three four. " * 4, "Five six seven eight. " * 5
    page = Page(1, first.strip() + "\n\n" + second.strip())
    passages = split_pages(Extraction(pages=[page]), options=ChunkingOptions(max_tokens=40), tokens=Words())
    assert passages[0].text == first.strip()


def test_headings_are_the_path_above_and_their_tokens_are_reserved():
    text = "Part one\n" + "Alpha beta gamma. " * 20 + "\nDetails\n" + "Delta rho. " * 20
    headings = [Heading("Part one", 1, 1, 0), Heading("Details", 2, 1, text.index("Details"))]
    extraction = Extraction(pages=[Page(1, text), Page(2, "More of it.")], headings=headings, title="Form 10-Q")
    tokens = Words()
    passages = split_pages(
        extraction, options=ChunkingOptions(max_tokens=50), tokens=tokens, filename="2022 Q3 AAPL.pdf"
    )
    assert passages[0].headings == ("Part one",)
    assert passages[-1].headings == ("Part one", "Details")
    for passage in passages:
        embedded = embedding_text(passage, title="Form 10-Q", filename="2022 Q3 AAPL.pdf")
        assert embedded.startswith("2022 Q3 AAPL - Form 10-Q: Part one")
        assert tokens.count([embedded])[0] <= 50
        assert passage.token_count == tokens.count([embedded])[0] + 2


def test_the_tokenizer_is_asked_once_per_document_and_once_per_heading_path():
    tokens = Words()
    pages = [Page(n, "A sentence. " * 50) for n in range(1, 40)]
    split_pages(Extraction(pages=pages, title="T"), options=ChunkingOptions(), tokens=tokens)
    assert tokens.calls <= 2


def test_names_of_documents():
    assert document_name(None, "DSA-278777.pdf") == "DSA 278777"
    assert document_name("untitled", "report_2021-final.pdf") == "report 2021 final"
    assert document_name("A very long title " * 20, "x.pdf").startswith("x - A very long title")
    assert len(document_name("A very long title " * 20, "x.pdf")) <= 80
    assert lexical_context("Form 10-Q", "2022 Q3 AAPL.pdf", ("Part one",)) == "Form 10-Q\n2022 Q3 AAPL\nPart one"
