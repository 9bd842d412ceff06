"""The ports of the derived indexes, and of the rows that they follow."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Nearest passages by cosine. One writer; readers never wait for it."""

    def __len__(self) -> int:
        """Number of vectors."""
        ...

    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    def add(self, ids: Ids, documents: Ids, vectors: Vectors) -> None:
        """Add vectors with their ids and document ids; a vector with the same id is replaced."""
        ...

    def remove(self, ids: Ids) -> int:
        """Remove ids; unknown ids are ignored. Returns how many were removed."""
        ...

    def search(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` nearest to one query ``(dim,)``; cosine in -1..1. ``documents`` restricts *before* ranking."""
        ...

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each id, -1 for an unknown id."""
        ...

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of ``ids``, in this order; an unknown id raises ``KeyError``."""
        ...

    def save(self, folder: Path) -> None:
        """Write a snapshot into an empty folder (the caller fsyncs and renames)."""
        ...


class LexicalDocument(msgspec.Struct, frozen=True):
    """A passage as the lexical index stores it; ``context`` is title, file name and headings."""

    id: int
    document_id: int
    text: str
    context: str


class LexicalIndex(Protocol):
    """BM25 over passages."""

    def __len__(self) -> int:
        """Number of passages."""
        ...

    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    def add(self, documents: Sequence[LexicalDocument]) -> None:
        """Add passages; visible to searches that start after ``commit``."""
        ...

    def remove(self, ids: Ids) -> None:
        """Remove passages; visible after ``commit``."""
        ...

    def commit(self, *, covered_seq: int) -> None:
        """Make changes durable and visible, together with the log position that they cover."""
        ...

    def covered_seq(self) -> int:
        """The log position of the last commit; 0 for a new index."""
        ...

    def search(self, query: str, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` best by BM25 (unbounded, > 0). Any text is a valid query; operators in it are plain words."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


IndexOperation = Literal["add", "update", "reembed", "delete"]
"""How passages of a document changed.

``add`` and ``delete``: they became part of the collection, or no longer are. ``update``: their context words changed,
and their vectors may have changed with them. ``reembed``: their vectors changed, their words did not.
"""


class IndexChange(msgspec.Struct, frozen=True):
    """One entry of a collection's change log, written in the transaction that made the change.

    ``seq`` grows and is never reused; ``passage_ids`` is packed little-endian int64. An entry names the passages; their
    present content is read from the rows, so replaying an entry twice, or late, is harmless.
    """

    seq: int
    op: IndexOperation
    document_id: int
    passage_ids: bytes

    def ids(self) -> Ids:
        """The passages that changed."""
        return np.frombuffer(self.passage_ids, dtype="<i8").astype(np.int64)


class IndexSource(Protocol):
    """The rows that the derived indexes follow. Blocking; may be called from several threads at once."""

    def head_seq(self, collection_id: int) -> int:
        """The last log position, 0 if the log is empty."""
        ...

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        """At most ``limit`` changes with ``seq > after_seq``, in order."""
        ...

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        """Ids, document ids and vectors of those passages that still exist."""
        ...

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        """Texts of those passages that still exist."""
        ...

    def all_passage_ids(self, collection_id: int) -> Ids:
        """Ids of the passages of all ready documents."""
        ...
