"""Statements about collections as vector stores: look up by public id. Callers own the transaction."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ragsvc.core.documents import Collection
from ragsvc.core.errors import VectorStoreNotFound
from ragsvc.core.ids import TenantId
from ragsvc.store.document_rows import collection_of
from ragsvc.store.tables import CollectionRow, table_of

_collections = table_of(CollectionRow)


def find_store(connection: Connection, tenant: TenantId, public_id: str) -> Collection:
    """The tenant's collection with this public id.

    Raises:
        VectorStoreNotFound: the tenant has no such vector store, or it has expired.
    """
    statement = select(_collections).where(
        _collections.c.public_id == public_id,
        _collections.c.tenant == tenant,
        _collections.c.deleted_at.is_(None),
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise VectorStoreNotFound(f"There is no vector store '{public_id[:100]}'.", param="vector_store_id")
    return collection_of(row)
