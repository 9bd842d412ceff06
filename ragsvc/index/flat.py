"""Exact nearest-neighbour search with all vectors in memory as float16, for small and medium collections."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import Hits, Ids
from ragsvc.index.float16_scan import Faiss, Float16Rows, nearest, view_of
from ragsvc.index.row_table import GrowingArray, LiveRows, RowTable

_COPY_ROWS = 16_384


class CopyableVectors(Protocol):
    """An index that takes float16 rows."""

    def add(self, ids: Ids, documents: Ids, vectors: Float16Rows) -> None: ...


@dataclass(frozen=True, slots=True)
class _FlatState:
    """An immutable state: row ``i`` of ``vectors`` ``(n, dim)`` belongs to row ``i`` of ``rows``.

    ``view`` is kept because making it takes a third of a search among 2,000 vectors.
    """

    rows: LiveRows
    vectors: Float16Rows
    view: Faiss

    @classmethod
    def of(cls, rows: LiveRows, vectors: Float16Rows) -> Self:
        return cls(rows, vectors, view_of(vectors) if len(vectors) else None)


class FlatIndex:
    """Exact search over float16 vectors; the writer publishes immutable states, and readers search the latest.

    The database stores float16 as well, so the index loses no precision.
    """

    kind = "flat"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._writer = threading.Lock()
        self._reset(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, dimension), np.float16))

    def __len__(self) -> int:
        return self._state.rows.live

    @property
    def memory_bytes(self) -> int:
        return self._table.memory_bytes + self._vectors.memory_bytes

    def ids(self) -> Ids:
        rows = self._state.rows
        return np.sort(rows.ids[rows.live_rows()])

    def add(self, ids: Ids, documents: Ids, vectors: Vectors | Float16Rows) -> None:
        """Add vectors; an id that is present is replaced."""
        if not len(ids):
            return
        with self._writer:
            self._table.discard(ids)
            self._table.append(ids, documents)
            self._vectors.append(vectors.astype(np.float16))
            self._publish()

    def remove(self, ids: Ids) -> int:
        """Mark vectors as removed; their memory is freed when a quarter of the rows is removed."""
        with self._writer:
            removed = self._table.discard(ids)
            self._publish()
            return removed

    def search(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` nearest, exactly; equal scores by id."""
        state = self._state
        rows = state.rows
        if documents is None:
            scores, found = nearest(state.vectors, query, k, rows.alive if rows.dead else None, view=state.view)
        else:
            chosen = rows.select(documents)
            window = state.vectors[chosen.start : chosen.end]
            scores, found = nearest(window, query, min(k, chosen.count), chosen.bits)
            found = found + chosen.start
        ids = rows.ids[found]
        order = np.lexsort((ids, -scores))
        return Hits(ids[order], scores[order])

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of ``ids``, in this order; an unknown id raises ``KeyError``."""
        return self.lookup(ids)[1].astype(np.float32)

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each id, -1 for an unknown id."""
        with self._writer:
            return self._table.documents_of(ids)

    def lookup(self, ids: Ids) -> tuple[Ids, Float16Rows]:
        """Documents and float16 vectors of ``ids``, in this order; an unknown id raises ``KeyError``."""
        with self._writer:
            rows, state = self._table.find(ids), self._state
        if (rows < 0).any():
            raise KeyError(int(ids[rows < 0][0]))
        return state.rows.documents_of(rows), state.vectors[rows]

    def contents(self) -> tuple[Ids, Ids, Float16Rows]:
        """Ids, documents and float16 vectors of all live rows, in row order."""
        state = self._state
        if not state.rows.dead:
            return state.rows.ids, state.rows.documents(), state.vectors
        live = state.rows.live_rows()
        return state.rows.ids[live], state.rows.documents()[live], state.vectors[live]

    def copy_to(self, other: CopyableVectors) -> None:
        """Add the present live rows to another index."""
        ids, documents, vectors = self.contents()
        for start in range(0, len(ids), _COPY_ROWS):
            part = slice(start, start + _COPY_ROWS)
            other.add(ids[part], documents[part], vectors[part])

    def save(self, folder: Path) -> None:
        """Write ids, documents and vectors as raw little-endian arrays."""
        ids, documents, vectors = self.contents()
        ids.astype("<i8").tofile(folder / "ids.i64")
        documents.astype("<i8").tofile(folder / "documents.i64")
        vectors.astype("<f2").tofile(folder / "vectors.f16")

    @classmethod
    def load(cls, folder: Path, dimension: int) -> FlatIndex:
        """Read the files of ``save``; ``ValueError`` if they do not belong together."""
        ids = np.fromfile(folder / "ids.i64", "<i8")
        documents = np.fromfile(folder / "documents.i64", "<i8")
        vectors = np.fromfile(folder / "vectors.f16", "<f2").reshape(-1, dimension)
        if not len(ids) == len(documents) == len(vectors):
            raise ValueError(f"{len(ids)} ids, {len(documents)} documents, {len(vectors)} vectors")
        index = cls(dimension)
        index._reset(ids, documents, vectors)
        return index

    def _reset(self, ids: Ids, documents: Ids, vectors: Float16Rows) -> None:
        self._table = RowTable(ids, documents)
        self._vectors: GrowingArray[np.float16] = GrowingArray(vectors)
        self._state = _FlatState.of(self._table.rows(), self._vectors.view())

    def _publish(self) -> None:
        rows = self._table.rows()
        if rows.dead > max(1024, len(rows) // 4):
            live = rows.live_rows()
            self._reset(rows.ids[live], rows.documents()[live], self._vectors.view()[live])
        else:
            self._state = _FlatState.of(rows, self._vectors.view())
