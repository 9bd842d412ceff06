"""Finds what questions name: documents by name, id or hash, pages in them, and where excerpts stand.

Nothing is asked before all of it is found: a wrong name would otherwise count as a search that failed.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.ingest.plan import PATH_KEY
from ragsvc.cli.service_client import Json, ServiceClient
from ragsvc.core.defaults import MAX_TOP_K
from ragsvc.evaluation.measures.excerpts import SearchableText
from ragsvc.evaluation.measures.judging import Gold, Item, Occurrence
from ragsvc.evaluation.questions import Asked

_SHOWN = 8
_SHOWN_LINES = 6
_EXCERPT_SEARCH = {"mode": "lexical", "top_k": MAX_TOP_K}
_LONGEST_QUERY = 2000
_PAGE = 100


class QuestionWithGold(msgspec.Struct, frozen=True):
    """A question whose document and places are known. Without ``gold`` it takes no part in the measures of search."""

    asked: Asked
    document_id: str | None = None
    filename: str | None = None
    gold: Gold | None = None


class _NotThere(Exception):
    """Something that a question names is not in the collection."""


async def find_gold(
    client: ServiceClient, asked: Sequence[Asked], *, collection: str, within_document: bool, skip_unknown: bool
) -> tuple[list[QuestionWithGold], list[str]]:
    """Cases in order, and one line for each thing that is not there (with ``skip_unknown``, else they are an error).

    With ``within_document`` a document alone is no gold: whatever is found is from it.

    Raises:
        CommandFailed: some documents, pages or excerpts are not there; says which, and on which lines.
    """
    finder = _Finder(client, collection, whole_documents=not within_document)
    cases: list[QuestionWithGold] = []
    lines: defaultdict[str, list[int]] = defaultdict(list)
    for one in asked:
        try:
            cases.append(await finder.case(one))
        except _NotThere as error:
            lines[str(error)].append(one.line)
    problems = [f"{what} ({_lines(numbers)})" for what, numbers in lines.items()]
    if problems and (not skip_unknown or not cases):
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        count = sum(map(len, lines.values()))
        raise CommandFailed(
            f"{count} of {len(asked)} questions name what is not there: {'; '.join(problems[:_SHOWN])}{more}"
            + (" (--skip-unknown leaves them out)" if cases else ""),
            code="unknown_gold",
        )
    return cases, problems


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN_LINES])) + (", …" if len(numbers) > _SHOWN_LINES else "")
    return f"{len(numbers)} questions, lines {shown}" if len(numbers) > 1 else f"line {shown}"


class _Finder:
    def __init__(self, client: ServiceClient, collection: str, *, whole_documents: bool) -> None:
        self._client = client
        self._collection = collection
        self._whole_documents = whole_documents
        self._by_name: dict[str, dict[str, Json]] | None = None
        self._passages: dict[str, list[Json]] = {}

    async def case(self, asked: Asked) -> QuestionWithGold:
        """Raises ``_NotThere``."""
        question = asked.question
        document = None if question.document is None else await self._document(question.document)
        if document is None:
            excerpts = [await self._anywhere(excerpt) for excerpt in question.excerpts]
            return QuestionWithGold(asked, gold=_gold(excerpts) if excerpts else None)
        document_id, name = str(document["id"]), str(document["filename"])
        beyond = [page for page in question.pages if page > document["pages"]]
        if beyond:
            raise _NotThere(f"'{name}' has {document['pages']} pages, not {beyond[0]}")
        gold: Gold | None = None
        if question.excerpts:
            gold = _gold([await self._within(document, one, question.pages) for one in question.excerpts])
        elif question.pages:
            gold = Gold(frozenset((document_id, page) for page in question.pages))
        elif question.answerable and self._whole_documents:
            gold = Gold(frozenset([(document_id, None)]))
        return QuestionWithGold(asked, document_id, name, gold)

    async def _document(self, name: str) -> Json:
        if self._by_name is None:
            self._by_name = await self._listed()
        found = self._by_name.get(_spelled(name), {})
        if not found:
            raise _NotThere(f"no document '{name}'")
        if len(found) > 1:
            ids = ", ".join(sorted(found)[:3])
            raise _NotThere(f"{len(found)} documents are called '{name}': name one by its id ({ids}…)")
        document = next(iter(found.values()))
        if document["status"] != "ready":
            raise _NotThere(f"document '{name}' is {document['status']}, not ready")
        return document

    async def _listed(self) -> dict[str, dict[str, Json]]:
        found: defaultdict[str, dict[str, Json]] = defaultdict(dict)
        async for document in self._client.pages("/v1/rag/documents", {"collection": self._collection}):
            path: Any = (document.get("metadata") or {}).get(PATH_KEY)
            names = (document["id"], document["sha256"], document["filename"], path)
            for name in names:
                if isinstance(name, str):
                    found[_spelled(name)][document["id"]] = document
        return found

    async def _within(self, document: Json, excerpt: str, pages: Sequence[int]) -> tuple[Occurrence, ...]:
        document_id = document["id"]
        if document_id not in self._passages:
            self._passages[document_id] = await self._all_passages(document_id)
        passages = self._passages[document_id]
        kept = [one for one in passages if not pages or one["page"] in pages]
        found = SearchableText(document_id, page_texts(kept, "text")).find(excerpt)
        if not found:
            where = f"page {' and '.join(map(str, pages))} of " if pages else ""
            raise _NotThere(f"an excerpt does not stand in {where}'{document['filename']}'")
        return found

    async def _all_passages(self, document_id: str) -> list[Json]:
        """Page after page."""
        passages: list[Json] = []
        asked: dict[str, Any] = {"limit": _PAGE}
        while True:
            page = await self._client.get(f"/v1/rag/documents/{document_id}/passages", asked)
            passages += page["data"]
            if not page["has_more"]:
                return passages
            asked["after"] = page["last_id"]

    async def _anywhere(self, excerpt: str) -> tuple[Occurrence, ...]:
        """Where an excerpt of no particular document stands, among the passages that share its words."""
        query = {"query": excerpt[:_LONGEST_QUERY], "collection": self._collection, **_EXCERPT_SEARCH}
        hits = (await self._client.post("/v1/rag/search", query))["data"]
        of_document: defaultdict[str, list[Json]] = defaultdict(list)
        for hit in hits:
            of_document[hit["document_id"]].append(hit)
        found = [
            occurrence
            for document_id, passages in of_document.items()
            for occurrence in SearchableText(document_id, page_texts(passages, "quote")).find(excerpt)
        ]
        if not found:
            raise _NotThere("an excerpt stands in no document")
        return tuple(found)


def page_texts(passages: Iterable[Mapping[str, Any]], field: str) -> dict[int, str]:
    """Each page's text as far as passages hold it; what is between them is blank."""
    pages: defaultdict[int, list[str]] = defaultdict(list)
    for one in passages:
        characters = pages[one["page"]]
        characters.extend(" " * (one["end"] - len(characters)))
        characters[one["start"] : one["end"]] = one[field]
    return {number: "".join(characters) for number, characters in pages.items()}


def _gold(excerpts: Sequence[tuple[Occurrence, ...]]) -> Gold:
    items: frozenset[Item] = frozenset(
        (span.document, span.page) for excerpt in excerpts for spans in excerpt for span in spans
    )
    return Gold(items, tuple(excerpts))


def _spelled(name: str) -> str:
    """File systems differ in how they compose letters; people copy either."""
    return unicodedata.normalize("NFC", name)
