"""Statements about vector stores: collections with a public id, and stores that have expired.

Callers own the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, case, delete, func, insert, literal, select, update

from ragsvc.core.documents import Collection
from ragsvc.core.errors import VectorStoreNotFound
from ragsvc.core.ids import CollectionId, TenantId, new_store_id
from ragsvc.core.vector_stores import SECONDS_PER_DAY, VectorStore
from ragsvc.store import store_file_rows, tenant_rows
from ragsvc.store.document_rows import collection_of
from ragsvc.store.tables import AnyRow, CollectionRow, ExpiredStoreRow, table_of

_collections = table_of(CollectionRow)
_expired = table_of(ExpiredStoreRow)
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_COPIED = ("tenant", "name", "display_name", "description", "metadata", "created_at", "expires_after_days")
_ALL = 1_000_000
_present = _collections.c.deleted_at.is_(None)


class NewStore(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a vector store to insert. ``collection`` is a free name of the tenant."""

    public_id: str
    collection: str
    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, Any] = {}
    expires_after_days: int | None = None


def find_store(connection: Connection, tenant: TenantId, public_id: str) -> Collection:
    """The tenant's collection with this public id.

    Raises:
        VectorStoreNotFound: the tenant has no such vector store, or it has expired.
    """
    statement = select(_collections).where(
        _collections.c.public_id == public_id, _collections.c.tenant == tenant, _present
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise not_found(public_id, expired=_expired_row(connection, tenant, public_id) is not None)
    return collection_of(row)


def expiry_of(connection: Connection, store_id: CollectionId) -> tuple[int, int] | None:
    """When a store was last used, and after how many days without use it expires; ``None`` if it does not expire."""
    columns = (_collections.c.last_active_at, _collections.c.expires_after_days)
    row = connection.execute(select(*columns).where(_collections.c.id == store_id)).one_or_none()
    return None if row is None or row.expires_after_days is None else (row.last_active_at, row.expires_after_days)


def not_found(public_id: str, *, expired: bool = False) -> VectorStoreNotFound:
    """The error for a vector store that does not exist for the caller."""
    shown = public_id[:100]
    message = f"The vector store '{shown}' has expired." if expired else f"There is no vector store '{shown}'."
    return VectorStoreNotFound(message, param="vector_store_id")


def load_store(connection: Connection, tenant: TenantId, public_id: str) -> VectorStore:
    """A vector store with its counts, also one that has expired. Raises ``VectorStoreNotFound``."""
    statement = select(_collections).where(
        _collections.c.public_id == public_id, _collections.c.tenant == tenant, _present
    )
    row = connection.execute(statement).one_or_none()
    if row is not None:
        return _store(connection, row)
    row = _expired_row(connection, tenant, public_id)
    if row is None:
        raise not_found(public_id)
    return _expired_store(row)


def list_stores(
    connection: Connection,
    tenant: TenantId,
    *,
    collections: Sequence[str] = (),
    limit: int,
    after: str | None = None,
    before: str | None = None,
    descending: bool = True,
) -> tuple[list[VectorStore], bool]:
    """One page of a tenant's vector stores in order of creation, and whether more follow.

    ``collections`` are the names that the caller may see; all if empty.

    Raises:
        VectorStoreNotFound: the store ``after`` or ``before`` does not exist.
    """
    backwards = before is not None
    ascending = descending if backwards else not descending
    cursor = before if backwards else after
    place = None if cursor is None else load_store(connection, tenant, cursor).id
    found: list[AnyRow] = []
    for table in (_collections, _expired):
        statement = select(table, literal(table is _expired).label("expired")).where(table.c.tenant == tenant)
        if table is _collections:
            statement = statement.where(_present)
        if collections:
            statement = statement.where(table.c.name.in_(collections))
        if place is not None:
            statement = statement.where(table.c.id > place if ascending else table.c.id < place)
        found += connection.execute(statement.order_by(table.c.id if ascending else table.c.id.desc()).limit(limit + 1))
    found.sort(key=lambda row: row.id, reverse=not ascending)
    page, more = found[:limit], len(found) > limit
    stores = [_expired_store(row) if row.expired else _store(connection, row) for row in page]
    return (stores[::-1] if backwards else stores), more


class ExportedStore(msgspec.Struct, frozen=True):
    """A vector store, and (id of a file, id of its document) for each of its files."""

    store: VectorStore
    files: list[tuple[str, str]]


def stores_for_export(connection: Connection, tenant: TenantId) -> list[ExportedStore]:
    """All vector stores of a tenant, oldest first."""
    stores, _ = list_stores(connection, tenant, limit=_ALL, descending=False)
    return [ExportedStore(store, store_file_rows.documents_of_files(connection, store.id)) for store in stores]


def _store(connection: Connection, row: AnyRow) -> VectorStore:
    counts, usage_bytes = store_file_rows.count_files(connection, CollectionId(row.id))
    return VectorStore(
        id=CollectionId(row.id),
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        collection=row.name,
        name=row.display_name,
        description=row.description,
        metadata=_metadata(row),
        created_at=row.created_at,
        last_active_at=row.created_at if row.last_active_at is None else row.last_active_at,
        expires_after_days=row.expires_after_days,
        counts=counts,
        usage_bytes=usage_bytes,
    )


def _expired_row(connection: Connection, tenant: TenantId, public_id: str) -> AnyRow | None:
    statement = select(_expired).where(_expired.c.public_id == public_id, _expired.c.tenant == tenant)
    return connection.execute(statement).one_or_none()


def _expired_store(row: AnyRow) -> VectorStore:
    return VectorStore(
        id=CollectionId(row.id),
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        collection=row.name,
        name=row.display_name,
        description=row.description,
        metadata=_metadata(row),
        created_at=row.created_at,
        last_active_at=row.last_active_at,
        expires_after_days=row.expires_after_days,
        expired=True,
    )


def _metadata(row: AnyRow) -> Mapping[str, Any]:
    return {} if row.metadata is None else _decode_object(row.metadata)


def insert_store(connection: Connection, tenant: TenantId, new: NewStore, *, now: int) -> None:
    """Insert a collection with the values of a vector store."""
    expires_at = None if new.expires_after_days is None else now + new.expires_after_days * SECONDS_PER_DAY
    values = {
        "tenant": tenant,
        "name": new.collection,
        "created_at": now,
        "public_id": new.public_id,
        "display_name": new.name,
        "description": new.description,
        "metadata": msgspec.json.encode(new.metadata),
        "last_active_at": now,
        "expires_after_days": new.expires_after_days,
        "expires_at": expires_at,
    }
    connection.execute(insert(_collections).values(**values))


def change_store(connection: Connection, store_id: CollectionId, values: Mapping[str, Any], *, now: int) -> None:
    """Change ``display_name``, ``description``, ``metadata`` (an object) or ``expires_after_days``; this is a use."""
    changed = dict(values)
    if "metadata" in changed:
        changed["metadata"] = msgspec.json.encode(changed["metadata"])
    connection.execute(update(_collections).where(_collections.c.id == store_id).values(**changed))
    note_use(connection, {store_id: now})


def note_use(connection: Connection, used: Mapping[CollectionId, int]) -> None:
    """Write when collections were last used, which moves their expiry."""
    for collection_id, time in used.items():
        known = func.coalesce(_collections.c.last_active_at, 0)
        latest = case((known < time, time), else_=known)
        expiry = latest + _collections.c.expires_after_days * SECONDS_PER_DAY
        connection.execute(
            update(_collections)
            .where(_collections.c.id == collection_id)
            .values(last_active_at=latest, expires_at=case((_collections.c.expires_after_days.is_not(None), expiry)))
        )


def is_anything_due(connection: Connection, *, now: int, expired_before: int) -> bool:
    """Whether the time of a vector store is over, or one that expired before a time is still known."""
    due = select(literal(1)).where(_collections.c.expires_at <= now, _present).limit(1)
    known = select(literal(1)).where(_expired.c.expired_at < expired_before).limit(1)
    return any(connection.execute(statement).first() is not None for statement in (due, known))


def expire_stores(connection: Connection, *, now: int) -> list[tuple[TenantId, CollectionId]]:
    """Mark the collections of stores whose time is over as deleted, and keep what clients still see of the stores.

    The name can be used again at once. The caller removes the documents as of every deleted collection.
    """
    due = select(_collections).where(_collections.c.expires_at <= now, _present)
    ended: list[tuple[TenantId, CollectionId]] = []
    for row in connection.execute(due).all():
        values = {name: getattr(row, name) for name in _COPIED}
        connection.execute(update(_collections).where(_collections.c.id == row.id).values(public_id=new_store_id()))
        connection.execute(
            insert(_expired).values(
                id=row.id,
                public_id=row.public_id,
                last_active_at=row.last_active_at,
                expired_at=row.expires_at,
                **values,
            )
        )
        tenant_rows.mark_collections_deleted(connection, TenantId(row.tenant), name=row.name, now=now)
        ended.append((TenantId(row.tenant), CollectionId(row.id)))
    return ended


def delete_expired_store(connection: Connection, tenant: TenantId, public_id: str) -> None:
    """Forget a vector store that has expired."""
    connection.execute(delete(_expired).where(_expired.c.public_id == public_id, _expired.c.tenant == tenant))


def forget_expired_stores(connection: Connection, *, expired_before: int) -> None:
    """Forget the vector stores of all tenants that expired before a time."""
    connection.execute(delete(_expired).where(_expired.c.expired_at < expired_before))
