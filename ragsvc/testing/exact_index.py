"""A reference implementation of ``VectorIndex`` in NumPy, slow and simple, for comparison with the real indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import Hits, Ids


class ExactIndex:
    """Exact cosine search by a matrix product over all vectors, in the precision of the stored rows (float16)."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._vectors: dict[int, tuple[int, Vectors]] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def ids(self) -> Ids:
        """All ids in ascending order."""
        return np.array(sorted(self._vectors), dtype=np.int64)

    def add(self, ids: Ids, documents: Ids, vectors: Vectors) -> None:
        for passage, document, vector in zip(ids, documents, vectors, strict=True):
            self._vectors[int(passage)] = (int(document), vector.astype(np.float16).astype(np.float32))

    def remove(self, ids: Ids) -> int:
        """Remove ids; returns the number of ids that existed."""
        return sum(self._vectors.pop(int(passage), None) is not None for passage in ids)

    def search(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """The best ``k`` of the allowed documents, by descending score, then by id."""
        allowed = None if documents is None else set(documents.tolist())
        kept = [i for i, (document, _) in sorted(self._vectors.items()) if allowed is None or document in allowed]
        if not kept or k <= 0:
            return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
        ids = np.array(kept, dtype=np.int64)
        scores = (self.vectors(ids) @ query).astype(np.float32)
        best = np.lexsort((ids, -scores))[:k]
        return Hits(ids[best], scores[best])

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each id, -1 for an unknown id."""
        return np.array([self._vectors.get(int(passage), (-1,))[0] for passage in ids], dtype=np.int64)

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors, in the order of ``ids``."""
        if not len(ids):
            return np.empty((0, self.dimension), np.float32)
        return np.stack([self._vectors[int(passage)][1] for passage in ids])

    def save(self, folder: Path) -> None:
        """Write ids, documents and vectors to ``exact.npz``."""
        ids = self.ids()
        documents = np.array([self._vectors[int(passage)][0] for passage in ids], dtype=np.int64)
        np.savez(folder / "exact.npz", ids=ids, documents=documents, vectors=self.vectors(ids))

    @classmethod
    def load(cls, folder: Path, dimension: int) -> ExactIndex:
        index = cls(dimension)
        with np.load(folder / "exact.npz") as saved:
            index.add(saved["ids"], saved["documents"], saved["vectors"])
        return index
