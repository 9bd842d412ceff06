"""Which documents searches find: ready ones, and those whose words are searchable before all vectors are stored."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, or_

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.store.index_log_rows import append_change, passage_ids_of_document
from ragsvc.store.tables import DocumentRow, PassageRow, table_of

_documents = table_of(DocumentRow)
_passages = table_of(PassageRow)

is_searchable: Final[ColumnElement[bool]] = or_(
    _documents.c.status == DocumentStatus.READY, _documents.c.stage == Stage.SEARCHABLE
)
"""The condition of ``Document.is_searchable``."""


def remove_from_search(connection: Connection, document: Document) -> None:
    """Log the removal of a searchable document's passages, before their rows are deleted."""
    if document.is_searchable:
        append_change(connection, document, "delete", passage_ids_of_document(connection, document.id))
