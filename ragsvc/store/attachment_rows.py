"""Statements about documents that are attached to other documents. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Exists, ScalarSelect, exists, select, update

from ragsvc.core.ids import DocumentId
from ragsvc.store.engines import engine_of
from ragsvc.store.tables import AttachmentRow, DocumentRow, table_of

_attachments = table_of(AttachmentRow)
_documents = table_of(DocumentRow)
_parents = _documents.alias("parents")


def parent_public_id() -> ScalarSelect[str]:
    """The public id of the first document that has a document attached, for a statement about ``documents``."""
    return (
        select(_parents.c.public_id)
        .join_from(_attachments, _parents, _attachments.c.parent_id == _parents.c.id)
        .where(_attachments.c.document_id == _documents.c.id)
        .order_by(_attachments.c.parent_id)
        .limit(1)
        .correlate(_documents)
        .scalar_subquery()
    )


def is_brought() -> Exists:
    """Whether a document exists only because it is attached, for a statement about ``documents``."""
    return (
        exists()
        .where(_attachments.c.document_id == _documents.c.id, _attachments.c.brought)
        .correlate_except(_attachments)
    )


def link(connection: Connection, parent_id: DocumentId, document_id: DocumentId, *, brought: bool) -> None:
    """Note that a document is attached to ``parent_id``; does nothing if it is known already."""
    statement = engine_of(connection).insert_or_ignore(_attachments)
    connection.execute(statement.values(parent_id=parent_id, document_id=document_id, brought=brought))


def attached_to(connection: Connection, parent_ids: Sequence[DocumentId]) -> list[DocumentId]:
    """The documents attached to any of these."""
    statement = select(_attachments.c.document_id).where(_attachments.c.parent_id.in_(parent_ids)).distinct()
    return [DocumentId(row_id) for (row_id,) in connection.execute(statement)]


def parents_of(connection: Connection, document_ids: Sequence[DocumentId]) -> list[DocumentId]:
    """The documents that any of these is attached to."""
    statement = select(_attachments.c.parent_id).where(_attachments.c.document_id.in_(document_ids)).distinct()
    return [DocumentId(row_id) for (row_id,) in connection.execute(statement)]


def mark_uploaded(connection: Connection, document_id: DocumentId) -> None:
    """Note that a document was also uploaded itself, so that it outlives those that it is attached to."""
    connection.execute(update(_attachments).where(_attachments.c.document_id == document_id).values(brought=False))


def only_attached_to(connection: Connection, parent_id: DocumentId) -> list[str]:
    """Public ids of the documents that exist only because they are attached to ``parent_id``."""
    other = _attachments.alias("other")
    statement = (
        select(_documents.c.public_id)
        .join_from(_attachments, _documents, _attachments.c.document_id == _documents.c.id)
        .where(
            _attachments.c.parent_id == parent_id,
            _documents.c.id != parent_id,
            _attachments.c.brought,
            ~exists().where(other.c.document_id == _documents.c.id, other.c.parent_id != parent_id),
        )
        .order_by(_documents.c.id)
    )
    return [public_id for (public_id,) in connection.execute(statement)]
