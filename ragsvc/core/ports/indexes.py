"""The ports of the vector index and of the rows from which indexes are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.embedding import Scores, Vectors

Ids = npt.NDArray[np.int64]
"""``(n,)`` int64 row ids."""


LEAST_CONFIDENCE: Final = 0.35
"""A judgement with less confidence is not used (on mmlong most of these are coincidences: MRR .65 with them, .69
without)."""

NEAR_BEST: Final = 0.35
"""Documents below this share of the best score are not searched separately."""


class Hits(msgspec.Struct, frozen=True):
    """Search results, best first: ``ids`` (k,) int64 and ``scores`` (k,) float32, higher is better."""

    ids: Ids
    scores: Scores


class VectorIndex(Protocol):
    """Nearest passages by cosine similarity. One writer at a time; readers never wait for it."""

    def __len__(self) -> int: ...

    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    def add(self, ids: Ids, documents: Ids, vectors: Vectors) -> None:
        """Add vectors; ``documents`` holds the document id of each. The vector of an existing id is replaced."""
        ...

    def remove(self, ids: Ids) -> int:
        """Remove ids; unknown ids are ignored. Returns the number of ids removed."""
        ...

    def search(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` vectors nearest to a query ``(dim,)``; scores are cosines in -1..1.

        ``documents`` restricts the candidates *before* ranking.
        """
        ...

    def documents_of(self, ids: Ids) -> Ids:
        """The document id of each id, -1 for unknown ids."""
        ...

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors in the order of ``ids``. Raises ``KeyError`` for an unknown id."""
        ...

    def save(self, folder: Path) -> None:
        """Write a snapshot into an empty folder; the caller fsyncs and renames it."""
        ...


class LexicalDocument(msgspec.Struct, frozen=True):
    """A passage as the lexical index stores it; ``context`` is title, file name and headings."""

    id: int
    document_id: int
    text: str
    context: str


class CountedTerms(msgspec.Struct, frozen=True):
    """How often the terms of a passage occur in its text and in its context, and the passage's language."""

    language: str
    text: Mapping[str, int]
    context: Mapping[str, int]


class WordScorer(Protocol):
    """Word search over a few thousand passages in memory, with the terms and weights of the lexical index."""

    def count(self, documents: Sequence[LexicalDocument]) -> list[CountedTerms]:
        """The terms of each passage."""
        ...

    def scores(self, counted: Sequence[CountedTerms], query: str) -> Scores:
        """The BM25 score ``(n,)`` of each passage, 0 without a term of the query."""
        ...


class DocumentCard(msgspec.Struct, frozen=True):
    """What describes a document: its name and title, its first pages, and its length in passages."""

    document_id: int
    name: str
    opening: str
    passages: int


class DocumentJudgement(msgspec.Struct, frozen=True):
    """How well documents fit the names and dates of a question.

    ``documents`` ascend; ``scores`` are in 0..1, 1 for the best document, and documents that are not listed have 0.
    ``confidence`` in 0..1 is the weight of the two judgements against the mixture of all words. ``rest`` is the
    question without the words that the best document's card explains. ``compared`` are the documents of a question
    that names several, best first; they share the results.
    """

    documents: Ids
    scores: Scores
    confidence: float
    rest: str
    compared: tuple[int, ...] = ()

    @property
    def is_useful(self) -> bool:
        """Whether the judgement is certain enough to be used."""
        return self.confidence >= LEAST_CONFIDENCE

    def of(self, documents: Ids) -> Scores:
        """The score of each of ``documents``."""
        if not len(self.documents):
            return np.zeros(len(documents), np.float32)
        at = np.minimum(np.searchsorted(self.documents, documents), len(self.documents) - 1)
        return np.where(self.documents[at] == documents, self.scores[at], 0.0).astype(np.float32)

    def best(self, count: int) -> Ids:
        """At most ``count`` documents: the compared ones, then the best without those far behind."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        near = self.documents[order[self.scores[order] >= NEAR_BEST]]
        return np.array(list(dict.fromkeys([*self.compared, *near.tolist()]))[:count], np.int64)


IndexOperation = Literal["add", "update", "reembed", "delete"]
"""How passages of a document changed.

``add`` and ``delete``: they became part of the collection, or no longer are. ``update``: their context words changed,
and their vectors may have changed with them. ``reembed``: their vectors were stored or changed, their words did not
change. After each of them except ``delete``, a passage may have no vector.
"""


class IndexChange(msgspec.Struct, frozen=True):
    """An entry in the change log of a collection, written in the transaction of the change.

    ``seq`` increases and is never reused; ``passage_ids`` is packed little-endian int64. An entry names passages whose
    content is read from the rows, so it is safe to replay an entry twice or late.
    """

    seq: int
    op: IndexOperation
    document_id: int
    passage_ids: bytes

    def ids(self) -> Ids:
        """Ids of the passages that changed."""
        return np.frombuffer(self.passage_ids, dtype="<i8").astype(np.int64)


class LogPruned(Exception):
    """The change log no longer has the entries that an index lacks, so the index is built from the rows."""


class IndexSource(Protocol):
    """The rows from which indexes are built. Blocking; may be read from several threads at the same time."""

    def head_seq(self, collection_id: int) -> int:
        """The last position in the change log, 0 if it is empty."""
        ...

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        """At most ``limit`` changes with ``seq > after_seq``, in order.

        Raises:
            LogPruned: some of them were pruned.
        """
        ...

    def prune(self, collection_id: int, up_to: int) -> None:
        """Remove entries up to and including ``up_to``, which every index has stored; the last entry stays."""
        ...

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        """Ids, document ids and vectors of those of the passages that exist and have vectors."""
        ...

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        """Texts of those of the passages that exist."""
        ...

    def all_passage_ids(self, collection_id: int) -> Ids:
        """Ids of the passages of all searchable documents."""
        ...

    def embedded_passage_ids(self, collection_id: int) -> Ids:
        """Those of ``all_passage_ids`` that the vector index has to have.

        The vectors of ready documents are complete; other searchable documents have some of them.
        """
        ...

    def cards(self, collection_id: int, document_ids: Sequence[int] | None = None) -> list[DocumentCard]:
        """Cards of those of the documents that are searchable; of all documents of the collection for ``None``."""
        ...


class Indexes(Protocol):
    """The indexes of all collections of an embedding space. Blocking."""

    def search(
        self,
        collection_id: int,
        query_vector: Vectors | None,
        query_text: str | None,
        *,
        k: int,
        documents: Ids | None = None,
    ) -> tuple[Hits, Hits]:
        """Dense and lexical hits."""
        ...

    def documents_of(self, collection_id: int, ids: Ids) -> Ids:
        """The document of each passage, -1 for an unknown id."""
        ...

    def vectors(self, collection_id: int, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of ``ids`` that are in the index, and their vectors."""
        ...

    def judge_documents(self, collection_id: int, question: str, *, documents: Ids | None = None) -> DocumentJudgement:
        """Which documents the question names; ``documents`` restricts the choice."""
        ...

    def is_loaded(self, collection_id: int) -> bool:
        """Whether all that a search needs of the collection is in memory."""
        ...

    def load(self, collection_id: int) -> None:
        """Load what ``is_loaded`` asks for, which takes seconds for large collections."""
        ...

    def catch_up(self, collection_id: int) -> None:
        """Make the collection's latest commits searchable."""
        ...
