"""Resolves the gold of questions: documents by name, id or hash, their pages, and the positions of excerpts.

All questions are resolved before any is asked: a wrong name would otherwise count as a failed search.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ragsvc.core.defaults import MAX_TOP_K, SOURCE_PATH_KEY
from ragsvc.evaluation.errors import UnknownGold
from ragsvc.evaluation.measures.excerpts import SearchableText
from ragsvc.evaluation.measures.judging import Gold, Item, Occurrence
from ragsvc.evaluation.questions import NumberedQuestion
from ragsvc.evaluation.service import EvaluatedService, Json

_SHOWN_PROBLEMS = 8
_SHOWN_LINES = 6
_EXCERPT_SEARCH = {"mode": "lexical", "top_k": MAX_TOP_K}
_MAX_QUERY_CHARACTERS = 2000
_PASSAGES_PER_PAGE = 100


class QuestionWithGold(msgspec.Struct, frozen=True):
    """A question with its document and gold. Without ``gold`` it does not count in the measures of search."""

    numbered: NumberedQuestion
    document_id: str | None = None
    filename: str | None = None
    gold: Gold | None = None


class _Unresolved(Exception):
    """The collection does not hold something that a question names."""


async def find_gold(
    client: EvaluatedService,
    questions: Sequence[NumberedQuestion],
    *,
    collection: str,
    within_document: bool,
    skip_unknown: bool,
) -> tuple[list[QuestionWithGold], list[str]]:
    """Questions with gold, in order, and a line for each problem (with ``skip_unknown``; otherwise they are an error).

    With ``within_document`` a document without pages or excerpts is no gold: every passage found is from it.

    Raises:
        UnknownGold: the collection lacks documents, pages or excerpts; the message names them and the lines.
    """
    resolver = _GoldResolver(client, collection, whole_documents=not within_document)
    cases: list[QuestionWithGold] = []
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for numbered in questions:
        try:
            cases.append(await resolver.resolve(numbered))
        except _Unresolved as error:
            lines[str(error)].append(numbered.line)
    problems = [f"{problem} ({_lines(numbers)})" for problem, numbers in lines.items()]
    if problems and (not skip_unknown or not cases):
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        count = sum(map(len, lines.values()))
        raise UnknownGold(
            f"{count} of {len(questions)} questions refer to something that collection '{collection}' does not "
            f"contain: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}"
            + (" (--skip-unknown leaves these questions out)" if cases else "")
        )
    return cases, problems


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN_LINES])) + (", …" if len(numbers) > _SHOWN_LINES else "")
    return f"{len(numbers)} questions, lines {shown}" if len(numbers) > 1 else f"line {shown}"


class _GoldResolver:
    def __init__(self, client: EvaluatedService, collection: str, *, whole_documents: bool) -> None:
        self._client = client
        self._collection = collection
        self._whole_documents = whole_documents
        self._by_name: dict[str, dict[str, Json]] | None = None
        self._passages: dict[str, list[Json]] = {}

    async def resolve(self, numbered: NumberedQuestion) -> QuestionWithGold:
        """Raises ``_Unresolved``."""
        question = numbered.question
        document = None if question.document is None else await self._document(question.document)
        if document is None:
            excerpts = [await self._find_anywhere(excerpt) for excerpt in question.excerpts]
            return QuestionWithGold(numbered, gold=_excerpt_gold(excerpts) if excerpts else None)
        document_id, name = str(document["id"]), str(document["filename"])
        beyond = [page for page in question.pages if page > document["pages"]]
        if beyond:
            raise _Unresolved(f"'{name}' has {document['pages']} pages, there is no page {beyond[0]}")
        gold: Gold | None = None
        if question.excerpts:
            gold = _excerpt_gold(
                [await self._find_within(document, excerpt, question.pages) for excerpt in question.excerpts]
            )
        elif question.pages:
            gold = Gold(frozenset((document_id, page) for page in question.pages))
        elif question.answerable and self._whole_documents:
            gold = Gold(frozenset([(document_id, None)]))
        return QuestionWithGold(numbered, document_id, name, gold)

    async def _document(self, name: str) -> Json:
        if self._by_name is None:
            self._by_name = await self._documents_by_name()
        found = self._by_name.get(_normalise_name(name), {})
        if not found:
            raise _Unresolved(f"no document '{name}'")
        if len(found) > 1:
            ids = ", ".join(sorted(found)[:3])
            raise _Unresolved(f"{len(found)} documents are called '{name}': use a document id instead ({ids}…)")
        document = next(iter(found.values()))
        if document["status"] != "ready":
            raise _Unresolved(f"document '{name}' is {document['status']}, not ready")
        return document

    async def _documents_by_name(self) -> dict[str, dict[str, Json]]:
        """Documents by id, under each id, hash, file name and ingested path."""
        by_name: defaultdict[str, dict[str, Json]] = defaultdict(dict)
        async for document in self._client.pages("/v1/rag/documents", {"collection": self._collection}):
            path: Any = (document.get("metadata") or {}).get(SOURCE_PATH_KEY)
            names = (document["id"], document["sha256"], document["filename"], path)
            for name in names:
                if isinstance(name, str):
                    by_name[_normalise_name(name)][document["id"]] = document
        return by_name

    async def _find_within(self, document: Json, excerpt: str, pages: Sequence[int]) -> tuple[Occurrence, ...]:
        document_id = document["id"]
        if document_id not in self._passages:
            self._passages[document_id] = await self._all_passages(document_id)
        passages = [passage for passage in self._passages[document_id] if not pages or passage["page"] in pages]
        occurrences = SearchableText(document_id, page_texts(passages, "text")).find(excerpt)
        if not occurrences:
            where = f"page {' and '.join(map(str, pages))} of " if pages else ""
            raise _Unresolved(f"an excerpt does not occur in {where}'{document['filename']}'")
        return occurrences

    async def _all_passages(self, document_id: str) -> list[Json]:
        passages: list[Json] = []
        params: dict[str, Any] = {"limit": _PASSAGES_PER_PAGE}
        while True:
            page = await self._client.get(f"/v1/rag/documents/{document_id}/passages", params)
            passages += page["data"]
            if not page["has_more"]:
                return passages
            params["after"] = page["last_id"]

    async def _find_anywhere(self, excerpt: str) -> tuple[Occurrence, ...]:
        """Find an excerpt of an unnamed document among the passages that share its words."""
        query = {"query": excerpt[:_MAX_QUERY_CHARACTERS], "collection": self._collection, **_EXCERPT_SEARCH}
        hits = (await self._client.post("/v1/rag/search", query))["data"]
        by_document: defaultdict[str, list[Json]] = defaultdict(list)
        for hit in hits:
            by_document[hit["document_id"]].append(hit)
        occurrences = [
            occurrence
            for document_id, passages in by_document.items()
            for occurrence in SearchableText(document_id, page_texts(passages, "quote")).find(excerpt)
        ]
        if not occurrences:
            raise _Unresolved("an excerpt occurs in no document")
        return tuple(occurrences)


def page_texts(passages: Iterable[Mapping[str, Any]], field: str) -> dict[int, str]:
    """Each page's text as far as passages cover it, with spaces in the gaps between them."""
    pages: defaultdict[int, list[str]] = defaultdict(list)
    for passage in passages:
        characters = pages[passage["page"]]
        characters.extend(" " * (passage["end"] - len(characters)))
        characters[passage["start"] : passage["end"]] = passage[field]
    return {number: "".join(characters) for number, characters in pages.items()}


def _excerpt_gold(excerpts: Sequence[tuple[Occurrence, ...]]) -> Gold:
    items: frozenset[Item] = frozenset(
        (span.document, span.page) for excerpt in excerpts for occurrence in excerpt for span in occurrence
    )
    return Gold(items, tuple(excerpts))


def _normalise_name(name: str) -> str:
    """NFC: file systems store composed or decomposed letters, and people copy either form."""
    return unicodedata.normalize("NFC", name)
