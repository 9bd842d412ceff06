"""Statements about the index log: what the derived indexes must do to follow the rows.

Entries are written in the transaction that makes the change. Callers own the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from sqlalchemy import Connection, delete, func, insert, select

from ragsvc.core.documents import Document
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.indexes import IndexChange, IndexOperation
from ragsvc.store.engines import engine_of
from ragsvc.store.tables import IndexLogRow, PassageRow, ServiceStateRow, table_of

_passages = table_of(PassageRow)
_index_log = table_of(IndexLogRow)
_state = table_of(ServiceStateRow)

_PRUNED = "index_log_pruned:{}"


def append_change(
    connection: Connection, document: Document, operation: IndexOperation, passage_ids: Sequence[PassageId]
) -> None:
    """Log a change of passages of one document; without passages there is nothing to log."""
    append_changes(connection, operation, [(document, passage_ids)])


def append_changes(
    connection: Connection, operation: IndexOperation, changes: Iterable[tuple[Document, Sequence[PassageId]]]
) -> None:
    """Log the same change of several documents, each with its passages; see ``append_change``."""
    rows = [
        {
            "collection_id": document.collection_id,
            "op": operation,
            "document_id": document.id,
            "passage_ids": np.array(passage_ids, dtype="<i8").tobytes(),
        }
        for document, passage_ids in changes
        if passage_ids
    ]
    if rows:
        connection.execute(insert(_index_log), rows)


def passage_ids_of_document(connection: Connection, document_id: DocumentId) -> list[PassageId]:
    """Ids of a document's passages, ascending."""
    statement = select(_passages.c.id).where(_passages.c.document_id == document_id).order_by(_passages.c.id)
    return [PassageId(passage_id) for passage_id in connection.execute(statement).scalars()]


def last_position(connection: Connection, collection_id: int) -> int:
    """Last ``seq`` of a collection's log; 0 if the log is empty."""
    statement = select(func.max(_index_log.c.seq)).where(_index_log.c.collection_id == collection_id)
    return int(connection.execute(statement).scalar_one() or 0)


def pruned_up_to(connection: Connection, collection_id: int) -> int:
    """The position up to which entries of a collection may be missing; 0 if none were pruned."""
    statement = select(_state.c.value).where(_state.c.name == _PRUNED.format(collection_id))
    return int(connection.execute(statement).scalar_one_or_none() or 0)


def prune_log(connection: Connection, collection_id: int, up_to: int) -> int:
    """Remove entries up to and including ``up_to``; returns how many. The last entry stays: it is the log's position.

    An index that lacks some of them is built from the rows (``pruned_up_to``).
    """
    last = last_position(connection, collection_id)
    up_to = min(up_to, last)
    if up_to <= pruned_up_to(connection, collection_id):
        return 0
    old = (_index_log.c.collection_id == collection_id, _index_log.c.seq <= up_to, _index_log.c.seq < last)
    removed = connection.execute(delete(_index_log).where(*old)).rowcount
    values = {"name": _PRUNED.format(collection_id), "value": up_to}
    connection.execute(engine_of(connection).upsert(_state, values, {"value": up_to}))
    return removed


def changes_after(connection: Connection, collection_id: int, seq: int, limit: int) -> list[IndexChange]:
    """At most ``limit`` log entries of a collection beyond ``seq``, oldest first."""
    statement = (
        select(_index_log)
        .where(_index_log.c.collection_id == collection_id, _index_log.c.seq > seq)
        .order_by(_index_log.c.seq)
        .limit(limit)
    )
    return [
        IndexChange(seq=row.seq, op=row.op, document_id=row.document_id, passage_ids=row.passage_ids)
        for row in connection.execute(statement)
    ]
