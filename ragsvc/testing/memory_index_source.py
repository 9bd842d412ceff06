"""An ``IndexSource`` in memory, for tests and measurements: the reference for the rules of the index log."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec
import numpy as np

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import DocumentCard, Ids, IndexChange, IndexOperation, LexicalDocument, LogPruned


class MemorySource:
    """Collections of documents whose passages have a vector and a text; every change is logged."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._lock = threading.Lock()
        self._rows: dict[int, dict[int, tuple[LexicalDocument, Vectors]]] = {}
        self._log: dict[int, list[IndexChange]] = {}
        self.pruned: dict[int, int] = {}
        """The position up to which the log of a collection was pruned."""
        self._last_id = 0
        self._last_document = 0

    def add_document(
        self, collection_id: int, texts: Sequence[str], vectors: Vectors, *, context: str = ""
    ) -> tuple[int, Ids]:
        """Store a ready document; returns its id and its passages' ids."""
        with self._lock:
            self._last_document += 1
            ids = np.arange(self._last_id + 1, self._last_id + 1 + len(texts), dtype=np.int64)
            self._last_id += len(texts)
            halves = vectors.astype(np.float16).astype(np.float32)
            rows = self._rows.setdefault(collection_id, {})
            for passage, text, vector in zip(ids.tolist(), texts, halves, strict=True):
                rows[passage] = (LexicalDocument(passage, self._last_document, text, context), vector)
            self._append(collection_id, "add", self._last_document, ids)
            return self._last_document, ids

    def delete_document(self, collection_id: int, document_id: int) -> None:
        """Delete a document and its passages."""
        with self._lock:
            rows = self._rows.get(collection_id, {})
            ids = self._passages_of(collection_id, document_id)
            for passage in ids.tolist():
                del rows[passage]
            self._append(collection_id, "delete", document_id, ids)

    def rename_document(self, collection_id: int, document_id: int, *, context: str) -> None:
        """Change the context words of a document's passages."""
        with self._lock:
            rows = self._rows[collection_id]
            ids = self._passages_of(collection_id, document_id)
            for passage in ids.tolist():
                text, vector = rows[passage]
                rows[passage] = (msgspec.structs.replace(text, context=context), vector)
            self._append(collection_id, "update", document_id, ids)

    def reembed_document(self, collection_id: int, document_id: int, vectors: Vectors) -> None:
        """Replace the vectors of a document's passages."""
        with self._lock:
            rows = self._rows[collection_id]
            ids = self._passages_of(collection_id, document_id)
            halves = vectors.astype(np.float16).astype(np.float32)
            for passage, vector in zip(ids.tolist(), halves, strict=True):
                rows[passage] = (rows[passage][0], vector)
            self._append(collection_id, "reembed", document_id, ids)

    def head_seq(self, collection_id: int) -> int:
        return len(self._log.get(collection_id, ()))

    def prune(self, collection_id: int, up_to: int) -> None:
        """Refuse to replay entries up to and including ``up_to`` from now on."""
        self.pruned[collection_id] = max(up_to, self.pruned.get(collection_id, 0))

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        """Log entries beyond ``after_seq``. Raises ``LogPruned``."""
        if after_seq < self.pruned.get(collection_id, 0):
            raise LogPruned(f"entries after {after_seq} were pruned")
        return self._log.get(collection_id, [])[after_seq : after_seq + limit]

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        """Vectors of the passages that exist."""
        rows = self._rows.get(collection_id, {})
        found = [(i, row) for i in passage_ids.tolist() if (row := rows.get(i)) is not None]
        ids = np.array([i for i, _ in found], dtype=np.int64)
        documents = np.array([text.document_id for _, (text, _) in found], dtype=np.int64)
        vectors = [vector for _, (_, vector) in found]
        return ids, documents, np.stack(vectors) if vectors else np.empty((0, self.dimension), np.float32)

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        """Texts of the passages that exist."""
        rows = self._rows.get(collection_id, {})
        return [row[0] for i in passage_ids.tolist() if (row := rows.get(i)) is not None]

    def all_passage_ids(self, collection_id: int) -> Ids:
        return np.array(sorted(self._rows.get(collection_id, ())), dtype=np.int64)

    def embedded_passage_ids(self, collection_id: int) -> Ids:
        return self.all_passage_ids(collection_id)

    def cards(self, collection_id: int, document_ids: Sequence[int] | None = None) -> list[DocumentCard]:
        """Cards of the documents that exist; the context is the name, the first passage the opening."""
        texts: dict[int, list[LexicalDocument]] = {}
        for _, (text, _) in sorted(self._rows.get(collection_id, {}).items()):
            texts.setdefault(text.document_id, []).append(text)
        wanted = list(texts) if document_ids is None else [document for document in document_ids if document in texts]
        return [
            DocumentCard(document, texts[document][0].context, texts[document][0].text, len(texts[document]))
            for document in wanted
        ]

    def _passages_of(self, collection_id: int, document_id: int) -> Ids:
        rows = self._rows.get(collection_id, {})
        return np.array([i for i, (text, _) in rows.items() if text.document_id == document_id], dtype=np.int64)

    def _append(self, collection_id: int, operation: IndexOperation, document_id: int, ids: Ids) -> None:
        log = self._log.setdefault(collection_id, [])
        log.append(IndexChange(len(log) + 1, operation, document_id, ids.astype("<i8").tobytes()))
