"""Three pages of a report, with a search and an extractive answer that need no model."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from ragsvc.core.documents import StoredPassage
from ragsvc.core.errors import CollectionNotFound
from ragsvc.core.ids import DocumentId, PassageId, TenantId
from ragsvc.core.retrieval.answerability import ABSTAIN_BELOW
from ragsvc.core.retrieval.search_values import SearchHit, SearchResult
from ragsvc.core.text.sentences import quotable_spans

PAGES = {
    1: "Annual report 2021. Revenue rose by 12 percent to 3.4 billion dollars in 2021. Costs were flat.",
    2: "Outlook. The board expects revenue growth to slow in 2022 because of higher prices.",
    3: "Employees. At the end of 2021 the company employed 5,120 people in nine countries.",
}


def passage(number: int, text: str) -> StoredPassage:
    return StoredPassage(
        id=PassageId(number),
        document_id=DocumentId(7),
        document_public_id="doc_report",
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


def words(text: str) -> Counter[str]:
    return Counter(word for word in re.findall(r"\w+", text.lower()) if len(word) > 3)


def overlap(query: str, text: str) -> float:
    asked, present = words(query), words(text)
    return sum((asked & present).values()) / max(1, sum(asked.values()))


class SmallSearch:
    """Port ``Searcher`` over ``PAGES``. The score is the share of the query's words that a page contains."""

    def __init__(self) -> None:
        self.queries: list[tuple[TenantId, object]] = []

    async def check(self, tenant, query):
        if query.collection != "default":
            raise CollectionNotFound(f"There is no collection '{query.collection}'.", param="rag.collection")

    async def search(self, tenant, query):
        self.queries.append((tenant, query))
        await self.check(tenant, query)
        scored = [SearchHit(passage(number, text), overlap(query.text, text)) for number, text in PAGES.items()]
        hits = sorted((hit for hit in scored if hit.score > 0), key=lambda hit: -hit.score)[: query.top_k]
        return SearchResult(hits, answerable=hits[0].score if hits else 0.0)


class Sentence(NamedTuple):
    text: str
    passage_index: int
    start: int
    end: int


class Found(NamedTuple):
    sentences: list[Sentence]
    abstained: bool
    doubtful: bool = False
    unsure: bool = False


def extract(question, hits, *, answerable):
    """The two sentences that share most words with the question; none if the search judged it unanswerable."""
    if answerable < ABSTAIN_BELOW:
        return Found([], abstained=True)
    sentences = [
        Sentence(hit.passage.text[start:end], index, start, end)
        for index, hit in enumerate(hits)
        for start, end in quotable_spans(hit.passage.text)
    ]
    best = sorted(sentences, key=lambda sentence: -overlap(question, sentence.text))[:2]
    good = [sentence for sentence in best if overlap(question, sentence.text) >= 0.3]
    return Found(good, not good)


def count_tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))
