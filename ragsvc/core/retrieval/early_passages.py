"""Adds the passages of documents that are still being parsed to the search of a stored collection.

Their pages are in memory only, and found by words. Their ids are negative, so that they differ from all stored ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import numpy as np

from ragsvc.core.documents import StoredPassage
from ragsvc.core.ports.embedding import Scores, Vectors
from ragsvc.core.ports.indexes import Hits, Ids
from ragsvc.core.retrieval.answerability import BETWEEN_TEXTS
from ragsvc.core.retrieval.document_questions import DocumentQuestion
from ragsvc.core.retrieval.passage_search import CollectionIndexes, PassageRows
from ragsvc.core.retrieval.ranking import name_and_title
from ragsvc.core.retrieval.request_passages import RequestPassages


class EarlyPassages:
    """The passages of documents of one collection, with ascending negative ids.

    ``score_words`` gives the BM25 scores ``(n,)`` of a text, 0 for passages without a word of it.
    """

    def __init__(self, passages: Sequence[StoredPassage], *, score_words: Callable[[str], Scores]) -> None:
        self.memory = RequestPassages(passages, np.empty((len(passages), 0), np.float32), score_words=score_words)
        self.documents = {int(passage.document_id) for passage in passages}
        self.owners = {int(passage.id): int(passage.document_id) for passage in passages}


class EarlyIndexes:
    """Implements ``CollectionIndexes``: the stored collection, and early passages by their words."""

    def __init__(self, stored: CollectionIndexes, early: EarlyPassages) -> None:
        self._stored = stored
        self._early = early

    def search(self, vector: Vectors | None, text: str | None, *, k: int, documents: Ids | None) -> tuple[Hits, Hits]:
        dense, words = self._stored.search(vector, text, k=k, documents=documents)
        if text is None:
            return dense, words
        _, early = self._early.memory.search(None, text, k=k, documents=documents)
        ids, scores = np.concatenate((words.ids, early.ids)), np.concatenate((words.scores, early.scores))
        order = np.lexsort((ids, -scores))[:k]
        return dense, Hits(ids[order], scores[order])

    def documents_of(self, ids: Ids) -> Ids:
        found = self._stored.documents_of(ids)
        early = np.flatnonzero(ids < 0)
        found[early] = [self._early.owners.get(passage, -1) for passage in ids[early].tolist()]
        return found

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        return self._stored.vectors(ids[ids >= 0])


class EarlyRows:
    """Implements ``PassageRows`` likewise.

    ``living`` are the documents of early passages that still have no rows, with their present names (file name and
    title): a document may be renamed while it waits for text recognition.
    """

    def __init__(self, stored: PassageRows, early: EarlyPassages, living: Mapping[int, tuple[str, str | None]]) -> None:
        self._stored = stored
        self._early = early
        self._names = living
        self._living = early.documents & living.keys()

    def names(self, documents: Iterable[int]) -> Mapping[int, str]:
        wanted = set(documents)
        early = {document: name_and_title(*self._names[document]) for document in wanted & self._living}
        return {**self._stored.names(wanted), **early}

    def openings(self, documents: AbstractSet[int]) -> Mapping[int, str]:
        stored = self._stored.openings(documents - self._living)  # which may remember them
        return {**stored, **self._early.memory.openings(documents & self._living)}

    def passages(self, ids: Sequence[int]) -> Mapping[int, StoredPassage]:
        early = [passage for passage in ids if self._early.owners.get(passage) in self._living]
        stored = self._stored.passages([passage for passage in ids if passage >= 0])
        found = self._early.memory.passages(early)
        return {**stored, **{number: self._with_names(passage) for number, passage in found.items()}}

    def _with_names(self, passage: StoredPassage) -> StoredPassage:
        filename, title = self._names[passage.document_id]
        return msgspec.structs.replace(passage, filename=filename, title=title)

    def asked_passages(self, asked: DocumentQuestion, documents: Sequence[int]) -> Sequence[tuple[int, int]]:
        """Of the stored documents only: the pages of the others are not complete."""
        return self._stored.asked_passages(asked, documents)

    def joined_texts(self, ids: Sequence[int]) -> bytes:
        early = [passage for passage in ids if self._early.owners.get(passage) in self._living]
        stored = self._stored.joined_texts([passage for passage in ids if passage >= 0])
        texts = self._early.memory.joined_texts(early)
        return BETWEEN_TEXTS.encode().join(part for part in (stored, texts) if part)
