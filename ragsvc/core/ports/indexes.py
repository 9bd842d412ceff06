"""The ports of the vector index and of the rows from which indexes are built."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.embedding import Scores, Vectors

Ids = npt.NDArray[np.int64]
"""``(n,)`` int64 row ids."""


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


IndexOperation = Literal["add", "update", "reembed", "delete"]
"""How passages of a document changed.

``add`` and ``delete``: they became part of the collection, or no longer are. ``update``: their context words changed,
and their vectors may have changed with them. ``reembed``: their vectors changed, their words did not.
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


class IndexSource(Protocol):
    """The rows from which indexes are built. Blocking; may be read from several threads at the same time."""

    def head_seq(self, collection_id: int) -> int:
        """The last position in the change log, 0 if it is empty."""
        ...

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        """At most ``limit`` changes with ``seq > after_seq``, in order."""
        ...

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        """Ids, document ids and vectors of those of the passages that exist."""
        ...

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        """Texts of those of the passages that exist."""
        ...

    def all_passage_ids(self, collection_id: int) -> Ids:
        """Ids of the passages of all ready documents."""
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

    def is_loaded(self, collection_id: int) -> bool:
        """Whether the collection's indexes are in memory."""
        ...

    def get(self, collection_id: int) -> object:
        """The collection's indexes; loads them if they are not in memory, which takes seconds for large ones."""
        ...

    def catch_up(self, collection_id: int) -> None:
        """Make the collection's latest commits searchable."""
        ...
