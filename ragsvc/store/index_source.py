"""Reads the rows for the derived indexes: implements the port ``IndexSource``. Blocking, for worker threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import DocumentCard, Ids, IndexChange, LexicalDocument, LogPruned
from ragsvc.core.text.tables import table_context
from ragsvc.store.database import Database
from ragsvc.store.index_log_rows import changes_after, last_position, prune_log, pruned_up_to
from ragsvc.store.passage_rows import (
    embedded_passage_ids,
    load_cards,
    passage_ids_of_collection,
    searchable_documents,
)
from ragsvc.store.searchable_documents import is_searchable
from ragsvc.store.tables import DocumentRow, EmbeddingRow, PassageRow, table_of
from ragsvc.store.text_integrity import is_readable
from ragsvc.store.vector_rows import decode_tables, unpack_vectors

_documents = table_of(DocumentRow)
_passages = table_of(PassageRow)
_embeddings = table_of(EmbeddingRow)

_AT_ONCE = 900
_decode_headings = msgspec.json.Decoder(tuple[str, ...]).decode

LexicalContext = Callable[[str | None, str, tuple[str, ...], str], str]
"""Makes the context text of (title, file name, heading path, headings of a table)."""


class SqliteIndexSource:
    """Reads the log, the texts, and the vectors of one embedding model."""

    def __init__(self, database: Database, *, model_id: int, dimension: int, lexical_context: LexicalContext) -> None:
        self._database = database
        self._model_id = model_id
        self._dimension = dimension
        self._lexical_context = lexical_context

    def head_seq(self, collection_id: int) -> int:
        """Last position of the collection's log; 0 if the log is empty."""
        return self._database.read_sync(lambda connection: last_position(connection, collection_id))

    def changes(self, collection_id: int, after_seq: int, limit: int) -> list[IndexChange]:
        """Log entries beyond ``after_seq``, oldest first. Raises ``LogPruned``."""

        def read(connection: Connection) -> list[IndexChange]:
            if after_seq < pruned_up_to(connection, collection_id):
                raise LogPruned(f"collection {collection_id}: entries after {after_seq} were pruned")
            return changes_after(connection, collection_id, after_seq, limit)

        return self._database.read_sync(read)

    def prune(self, collection_id: int, up_to: int) -> None:
        """Remove log entries up to and including ``up_to``."""
        self._database.write_sync(lambda connection: prune_log(connection, collection_id, up_to))

    def vectors(self, collection_id: int, passage_ids: Ids) -> tuple[Ids, Ids, Vectors]:
        """(ids, document ids, unit rows) of passages that have vectors; ids ascend within each block of 900."""
        del collection_id  # passage ids are unique over collections

        def read(connection: Connection) -> tuple[Ids, Ids, Vectors]:
            ids: list[int] = []
            documents: list[int] = []
            rows: list[bytes] = []
            for block in _blocks(passage_ids):
                statement = (
                    select(_passages.c.id, _passages.c.document_id, _embeddings.c.vector)
                    .join(_embeddings, _embeddings.c.passage_id == _passages.c.id)
                    .where(_embeddings.c.model_id == self._model_id, _passages.c.id.in_(block))
                    .order_by(_passages.c.id)
                )
                for passage_id, document_id, vector in connection.execute(statement):
                    ids.append(passage_id)
                    documents.append(document_id)
                    rows.append(vector)
            return (
                np.array(ids, dtype=np.int64),
                np.array(documents, dtype=np.int64),
                unpack_vectors(rows, self._dimension),
            )

        return self._database.read_sync(read)

    def lexical(self, collection_id: int, passage_ids: Ids) -> list[LexicalDocument]:
        """Texts of passages that still exist."""
        del collection_id  # passage ids are unique over collections

        def read(connection: Connection) -> list[LexicalDocument]:
            found: list[LexicalDocument] = []
            for block in _blocks(passage_ids):
                statement = (
                    select(
                        _passages.c.id,
                        _passages.c.document_id,
                        _passages.c.text,
                        _passages.c.headings,
                        _passages.c.tables,
                        _documents.c.title,
                        _documents.c.filename,
                    )
                    .join(_documents, _documents.c.id == _passages.c.document_id)
                    .where(_passages.c.id.in_(block), is_searchable)
                    .order_by(_passages.c.id)
                )
                found += [
                    LexicalDocument(
                        id=row.id,
                        document_id=row.document_id,
                        text=row.text,
                        context=self._lexical_context(
                            row.title,
                            row.filename,
                            _decode_headings(row.headings),
                            table_context(decode_tables(row.tables), row.text),
                        ),
                    )
                    for row in connection.execute(statement)
                    if is_readable(row.text)  # a damaged passage is not found; 'ragsvc doctor --deep' names it
                ]
            return found

        return self._database.read_sync(read)

    def all_passage_ids(self, collection_id: int) -> Ids:
        """Ids of all passages of searchable documents, ascending."""
        return self._database.read_sync(lambda connection: passage_ids_of_collection(connection, collection_id))

    def embedded_passage_ids(self, collection_id: int) -> Ids:
        """Ids of the passages that the vector index has, ascending."""
        return self._database.read_sync(
            lambda connection: embedded_passage_ids(connection, collection_id, self._model_id)
        )

    def cards(self, collection_id: int, document_ids: Sequence[int] | None = None) -> list[DocumentCard]:
        """Cards of searchable documents of a collection, ascending by id."""

        def read(connection: Connection) -> list[DocumentCard]:
            wanted = searchable_documents(connection, collection_id) if document_ids is None else list(document_ids)
            return [card for block in _blocks(np.array(wanted, np.int64)) for card in load_cards(connection, block)]

        return self._database.read_sync(read)


def _blocks(passage_ids: Ids) -> Sequence[list[int]]:
    return [passage_ids[begin : begin + _AT_ONCE].tolist() for begin in range(0, len(passage_ids), _AT_ONCE)]
