"""Statements about the files of vector stores, and about batches of them. Callers own the transaction.

A file of a vector store is the link of a file to a document of the collection (``DocumentFileRow``).
"""

from __future__ import annotations

from collections.abc import Collection as SomeOf
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from ragsvc.core.documents import Collection, DocumentStatus, Stage
from ragsvc.core.errors import FailureReason, FileBatchNotFound, VectorStoreFileNotFound
from ragsvc.core.ids import CollectionId, DocumentId, FileId
from ragsvc.core.vector_stores import (
    FileBatch,
    FileCounts,
    StoreFile,
    StoreFileStatus,
    store_file_status,
)
from ragsvc.store.engines import engine_of
from ragsvc.store.tables import AnyRow, BatchFileRow, DocumentFileRow, DocumentRow, FileBatchRow, FileRow, table_of

_links = table_of(DocumentFileRow)
_documents = table_of(DocumentRow)
_files = table_of(FileRow)
_batches = table_of(FileBatchRow)
_batch_files = table_of(BatchFileRow)
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_AT_ONCE = 500


def _is_batch_file_of(links: FromClause) -> ColumnElement[bool]:
    return and_(_batch_files.c.document_id == links.c.document_id, _batch_files.c.file_id == links.c.file_id)


_is_batch_file = _is_batch_file_of(_links)
_is_cancelled = _documents.c.failure_code == FailureReason.CANCELLED
_select_file = (
    select(
        _links.c.created_at.label("added_at"),
        _links.c.file_id.label("file_row_id"),
        _files.c.public_id.label("file_id"),
        _files.c.filename,
        _files.c.size_bytes,
        _documents.c.id.label("document_id"),
        _documents.c.public_id.label("document_public_id"),
        _documents.c.status,
        _documents.c.failure_code,
        _documents.c.failure_message,
        _documents.c.metadata,
    )
    .join_from(_links, _files, _links.c.file_id == _files.c.id)
    .join(_documents, _links.c.document_id == _documents.c.id)
    .where(_files.c.deleted_at.is_(None))
)


def _store_file(row: AnyRow, store_id: str) -> StoreFile:
    return StoreFile(
        store_id=store_id,
        file_id=row.file_id,
        file_row_id=FileId(row.file_row_id),
        document_id=DocumentId(row.document_id),
        document_public_id=row.document_public_id,
        filename=row.filename,
        usage_bytes=row.size_bytes,
        created_at=row.added_at,
        status=store_file_status(DocumentStatus(row.status), row.failure_code),
        failure_code=row.failure_code,
        failure_message=row.failure_message,
        attributes=_decode_object(row.metadata),
    )


def find_store_file(connection: Connection, store: Collection, file_id: str) -> StoreFile:
    """A file of a vector store. Raises ``VectorStoreFileNotFound``."""
    row_id = connection.execute(select(_files.c.id).where(_files.c.public_id == file_id)).scalar_one_or_none()
    statement = _select_file.where(_links.c.file_id == row_id, _links.c.collection_id == store.id)
    row = None if row_id is None else connection.execute(statement).one_or_none()
    if row is None:
        message = f"The vector store '{store.public_id}' has no file '{file_id[:100]}'."
        raise VectorStoreFileNotFound(message, param="file_id")
    return _store_file(row, store.public_id)


def find_store_files(connection: Connection, store: Collection, file_ids: Sequence[FileId]) -> list[StoreFile]:
    """Files of a vector store by their row ids, in this order."""
    found: dict[FileId, StoreFile] = {}
    for part in chunks_of(file_ids):
        statement = _select_file.where(_links.c.file_id.in_(part), _links.c.collection_id == store.id)
        found.update(
            {FileId(row.file_row_id): _store_file(row, store.public_id) for row in connection.execute(statement)}
        )
    return [found[file_id] for file_id in file_ids]


def list_store_files(
    connection: Connection,
    store: Collection,
    *,
    batch_id: int | None = None,
    status: StoreFileStatus | None = None,
    limit: int,
    after: str | None = None,
    before: str | None = None,
    descending: bool = True,
) -> tuple[list[StoreFile], bool]:
    """One page of the files of a store, or of one of its batches, in the order in which they were added.

    Returns:
        The files, and whether more follow.

    Raises:
        VectorStoreFileNotFound: the file ``after`` or ``before`` is not in the store.
    """
    backwards = before is not None
    ascending = descending if backwards else not descending
    cursor = before if backwards else after
    statement = _select_file.where(_links.c.collection_id == store.id)
    order = (_links.c.created_at, _links.c.file_id)
    if batch_id is not None:
        order = (_batch_files.c.created_at, _batch_files.c.file_id)
        statement = statement.join(_batch_files, _is_batch_file).where(_batch_files.c.batch_id == batch_id)
    if status is not None:
        statement = statement.where(_has_status(status))
    if cursor is not None:
        file = find_store_file(connection, store, cursor)
        here, place = tuple_(*order), tuple_(file.created_at, file.file_row_id)
        statement = statement.where(here > place if ascending else here < place)
    statement = statement.order_by(*(order if ascending else [column.desc() for column in order])).limit(limit + 1)
    found = [_store_file(row, store.public_id) for row in connection.execute(statement)]
    page, more = found[:limit], len(found) > limit
    return (page[::-1] if backwards else page), more


def _has_status(status: StoreFileStatus) -> ColumnElement[bool]:
    match status:
        case StoreFileStatus.IN_PROGRESS:
            return _documents.c.status.in_([DocumentStatus.QUEUED, DocumentStatus.PROCESSING])
        case StoreFileStatus.COMPLETED:
            return _documents.c.status == DocumentStatus.READY
        case StoreFileStatus.CANCELLED:
            return and_(_documents.c.status == DocumentStatus.FAILED, _is_cancelled)
        case StoreFileStatus.FAILED:
            return and_(
                _documents.c.status == DocumentStatus.FAILED, or_(_documents.c.failure_code.is_(None), ~_is_cancelled)
            )


def count_files(connection: Connection, collection_id: CollectionId) -> tuple[FileCounts, int]:
    """The files of a vector store by status, and their bytes.

    Documents are counted from an index alone; files that share a document with another file are added.
    """
    of_collection = _documents.c.collection_id == collection_id
    groups = _groups(connection, select(*_group_columns(func.count())).where(of_collection))
    files = select(func.count()).where(_links.c.collection_id == collection_id)
    if int(connection.execute(files).scalar_one()) > sum(group.files for group in groups):
        shared = (
            select(_links.c.document_id, (func.count() - 1).label("others"))
            .where(_links.c.collection_id == collection_id)
            .group_by(_links.c.document_id)
            .having(func.count() > 1)
            .subquery()
        )
        others = select(*_group_columns(func.sum(shared.c.others), shared.c.others)).join_from(
            shared, _documents, shared.c.document_id == _documents.c.id
        )
        groups += _groups(connection, others)
    return _sum(groups)


def _count_batch(connection: Connection, batch_id: int) -> FileCounts:
    files = (
        select(*_group_columns(func.count()))
        .join_from(_batch_files, _documents, _batch_files.c.document_id == _documents.c.id)
        .where(_batch_files.c.batch_id == batch_id)
    )
    return _sum(_groups(connection, files))[0]


def _group_columns(files: ColumnElement[int], weight: ColumnElement[int] | int = 1) -> list[ColumnElement[Any]]:
    size = func.sum(_documents.c.size_bytes * weight)
    return [_documents.c.status, _documents.c.failure_code, files.label("files"), size.label("size")]


def _groups(connection: Connection, statement: Select[Any]) -> list[AnyRow]:
    return list(connection.execute(statement.group_by(_documents.c.status, _documents.c.failure_code)))


def _sum(groups: Iterable[AnyRow]) -> tuple[FileCounts, int]:
    counts: dict[str, int] = {}
    usage_bytes = 0
    for group in groups:
        status = store_file_status(DocumentStatus(group.status), group.failure_code)
        counts[status] = counts.get(status, 0) + int(group.files)
        usage_bytes += int(group.size)
    return FileCounts(**counts, total=sum(counts.values())), usage_bytes


def files_of_documents(
    connection: Connection, document_ids: SomeOf[DocumentId], store: Collection
) -> dict[DocumentId, StoreFile]:
    """The first file of each document of a store, for the results of a search."""
    others = _links.alias("others")
    first = (
        select(others.c.file_id)
        .where(others.c.document_id == _documents.c.id)
        .order_by(others.c.created_at, others.c.file_id)
        .limit(1)
        .correlate(_documents)
        .scalar_subquery()
    )
    statement = _select_file.where(
        _links.c.collection_id == store.id, _documents.c.id.in_(document_ids), _links.c.file_id == first
    )
    return {DocumentId(row.document_id): _store_file(row, store.public_id) for row in connection.execute(statement)}


def count_known_files(connection: Connection, store: Collection, file_ids: Sequence[str]) -> int:
    """How many of the files with these public ids have bytes of which the store has a document."""
    known = exists().where(_documents.c.collection_id == store.id, _documents.c.sha256 == _files.c.sha256)
    count = 0
    for part in chunks_of(file_ids):
        statement = select(func.count()).select_from(_files).where(_files.c.public_id.in_(part), known)
        count += int(connection.execute(statement).scalar_one())
    return count


def documents_of_files(connection: Connection, collection_id: CollectionId) -> list[tuple[str, str]]:
    """(id of a file, id of its document) for all files of a store, in the order in which they were added."""
    statement = (
        select(_files.c.public_id, _documents.c.public_id)
        .join_from(_links, _files, _links.c.file_id == _files.c.id)
        .join(_documents, _links.c.document_id == _documents.c.id)
        .where(_links.c.collection_id == collection_id)
        .order_by(_links.c.created_at, _links.c.file_id)
    )
    return [(file, document) for file, document in connection.execute(statement)]


def add_to_batch(connection: Connection, store: Collection, file_ids: Sequence[FileId], batch_id: int) -> None:
    """Note that a batch added files to a store, which has them."""
    names = ["batch_id", "created_at", "file_id", "document_id"]
    for part in chunks_of(file_ids):
        rows = select(literal(batch_id), _links.c.created_at, _links.c.file_id, _links.c.document_id).where(
            _links.c.file_id.in_(part), _links.c.collection_id == store.id
        )
        connection.execute(engine_of(connection).insert_or_ignore(_batch_files).from_select(names, rows))


def insert_batch(connection: Connection, store: Collection, public_id: str, *, now: int) -> int:
    """Insert an empty batch; returns its row id."""
    values = {"public_id": public_id, "collection_id": store.id, "created_at": now}
    inserted = connection.execute(insert(_batches).values(**values)).inserted_primary_key
    assert inserted is not None  # noqa: S101 - the table has a primary key
    return int(inserted[0])


def find_batch(connection: Connection, store: Collection, public_id: str) -> FileBatch:
    """A batch of a store with its counts. Raises ``FileBatchNotFound``."""
    row = connection.execute(
        select(_batches).where(_batches.c.public_id == public_id, _batches.c.collection_id == store.id)
    ).one_or_none()
    if row is None:
        message = f"The vector store '{store.public_id}' has no file batch '{public_id[:100]}'."
        raise FileBatchNotFound(message, param="batch_id")
    return FileBatch(
        id=row.id,
        public_id=row.public_id,
        store_id=store.public_id,
        created_at=row.created_at,
        cancelled=row.cancelled_at is not None,
        counts=_count_batch(connection, row.id),
    )


def cancel_batch(connection: Connection, batch_id: int, *, now: int) -> list[tuple[DocumentId, str]]:
    """Mark a batch as cancelled.

    Returns:
        Row id and public id of its documents whose ingest has not begun and that only this batch wants: neither another
        file of the store nor another batch that was not cancelled has them.
    """
    connection.execute(update(_batches).where(_batches.c.id == batch_id).values(cancelled_at=now))
    others, other_batch = _links.alias("others"), _batch_files.alias("other_batch")
    in_this_batch = exists().where(_batch_files.c.batch_id == batch_id, _is_batch_file_of(others)).correlate(others)
    in_another = exists().where(
        other_batch.c.document_id == _documents.c.id,
        other_batch.c.batch_id != batch_id,
        _batches.c.id == other_batch.c.batch_id,
        _batches.c.cancelled_at.is_(None),
    )
    has_others = exists().where(others.c.document_id == _documents.c.id, ~in_this_batch)
    statement = (
        select(_documents.c.id, _documents.c.public_id)
        .join_from(_batch_files, _documents, _batch_files.c.document_id == _documents.c.id)
        .where(
            _batch_files.c.batch_id == batch_id,
            _documents.c.status == DocumentStatus.QUEUED,
            _documents.c.stage == Stage.QUEUED,  # not one that is only embedded again
            ~has_others.correlate(_documents),
            ~in_another.correlate(_documents),
        )
        .distinct()
    )
    return [(DocumentId(row.id), row.public_id) for row in connection.execute(statement)]


def chunks_of(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """Parts of a list that fit into one statement."""
    return (values[begin : begin + _AT_ONCE] for begin in range(0, len(values), _AT_ONCE))


def replace_attributes(
    connection: Connection, document_id: DocumentId, attributes: Mapping[str, Any], *, now: int
) -> None:
    values = {"metadata": msgspec.json.encode(attributes), "updated_at": now}
    connection.execute(update(_documents).where(_documents.c.id == document_id).values(**values))
