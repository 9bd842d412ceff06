"""Statements that change a stored document's name and metadata. Callers own the transaction.

The file name is part of what is indexed for words and of what is embedded. A rename therefore logs an ``update`` for
the word index and queues new vectors, both in its own transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection, update

from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.core.ids import TenantId
from ragsvc.core.text.chunking import document_name, lexical_context
from ragsvc.store.document_rows import get_document
from ragsvc.store.file_rows import rename_implicit_file
from ragsvc.store.index_log_rows import append_change, passage_ids_of_document
from ragsvc.store.job_rows import enqueue_renewal
from ragsvc.store.serving_model import serving_model
from ragsvc.store.tables import DocumentRow, table_of
from ragsvc.store.vector_rows import delete_vectors

_documents = table_of(DocumentRow)


def change_document(
    connection: Connection,
    tenant: TenantId,
    public_id: str,
    *,
    filename: str | None,
    change_metadata: Callable[[dict[str, Any]], dict[str, Any]] | None,
    now: int,
) -> Document:
    """Change name or metadata. Raises ``DocumentNotFound``."""
    current = get_document(connection, tenant, public_id)
    values: dict[str, Any] = {"updated_at": now}
    if filename is not None:
        values["filename"] = filename
    if change_metadata is not None:
        values["metadata"] = msgspec.json.encode(change_metadata(current.metadata))
    connection.execute(update(_documents).where(_documents.c.id == current.id).values(**values))
    if filename is not None:
        rename_implicit_file(connection, current.id, filename)
    changed = get_document(connection, tenant, public_id)
    _follow_rename(connection, current, changed, now=now)
    return changed


def _follow_rename(connection: Connection, before: Document, after: Document, *, now: int) -> None:
    """Make search follow a new name; of an unfinished document, the vectors made with the former name are dropped.

    The indexes drop them as well: ``update`` covers missing vectors. Of a ready document, vectors of the serving model
    stay until the queued job has replaced them: the document remains searchable by meaning. Other models' vectors are
    deleted, so that a change of the model embeds these passages again.
    """
    words_differ = _words(before) != _words(after)
    name_differs = _name(before) != _name(after)
    if after.is_searchable and (words_differ or name_differs):
        append_change(connection, after, "update", passage_ids_of_document(connection, after.id))
    if after.status is DocumentStatus.READY:
        if name_differs and after.passages_total:
            serving = serving_model(connection)
            if serving is not None:
                delete_vectors(connection, after.id, except_model=serving.id)
            enqueue_renewal(connection, after, now=now)
    elif name_differs:
        delete_vectors(connection, after.id)
        connection.execute(update(_documents).where(_documents.c.id == after.id).values(passages_done=0))


def _words(document: Document) -> str:
    return lexical_context(document.title, document.filename, ())


def _name(document: Document) -> str:
    return document_name(document.title, document.filename)
