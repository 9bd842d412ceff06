"""Statements that embed all documents again without parsing their files again."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, literal, select, update

from ragsvc.core.documents import DocumentStatus, Stage
from ragsvc.store.tables import CollectionRow, DocumentRow, EmbeddingRow, JobRow, table_of

_collections = table_of(CollectionRow)
_documents = table_of(DocumentRow)
_embeddings = table_of(EmbeddingRow)
_jobs = table_of(JobRow)


def forget_embeddings(connection: Connection, *, now: int) -> int:
    """Delete all vectors and queue every ready document for new ones; returns the number of these documents.

    Their words stay searchable. The caller deletes the indexes, which do not follow this change. Documents of
    collections that are being deleted are left out.
    A crash afterwards loses nothing: jobs are rows, and passages are kept.
    """
    connection.execute(delete(_embeddings))
    deleted = select(_collections.c.id).where(_collections.c.deleted_at.is_not(None))
    which = (
        (_documents.c.status == DocumentStatus.READY)
        & (_documents.c.passages_total > 0)
        & _documents.c.collection_id.not_in(deleted)
    )
    queued = select(_documents.c.id, _documents.c.tenant, literal("queued"), literal(0), literal(now)).where(which)
    ready = select(_documents.c.id).where(_documents.c.status == DocumentStatus.READY)
    connection.execute(delete(_jobs).where(_jobs.c.document_id.in_(ready)))  # renewals of vectors that are deleted now
    connection.execute(insert(_jobs).from_select(["document_id", "tenant", "state", "attempts", "created_at"], queued))
    return connection.execute(
        update(_documents)
        .where(which)
        .values(status=DocumentStatus.QUEUED, stage=Stage.SEARCHABLE, passages_done=0, updated_at=now)
    ).rowcount


def unfinished_jobs(connection: Connection) -> tuple[int, int]:
    """(queued and running jobs, passages of their documents without a vector)."""
    left = func.coalesce(func.sum(_documents.c.passages_total - _documents.c.passages_done), 0)
    row = connection.execute(
        select(func.count(), left).select_from(_jobs.join(_documents, _documents.c.id == _jobs.c.document_id))
    ).one()
    return int(row[0]), int(row[1])
