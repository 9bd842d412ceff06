"""Which documents searches find: ready ones, and those whose words are searchable before all vectors are stored."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import ColumnElement, Connection, or_, select

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.store.index_log_rows import append_change, passage_ids_of_document
from ragsvc.store.tables import CollectionRow, DocumentRow, table_of

_documents = table_of(DocumentRow)
_collections = table_of(CollectionRow)

is_searchable: Final[ColumnElement[bool]] = or_(
    _documents.c.status == DocumentStatus.READY, _documents.c.stage == Stage.SEARCHABLE
)
"""The condition of ``Document.is_searchable``."""


def being_ingested(connection: Connection, document_ids: Collection[int]) -> dict[int, tuple[str, str | None]]:
    """File name and title, by id, of those documents that are being ingested and not searchable yet.

    Deleted documents are missing.
    """
    statement = (
        select(_documents.c.id, _documents.c.filename, _documents.c.title)
        .join(_collections, _collections.c.id == _documents.c.collection_id)
        .where(
            _documents.c.id.in_(document_ids),
            _documents.c.status == DocumentStatus.PROCESSING,
            ~is_searchable,
            _collections.c.deleted_at.is_(None),
        )
    )
    return {row.id: (row.filename, row.title) for row in connection.execute(statement)}


def remove_from_search(connection: Connection, document: Document) -> None:
    """Log the removal of a searchable document's passages, before their rows are deleted."""
    if document.is_searchable:
        append_change(connection, document, "delete", passage_ids_of_document(connection, document.id))
