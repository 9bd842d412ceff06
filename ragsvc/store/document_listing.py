"""Statements that list and count a tenant's documents, and find changed documents. Callers own the transaction."""

from __future__ import annotations

import itertools
from collections.abc import Collection as SomeOf
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, assert_never

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.core.ids import CollectionId, DocumentId, TenantId
from ragsvc.core.retrieval.filters import Filter, matches
from ragsvc.store import attachment_rows
from ragsvc.store.document_rows import document_of, get_document, select_documents
from ragsvc.store.engines.constructs import part_before
from ragsvc.store.tables import CollectionRow, DocumentRow, table_of

_documents = table_of(DocumentRow)
_collections = table_of(CollectionRow)

_plain_type = func.lower(part_before(_documents.c.media_type, ";"))
"""The type of a text may have a ``charset`` parameter."""

_filtered_columns = (_documents.c.metadata, _documents.c.filename, _documents.c.created_at)
"""What a filter on metadata reads."""

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class DocumentOrder(StrEnum):
    """What a listing is sorted by; documents with the same value follow in the order of their creation."""

    CREATED = "created"
    UPDATED = "updated"
    NAME = "name"
    PAGES = "pages"
    BYTES = "bytes"
    STATUS = "status"


class DocumentFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions of a listing; defaults match every document. ``collections`` are those that the key may use."""

    statuses: tuple[DocumentStatus, ...] = ()
    media_types: tuple[str, ...] = ()
    filename_contains: str | None = None
    collection_id: CollectionId | None = None
    collections: tuple[str, ...] = ()
    metadata: Filter | None = None
    attached_to: DocumentId | None = None


class DocumentCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many documents match a filter, by status and by media type; both are empty if none does."""

    total: int = 0
    by_status: dict[str, int] = {}
    by_media_type: dict[str, int] = {}


def list_documents(
    connection: Connection,
    tenant: TenantId,
    *,
    which: DocumentFilter,
    limit: int,
    after: str | None = None,
    before: str | None = None,
    descending: bool = True,
    order: DocumentOrder = DocumentOrder.CREATED,
) -> tuple[list[Document], bool]:
    """One page of a listing, and whether more documents follow.

    The page begins after the document with public id ``after``, or ends before ``before``, at their present places.

    Raises:
        DocumentNotFound: that document does not exist, or no longer.
    """
    backwards = before is not None
    ascending = descending if backwards else not descending
    key = _sort_key(order)
    public_id = before if backwards else after
    cursor = None if public_id is None else _place(connection, get_document(connection, tenant, public_id).id, key)
    joined = _documents.join(_collections, _documents.c.collection_id == _collections.c.id)
    found = (
        select(_documents.c.id, *(() if which.metadata is None else _filtered_columns))
        .select_from(joined)
        .where(_documents.c.tenant == tenant, _collections.c.deleted_at.is_(None), *_conditions(connection, which))
    )
    if cursor is not None:
        found = found.where(_follows(key, cursor, ascending=ascending))
    columns = (_order_of_creation(which),) if order is DocumentOrder.CREATED else (key, _documents.c.id)
    found = found.order_by(*(column if ascending else column.desc() for column in columns))
    ids = _first_ids(connection, found, which.metadata, limit + 1)
    documents = {
        row.id: document_of(row) for row in connection.execute(select_documents.where(_documents.c.id.in_(ids)))
    }
    page, more = [documents[document_id] for document_id in ids[:limit]], len(ids) > limit
    return (page[::-1] if backwards else page), more


def _first_ids(connection: Connection, found: Select[Any], condition: Filter | None, count: int) -> list[int]:
    """The first rows of a statement whose metadata fulfil a condition.

    They are read in one pass: most of a sorted list would be sorted again for each part of it.
    """
    if condition is None:
        return list(connection.execute(found.limit(count)).scalars())
    with connection.execute(found) as rows:
        fitting = (
            row.id
            for row in rows
            if matches(condition, _decode_object(row.metadata), filename=row.filename, created_at=row.created_at)
        )
        return list(itertools.islice(fitting, count))


def _order_of_creation(which: DocumentFilter) -> ColumnElement[Any]:
    """The row id; where few documents match, an expression, so that SQLite finds them by the index of states.

    It prefers the index that has the order, and reads all documents of the tenant.
    """
    is_selective = which.statuses and DocumentStatus.READY not in which.statuses
    return _documents.c.id + 0 if is_selective else _documents.c.id


def _sort_key(order: DocumentOrder) -> ColumnElement[Any]:
    match order:
        case DocumentOrder.CREATED:
            return _documents.c.id
        case DocumentOrder.UPDATED:
            return _documents.c.updated_at
        case DocumentOrder.NAME:
            return func.lower(_documents.c.filename)
        case DocumentOrder.PAGES:
            return _documents.c.pages_total
        case DocumentOrder.BYTES:
            return _documents.c.size_bytes
        case DocumentOrder.STATUS:
            return _documents.c.status
        case _:
            assert_never(order)


def _place(connection: Connection, document_id: DocumentId, key: ColumnElement[Any]) -> tuple[Any, int]:
    """The value of the sort key of a document, and its row id."""
    value = connection.execute(select(key).where(_documents.c.id == document_id)).scalar_one()
    return value, document_id


def _follows(key: ColumnElement[Any], place: tuple[Any, int], *, ascending: bool) -> ColumnElement[bool]:
    value, row_id = place
    if ascending:
        return or_(key > value, (key == value) & (_documents.c.id > row_id))
    return or_(key < value, (key == value) & (_documents.c.id < row_id))


def _conditions(connection: Connection, which: DocumentFilter) -> list[Any]:
    conditions: list[Any] = []
    if which.statuses:
        conditions.append(_documents.c.status.in_(which.statuses))
    if which.media_types:
        conditions.append(_plain_type.in_(which.media_types))
    if which.collection_id is not None:
        conditions.append(_documents.c.collection_id == which.collection_id)
    if which.collections:
        conditions.append(_collections.c.name.in_(which.collections))
    if which.attached_to is not None:
        conditions.append(_documents.c.id.in_(attachment_rows.attached_to(connection, [which.attached_to])))
    if which.filename_contains:
        conditions.append(_documents.c.filename.icontains(which.filename_contains, autoescape=True))
    return conditions


def count_documents_by_kind(connection: Connection, tenant: TenantId, *, which: DocumentFilter) -> DocumentCounts:
    """Count the documents that a listing with this filter has. A filter on metadata reads every document's metadata."""
    by_status: dict[str, int] = {}
    by_media_type: dict[str, int] = {}
    for status, media_type, count in _counted(connection, tenant, which):
        by_status[status] = by_status.get(status, 0) + count
        plain = media_type.partition(";")[0]
        by_media_type[plain] = by_media_type.get(plain, 0) + count
    return DocumentCounts(
        total=sum(by_status.values()),
        by_status=dict(sorted(by_status.items())),
        by_media_type=dict(sorted(by_media_type.items())),
    )


def _counted(connection: Connection, tenant: TenantId, which: DocumentFilter) -> Iterator[tuple[str, str, int]]:
    """Status, media type and number of documents."""
    join = _documents.join(_collections, _documents.c.collection_id == _collections.c.id)
    belongs = (_documents.c.tenant == tenant, _collections.c.deleted_at.is_(None), *_conditions(connection, which))
    kinds = (_documents.c.status, _documents.c.media_type)
    if which.metadata is None:
        statement = select(*kinds, func.count()).select_from(join).where(*belongs).group_by(*kinds)
        for status, media_type, count in connection.execute(statement):
            yield status, media_type, count
        return
    for status, media_type, metadata, filename, created_at in connection.execute(
        select(*kinds, *_filtered_columns).select_from(join).where(*belongs)
    ):
        if matches(which.metadata, _decode_object(metadata), filename=filename, created_at=created_at):
            yield status, media_type, 1


def documents_changed_since(
    connection: Connection, tenant: TenantId, since: int, *, collections: SomeOf[str], limit: int
) -> list[Document]:
    """Documents of the collections (of all if empty) that were changed at or after a Unix time, in row order."""
    statement = select_documents.where(
        _documents.c.tenant == tenant,
        _documents.c.status.in_(list(DocumentStatus)),  # with the next one: a search of the index by status and time
        _documents.c.updated_at >= since,
    )
    if collections:
        statement = statement.where(_collections.c.name.in_(collections))
    # the order of an index of the tenant's rows would make SQLite read all of them
    return [document_of(row) for row in connection.execute(statement.order_by(_documents.c.id + 0).limit(limit))]


def documents_by_public_id(connection: Connection, tenant: TenantId, public_ids: SomeOf[str]) -> list[Document]:
    """Those of the documents that exist, in row order. At most a thousand ids."""
    statement = select_documents.where(_documents.c.tenant == tenant, _documents.c.public_id.in_(public_ids))
    return [document_of(row) for row in connection.execute(statement.order_by(_documents.c.id))]
