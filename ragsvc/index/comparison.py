"""Compares indexes with the rows, id by id and vector by vector, for ``ragsvc doctor`` and the crash tests."""

from __future__ import annotations

import msgspec
import numpy as np

from ragsvc.core.ports.indexes import Ids, IndexSource
from ragsvc.index.lexical import TantivyIndex
from ragsvc.index.restore import VectorSide

_PASSAGES_PER_READ = 4096


class Difference(msgspec.Struct, frozen=True):
    """How one index differs from the rows: counts of ids, and up to 20 of them as examples.

    ``missing`` ids are only in the rows, ``ghosts`` only in the index; ``wrong`` have another vector or document.
    """

    missing: int = 0
    ghosts: int = 0
    wrong: int = 0
    examples: list[int] = []


class IndexReport(msgspec.Struct, frozen=True):
    """The comparison of a collection's indexes with its rows."""

    collection_id: int
    passages: int
    kind: str
    vectors: Difference
    lexical: Difference

    @property
    def ok(self) -> bool:
        """Whether both indexes are equal to the rows."""
        sides = (self.vectors, self.lexical)
        return not any(side.missing or side.ghosts or side.wrong for side in sides)


def compare(collection_id: int, source: IndexSource, vectors: VectorSide, lexical: TantivyIndex) -> IndexReport:
    """Compare ids, documents and float16 vectors; indexes and rows must be at the same log position."""
    passages = np.sort(source.all_passage_ids(collection_id))
    expected = np.sort(source.embedded_passage_ids(collection_id))
    found = vectors.ids()
    difference = _difference(expected, found)
    wrong = _wrong_vectors(collection_id, source, vectors, np.intersect1d(expected, found))
    examples = [*difference.examples, *wrong][:20]
    difference = msgspec.structs.replace(difference, wrong=len(wrong), examples=examples)
    words = _difference(passages, lexical.ids())
    return IndexReport(collection_id, len(passages), vectors.kind, difference, words)


def _wrong_vectors(collection_id: int, source: IndexSource, vectors: VectorSide, ids: Ids) -> list[int]:
    wrong: list[int] = []
    for start in range(0, len(ids), _PASSAGES_PER_READ):
        found, documents, expected = source.vectors(collection_id, ids[start : start + _PASSAGES_PER_READ])
        stored_documents, stored = vectors.lookup(found)
        differs = (stored != expected.astype(np.float16)).any(axis=1) | (stored_documents != documents)
        wrong.extend(found[differs].tolist())
    return wrong


def _difference(expected: Ids, found: Ids) -> Difference:
    missing, ghosts = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    return Difference(len(missing), len(ghosts), 0, [*missing[:10].tolist(), *ghosts[:10].tolist()])
