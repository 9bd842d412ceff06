"""Statements about files to remove because their last document was deleted. Callers own the transaction."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, exists, select
from sqlalchemy.dialects.sqlite import insert

from ragsvc.core.ids import TenantId
from ragsvc.store.tables import CollectionRow, DocumentRow, FileRemovalRow, table_of

_collections = table_of(CollectionRow)
_documents = table_of(DocumentRow)
_removals = table_of(FileRemovalRow)


class FileRemoval(msgspec.Struct, frozen=True):
    """A file to remove; ``created_at``: when its last document was deleted, in Unix seconds."""

    tenant: TenantId
    sha256: str
    created_at: int


def is_used(connection: Connection, tenant: TenantId, sha256: str, *, ignore_doomed: bool = False) -> bool:
    """Whether a document has this file; with ``ignore_doomed``, one of a collection that is not being deleted."""
    condition = exists().where(_documents.c.tenant == tenant, _documents.c.sha256 == sha256)
    if ignore_doomed:
        condition = condition.where(
            _documents.c.collection_id == _collections.c.id, _collections.c.deleted_at.is_(None)
        )
    return bool(connection.execute(select(condition)).scalar_one())


def add_removal(connection: Connection, tenant: TenantId, sha256: str, *, now: int) -> bool:
    """Note that a file is to be removed, unless a document has it; returns whether it is to be removed."""
    if is_used(connection, tenant, sha256):
        return False
    statement = insert(_removals).values(tenant=tenant, sha256=sha256, created_at=now)
    connection.execute(statement.on_conflict_do_nothing())
    return True


def forget_removal(connection: Connection, tenant: TenantId, sha256: str) -> None:
    """The file was removed, or a document has it again."""
    connection.execute(delete(_removals).where(_removals.c.tenant == tenant, _removals.c.sha256 == sha256))


def list_removals(connection: Connection) -> list[FileRemoval]:
    """Every file that is still to be removed and that no document has."""
    used = exists().where(_documents.c.tenant == _removals.c.tenant, _documents.c.sha256 == _removals.c.sha256)
    rows = connection.execute(select(_removals).where(~used))
    return [FileRemoval(TenantId(row.tenant), row.sha256, row.created_at) for row in rows]
