"""Statements about stored files to remove because nothing refers to them any more. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, or_, select

from ragsvc.core.ids import TenantId
from ragsvc.store.driver_statement import DriverStatement
from ragsvc.store.engines import engine_of
from ragsvc.store.tables import CollectionRow, DocumentRow, FileRemovalRow, FileRow, UploadPartRow, table_of

_collections = table_of(CollectionRow)
_documents = table_of(DocumentRow)
_files = table_of(FileRow)
_parts = table_of(UploadPartRow)
_removals = table_of(FileRemovalRow)
_forget = DriverStatement(
    delete(_removals).where(_removals.c.tenant == bindparam("tenant"), _removals.c.sha256 == bindparam("sha256"))
)


class FileRemoval(msgspec.Struct, frozen=True):
    """A file to remove; ``created_at``: when its last document was deleted, in Unix seconds."""

    tenant: TenantId
    sha256: str
    created_at: int


def is_used(connection: Connection, tenant: TenantId, sha256: str, *, ignore_doomed: bool = False) -> bool:
    """Whether a document, a file or a part of an upload has these bytes.

    ``ignore_doomed``: documents of a collection that is being deleted and files that are being deleted do not count.
    """
    documents = exists().where(_documents.c.tenant == tenant, _documents.c.sha256 == sha256)
    # the document of an implicit file counts, and tells whether it is being deleted
    files = exists().where(_files.c.tenant == tenant, _files.c.sha256 == sha256, _files.c.implicit.is_(False))
    parts = exists().where(_parts.c.tenant == tenant, _parts.c.sha256 == sha256)
    if ignore_doomed:
        documents = documents.where(
            _documents.c.collection_id == _collections.c.id, _collections.c.deleted_at.is_(None)
        )
        files = files.where(_files.c.deleted_at.is_(None))
    return any(connection.execute(select(condition)).scalar_one() for condition in (documents, files, parts))


def add_removal(connection: Connection, tenant: TenantId, sha256: str, *, now: int) -> bool:
    """Note that a stored file is to be removed, unless it is used; returns whether it is to be removed."""
    if is_used(connection, tenant, sha256):
        return False
    statement = engine_of(connection).insert_or_ignore(_removals)
    connection.execute(statement.values(tenant=tenant, sha256=sha256, created_at=now))
    return True


def forget_removal(connection: Connection, tenant: TenantId, sha256: str) -> None:
    """The file was removed, or a document has it again."""
    _forget.run(connection, tenant=tenant, sha256=sha256).close()


def forget_removals(connection: Connection, tenant: TenantId, digests: Sequence[str]) -> None:
    """``forget_removal`` for some hundred files."""
    connection.execute(delete(_removals).where(_removals.c.tenant == tenant, _removals.c.sha256.in_(digests)))


def list_removals(connection: Connection) -> list[FileRemoval]:
    """Every file that is still to be removed and that nothing refers to."""
    used = or_(
        *(
            exists().where(table.c.tenant == _removals.c.tenant, table.c.sha256 == _removals.c.sha256)
            for table in (_documents, _files, _parts)
        )
    )
    rows = connection.execute(select(_removals).where(~used))
    return [FileRemoval(TenantId(row.tenant), row.sha256, row.created_at) for row in rows]
