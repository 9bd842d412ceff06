"""A collection in memory: the passages of the files of one request, searched like a stored collection.

Implements the protocols of ``passage_search``. Ids of passages ascend in reading order, file by file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np

from ragsvc.core.documents import StoredPassage
from ragsvc.core.ports.embedding import Scores, Vectors
from ragsvc.core.ports.indexes import Hits, Ids
from ragsvc.core.retrieval.answerability import BETWEEN_TEXTS
from ragsvc.core.retrieval.document_questions import DocumentQuestion
from ragsvc.core.retrieval.ranking import OPENING_CHARACTERS, name_and_title

_OPENING_PASSAGES: Final = 3


class RequestPassages:
    """Passages of a request with their vectors ``(n, dim)``; implements ``CollectionIndexes`` and ``PassageRows``.

    ``passages`` are in the order of the files and of reading, and their ids ascend. ``score_words`` gives the BM25
    scores ``(n,)`` of a text, 0 for passages without a word of it.
    """

    def __init__(
        self, passages: Sequence[StoredPassage], vectors: Vectors, *, score_words: Callable[[str], Scores]
    ) -> None:
        self._passages = {int(passage.id): passage for passage in passages}
        self._ids = np.array([passage.id for passage in passages], np.int64)
        self._documents = np.array([passage.document_id for passage in passages], np.int64)
        self._vectors = vectors
        self._score_words = score_words

    def search(self, vector: Vectors | None, text: str | None, *, k: int, documents: Ids | None) -> tuple[Hits, Hits]:
        dense = _nothing() if vector is None else self._best(self._vectors @ vector, k, documents)
        if text is None:
            return dense, _nothing()
        words = self._score_words(text)
        return dense, self._best(np.where(words > 0, words, np.nan).astype(np.float32), k, documents)

    def _best(self, scores: Scores, k: int, documents: Ids | None) -> Hits:
        allowed = ~np.isnan(scores)
        if documents is not None:
            allowed &= np.isin(self._documents, documents)
        kept = np.flatnonzero(allowed)
        best = kept[np.lexsort((self._ids[kept], -scores[kept]))[:k]]
        return Hits(self._ids[best], scores[best].astype(np.float32))

    def documents_of(self, ids: Ids) -> Ids:
        return self._documents[np.searchsorted(self._ids, ids)]

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        return ids, self._vectors[np.searchsorted(self._ids, ids)]

    def names(self, documents: Iterable[int]) -> Mapping[int, str]:
        wanted = set(documents)
        return {
            int(passage.document_id): name_and_title(passage.filename, passage.title)
            for passage in self._passages.values()
            if passage.document_id in wanted
        }

    def openings(self, documents: AbstractSet[int]) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for passage in self._passages.values():
            before = found.get(passage.document_id, "")
            if passage.document_id in documents and len(before) < OPENING_CHARACTERS:
                found[passage.document_id] = f"{before}\n{passage.text}".lstrip()[:OPENING_CHARACTERS]
        return found

    def passages(self, ids: Sequence[int]) -> Mapping[int, StoredPassage]:
        return {passage: self._passages[passage] for passage in ids}

    def joined_texts(self, ids: Sequence[int]) -> bytes:
        return BETWEEN_TEXTS.join(self._passages[passage].text for passage in ids).encode()

    def asked_passages(self, asked: DocumentQuestion, documents: Sequence[int]) -> Sequence[tuple[int, int]]:
        """As ``store.passage_rows.load_asked_passages``."""
        by_document: dict[int, list[StoredPassage]] = {}
        for passage in self._passages.values():
            by_document.setdefault(passage.document_id, []).append(passage)
        chosen = [document for document in documents or by_document if document in by_document]
        chosen += [document for document in by_document if document not in chosen]
        named = [document for document in chosen if by_document[document][0].filename.lower() in asked.file_names]
        found = [_asked_of(asked, by_document[document]) for document in named or chosen]
        if asked.names_pages:
            return list(itertools.chain.from_iterable(found))
        by_place = itertools.zip_longest(*found)
        return [pair for place in by_place for pair in place if pair is not None]


def _asked_of(asked: DocumentQuestion, passages: Sequence[StoredPassage]) -> list[tuple[int, int]]:
    if not asked.names_pages:
        return [(passage.id, passage.document_id) for passage in passages[:_OPENING_PASSAGES]]
    pages_total = passages[0].pages_total
    numbers = {int(page): page for page in asked.pages if page.isdecimal()}
    numbers |= {pages_total + 1 - from_end: "" for from_end in asked.from_end}
    labels = {(passage.page_label or "").lower() for passage in passages}
    by_number = {number for number, page in numbers.items() if not page or page not in labels}
    return [
        (passage.id, passage.document_id)
        for passage in passages
        if passage.page in by_number or (passage.page_label or "").lower() in asked.pages
    ]


def _nothing() -> Hits:
    return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
