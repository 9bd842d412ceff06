"""Statements about tenants: their limits, what they store, and the removal of collections and tenants.

A deletion has two parts. The first is one transaction that makes everything invisible: collections are marked as
deleted and lose their names, keys are removed. The second removes the documents of marked collections in small
transactions, so that other writers never wait long; after a crash the next start continues it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from collections.abc import Collection as SomeOf
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import msgspec
from sqlalchemy import Connection, Table, case, delete, func, literal, select, update

from ragsvc.core.documents import DocumentStatus
from ragsvc.core.ids import CollectionId, DocumentId, KeyId, TenantId
from ragsvc.store import conversation_rows, feedback_rows, file_rows, upload_rows
from ragsvc.store.engines import engine_of
from ragsvc.store.file_removal_rows import add_removal
from ragsvc.store.key_tables import IdempotencyRow, KeyAuditRow, KeyRow, TenantRow, UsageRow
from ragsvc.store.provider_rows import ProviderKeyRow
from ragsvc.store.response_rows import ResponseRow, delete_responses_of, has_responses
from ragsvc.store.tables import (
    CollectionRow,
    DocumentRow,
    EmbeddingRow,
    ExpiredStoreRow,
    FileRow,
    IndexLogRow,
    JobRow,
    PageRow,
    PassageRow,
    UploadRow,
    table_of,
)

_collections = table_of(CollectionRow)
_documents = table_of(DocumentRow)
_expired_stores = table_of(ExpiredStoreRow)
_files = table_of(FileRow)
_uploads = table_of(UploadRow)
_pages = table_of(PageRow)
_passages = table_of(PassageRow)
_embeddings = table_of(EmbeddingRow)
_index_log = table_of(IndexLogRow)
_jobs = table_of(JobRow)
_keys = cast("Table", KeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_audit = cast("Table", KeyAuditRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_usage = cast("Table", UsageRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_tenants = cast("Table", TenantRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_idempotency = cast("Table", IdempotencyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time
_responses = table_of(ResponseRow)
_provider_keys = cast("Table", ProviderKeyRow.__table__)  # type: ignore[attr-defined]  # SQLModel adds it at run time

_DELETED_ALONE = "deleted "
_DELETED_WITH_TENANT = "deleted tenant "
"""Beginnings of the names of collections that are being deleted, after a control character that no other name has."""

_not_deleted = _collections.c.deleted_at.is_(None)


class TenantLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may store; ``None`` means that the default of the service applies."""

    max_collections: int | None = None
    max_documents: int | None = None
    max_bytes: int | None = None


class TenantHoldings(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has.

    ``files`` did not come with a document. ``size_bytes`` is the size of all its files, and of the parts of uploads.
    """

    name: str
    keys: int
    collections: int
    documents: int
    files: int
    size_bytes: int
    limits: TenantLimits


class CollectionHoldings(msgspec.Struct, frozen=True, kw_only=True):
    """A collection with the number of its documents and their size."""

    id: CollectionId
    name: str
    documents: int
    ready: int
    passages: int
    size_bytes: int
    created_at: int


class RemovedAccess(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a tenant that its deletion removed at once."""

    key_ids: list[KeyId]
    provider_keys: int
    usage_rows: int
    audit_entries: int
    responses: int
    conversations: int
    feedback: int


class DoomedDocument(msgspec.Struct, frozen=True):
    """A document of a collection that is being deleted."""

    id: DocumentId
    public_id: str
    tenant: TenantId
    sha256: str
    size_bytes: int


class RemovedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of the rows that were removed with some documents, and the files that no document has any more."""

    pages: int
    passages: int
    vectors: int
    unused_files: list[tuple[TenantId, str]]


def tenant_names(connection: Connection) -> list[TenantId]:
    """Every tenant of which any row is left, in alphabetical order: also usage and audit entries of deleted keys."""
    names = select(_keys.c.tenant.label("name")).union(
        select(_collections.c.tenant).where(_not_deleted),
        select(_tenants.c.name),
        select(_expired_stores.c.tenant),
        select(_provider_keys.c.tenant),
        select(_responses.c.tenant),
        select(_usage.c.tenant),
        select(_audit.c.tenant).where(_audit.c.tenant != ""),
        select(_files.c.tenant).where(_files.c.deleted_at.is_(None)),
        select(_uploads.c.tenant),
        conversation_rows.select_tenants(),
        feedback_rows.select_feedback_tenants(),
    )
    return [TenantId(name) for name in connection.execute(names.order_by("name")).scalars()]


def tenant_holdings(connection: Connection, tenant: TenantId) -> TenantHoldings | None:
    """What a tenant has; ``None`` if it does not exist."""
    keys = connection.execute(select(func.count()).where(_keys.c.tenant == tenant)).scalar_one()
    collections = count_collections(connection, tenant)
    documents, _ = count_documents(connection, tenant)
    files = file_rows.count_uploaded_files(connection, tenant)
    size_bytes = stored_bytes(connection, tenant)
    limits = tenant_limits(connection, tenant)
    exists_itself = keys or collections or documents or files or size_bytes or limits is not None
    if not exists_itself and not _has_records(connection, tenant):
        return None
    return TenantHoldings(
        name=tenant,
        keys=keys,
        collections=collections,
        documents=documents,
        files=files,
        size_bytes=size_bytes,
        limits=limits or TenantLimits(),
    )


def _has_records(connection: Connection, tenant: TenantId) -> bool:
    """Whether a tenant without keys and documents has other rows, such as provider keys, responses or usage."""
    if (
        has_responses(connection, tenant)
        or conversation_rows.has_conversations(connection, tenant)
        or feedback_rows.has_feedback(connection, tenant)
    ):
        return True
    return any(
        connection.execute(select(literal(1)).where(condition).limit(1)).first() is not None
        for condition in (
            _provider_keys.c.tenant == tenant,
            _expired_stores.c.tenant == tenant,
            _usage.c.tenant == tenant,
            _audit.c.tenant == tenant,
            _uploads.c.tenant == tenant,
        )
    )


def count_collections(connection: Connection, tenant: TenantId) -> int:
    statement = select(func.count()).select_from(_collections).where(_collections.c.tenant == tenant, _not_deleted)
    return int(connection.execute(statement).scalar_one())


def count_documents(connection: Connection, tenant: TenantId) -> tuple[int, int]:
    """Number and bytes of a tenant's documents, without those that are being deleted with their collection."""
    collections = select(_collections.c.id).where(_collections.c.tenant == tenant, _not_deleted)
    statement = select(func.count(), func.coalesce(func.sum(_documents.c.size_bytes), 0)).where(
        _documents.c.collection_id.in_(collections)  # read from the index ``documents_by_collection`` alone
    )
    count, size_bytes = connection.execute(statement).one()
    return int(count), int(size_bytes)


def stored_bytes(connection: Connection, tenant: TenantId) -> int:
    """The bytes of a tenant's files and of the parts of its uploads.

    A file counts once, however many documents were made from it, and files with equal bytes count each.
    """
    return file_rows.file_bytes(connection, tenant) + upload_rows.pending_bytes(connection, tenant)


def tenant_limits(connection: Connection, tenant: TenantId) -> TenantLimits | None:
    """The limits that an operator set for a tenant; ``None`` if no limit was ever set."""
    row = connection.execute(select(_tenants).where(_tenants.c.name == tenant)).one_or_none()
    if row is None:
        return None
    return TenantLimits(max_collections=row.max_collections, max_documents=row.max_documents, max_bytes=row.max_bytes)


def set_tenant_limits(connection: Connection, tenant: TenantId, limits: TenantLimits, *, now: int) -> None:
    values = {**msgspec.structs.asdict(limits), "updated_at": now}
    connection.execute(engine_of(connection).upsert(_tenants, {"name": tenant, **values}, values))


def collection_holdings(connection: Connection, tenant: TenantId) -> list[CollectionHoldings]:
    """A tenant's collections with counts, in alphabetical order."""
    statement = (
        select(
            _collections.c.id,
            _collections.c.name,
            _collections.c.created_at,
            func.count(_documents.c.id).label("documents"),
            func.coalesce(func.sum(case((_documents.c.status == DocumentStatus.READY, 1), else_=0)), 0).label("ready"),
            func.coalesce(func.sum(_documents.c.passages_total), 0).label("passages"),
            func.coalesce(func.sum(_documents.c.size_bytes), 0).label("size_bytes"),
        )
        .join_from(_collections, _documents, _documents.c.collection_id == _collections.c.id, isouter=True)
        .where(_collections.c.tenant == tenant, _not_deleted)
        .group_by(_collections.c.id)
        .order_by(_collections.c.name)
    )
    return [CollectionHoldings(**row) for row in connection.execute(statement).mappings()]


def mark_collections_deleted(
    connection: Connection, tenant: TenantId, *, name: str | None = None, now: int
) -> list[CollectionId]:
    """Make one collection of a tenant, or all, invisible, and remove their jobs; the name can be used again at once.

    Returns:
        The ids of these collections.
    """
    statement = select(_collections.c.id).where(_collections.c.tenant == tenant, _not_deleted)
    mark = _DELETED_WITH_TENANT
    if name is not None:
        statement = statement.where(_collections.c.name == name)
        mark = _DELETED_ALONE
    ids = [CollectionId(row_id) for row_id in connection.execute(statement).scalars()]
    of_collections = select(_documents.c.id).where(_documents.c.collection_id.in_(ids))
    connection.execute(delete(_jobs).where(_jobs.c.document_id.in_(of_collections)))
    for collection_id in ids:
        connection.execute(
            update(_collections)
            .where(_collections.c.id == collection_id)
            .values(deleted_at=now, name=f"{engine_of(connection).mark}{mark}{collection_id}")
        )
    return ids


def deleted_tenants(connection: Connection, collections: SomeOf[CollectionId]) -> list[TenantId]:
    """The tenants of those collections that were deleted with their tenant."""
    statement = select(_collections.c.tenant, _collections.c.name).where(_collections.c.id.in_(collections))
    # compared here: LIKE ends a pattern at a NUL
    named = connection.execute(statement)
    beginning = engine_of(connection).mark + _DELETED_WITH_TENANT
    return sorted({TenantId(row.tenant) for row in named if row.name.startswith(beginning)})


def deleted_collections(connection: Connection) -> list[CollectionId]:
    """Collections whose deletion has begun and not ended."""
    statement = select(_collections.c.id).where(_collections.c.deleted_at.is_not(None)).order_by(_collections.c.id)
    return [CollectionId(row_id) for row_id in connection.execute(statement).scalars()]


def documents_of_collections(connection: Connection, collections: SomeOf[CollectionId]) -> list[DocumentId]:
    statement = select(_documents.c.id).where(_documents.c.collection_id.in_(collections))
    return [DocumentId(row_id) for row_id in connection.execute(statement).scalars()]


def doomed_documents(connection: Connection, collections: SomeOf[CollectionId], *, limit: int) -> list[DoomedDocument]:
    """At most ``limit`` documents of collections marked as deleted, oldest first."""
    marked = select(_collections.c.id).where(_collections.c.id.in_(collections), _collections.c.deleted_at.is_not(None))
    statement = (
        select(
            _documents.c.id, _documents.c.public_id, _documents.c.tenant, _documents.c.sha256, _documents.c.size_bytes
        )
        .where(_documents.c.collection_id.in_(marked))
        .order_by(_documents.c.id)
        .limit(limit)
    )
    return [
        DoomedDocument(DocumentId(row.id), row.public_id, TenantId(row.tenant), row.sha256, row.size_bytes)
        for row in connection.execute(statement)
    ]


def remove_documents(connection: Connection, ids: SomeOf[DocumentId], *, now: int) -> RemovedRows:
    """Remove documents with pages, passages, vectors and jobs, whose collections are removed as well.

    The removal of every file that no document has any more is noted in the same transaction. Such a file may have been
    removed before, but not if another document that had it was deleted in the meantime.
    """
    used = select(_documents.c.tenant, _documents.c.sha256).where(_documents.c.id.in_(ids)).distinct()
    files = [(TenantId(tenant), sha256) for tenant, sha256 in connection.execute(used)]
    pages = _count(connection, select(func.count()).where(_pages.c.document_id.in_(ids)))
    passages = _count(connection, select(func.count()).where(_passages.c.document_id.in_(ids)))
    of_passages = select(_passages.c.id).where(_passages.c.document_id.in_(ids))
    vectors = _count(connection, select(func.count()).where(_embeddings.c.passage_id.in_(of_passages)))
    file_ids = file_rows.implicit_files_of_documents(connection, ids)
    connection.execute(delete(_documents).where(_documents.c.id.in_(ids)))
    file_rows.delete_implicit_files_without_documents(connection, file_ids)
    unused = [(tenant, sha256) for tenant, sha256 in files if add_removal(connection, tenant, sha256, now=now)]
    return RemovedRows(pages=pages, passages=passages, vectors=vectors, unused_files=unused)


def remove_collections(connection: Connection, collections: SomeOf[CollectionId]) -> None:
    """Remove the rows and the index log of collections that have no documents left."""
    connection.execute(delete(_index_log).where(_index_log.c.collection_id.in_(collections)))
    connection.execute(
        delete(_collections).where(_collections.c.id.in_(collections), _collections.c.deleted_at.is_not(None))
    )


def remove_access(connection: Connection, tenant: TenantId) -> RemovedAccess:
    """Remove a tenant's keys with audit trail and usage, keys for providers, responses, feedback and limits.

    Its conversations are removed as well.

    Audit entries and usage of keys that were deleted before are removed as well.
    """
    key_ids = [KeyId(key) for key in connection.execute(select(_keys.c.id).where(_keys.c.tenant == tenant)).scalars()]
    of_tenant = select(_keys.c.id).where(_keys.c.tenant == tenant)
    present_and_former = of_tenant.union(
        select(_usage.c.key_id).where(_usage.c.tenant == tenant),
        select(_audit.c.key_id).where(_audit.c.tenant == tenant),
    )
    connection.execute(delete(_idempotency).where(_idempotency.c.owner.in_(present_and_former)))
    audited = (_audit.c.tenant == tenant) | _audit.c.key_id.in_(of_tenant)
    audit = connection.execute(delete(_audit).where(audited)).rowcount
    usage = connection.execute(delete(_usage).where((_usage.c.tenant == tenant) | _usage.c.key_id.in_(of_tenant)))
    connection.execute(delete(_keys).where(_keys.c.tenant == tenant))
    provider_keys = connection.execute(delete(_provider_keys).where(_provider_keys.c.tenant == tenant)).rowcount
    connection.execute(delete(_expired_stores).where(_expired_stores.c.tenant == tenant))
    connection.execute(delete(_tenants).where(_tenants.c.name == tenant))
    return RemovedAccess(
        key_ids=key_ids,
        provider_keys=provider_keys,
        usage_rows=usage.rowcount,
        audit_entries=audit,
        responses=delete_responses_of(connection, tenant),
        conversations=conversation_rows.delete_conversations_of(connection, tenant),
        feedback=feedback_rows.delete_feedback_of(connection, tenant),
    )


def copy_has_tenant(path: Path, tenant: TenantId, connect: Callable[[Path], sqlite3.Connection]) -> bool:
    """Whether a copy of the database, of any schema, names the tenant; ``False`` if it cannot be read."""
    with suppress(Exception), closing(connect(path)) as copy:  # either driver's errors
        tables = copy.execute(
            "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
            " WHERE m.type = 'table' AND c.name = 'tenant'"
        ).fetchall()
        for (table,) in tables:
            if copy.execute(f'SELECT 1 FROM "{table}" WHERE tenant = ? LIMIT 1', (tenant,)).fetchone():  # noqa: S608 - a name of the schema
                return True
    return False


def documents_for_export(
    connection: Connection, tenant: TenantId, *, after: int, limit: int
) -> Sequence[tuple[int, str]]:
    """(row id, public id) of a tenant's documents with ``row id > after``, ascending."""
    statement = (
        select(_documents.c.id, _documents.c.public_id)
        .join_from(_documents, _collections, _documents.c.collection_id == _collections.c.id)
        .where(_documents.c.tenant == tenant, _documents.c.id > after, _not_deleted)
        .order_by(_documents.c.id)
        .limit(limit)
    )
    return [(row.id, row.public_id) for row in connection.execute(statement)]


def _count(connection: Connection, statement: Any) -> int:  # noqa: ANN401 - a select of one number
    return int(connection.execute(statement).scalar_one())
