"""Statements about files, and about which documents were made from them. Callers own the transaction.

A document has at least one file, and is deleted with its last one. An implicit file comes with a document and is
deleted with its last document. The bytes belong to the blob store, under their SHA-256.
"""

from __future__ import annotations

from collections.abc import Collection as SomeOf
from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, literal, or_, select, update

from ragsvc.core.documents import Document
from ragsvc.core.errors import FileNotFound
from ragsvc.core.files import WHOLE_TENANT, FileReach, FileStatus, UploadedFile, implicit_file_id
from ragsvc.core.ids import CollectionId, DocumentId, FileId, KeyId, TenantId
from ragsvc.store.driver_statement import DriverStatement
from ragsvc.store.engines import engine_of
from ragsvc.store.file_removal_rows import add_removal
from ragsvc.store.tables import AnyRow, CollectionRow, DocumentFileRow, DocumentRow, FileRow, table_of

_collections = table_of(CollectionRow)
_documents = table_of(DocumentRow)
_files = table_of(FileRow)
_links = table_of(DocumentFileRow)
_AT_ONCE = 500


_insert_link = DriverStatement(insert(_links), columns=["document_id", "file_id", "created_at", "collection_id"])


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a file whose bytes have been stored."""

    public_id: str
    tenant: TenantId
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    purpose: str
    created_at: int
    created_by: KeyId | None = None
    expires_at: int | None = None


_insert_file = DriverStatement(insert(_files), columns=[*NewFile.__struct_fields__, "status", "implicit"])


class DocumentOfFile(msgspec.Struct, frozen=True):
    """A document that was made from a file; ``only_file``: it has no other file, and is deleted with this one."""

    id: DocumentId
    public_id: str
    collection_id: CollectionId
    collection: str
    only_file: bool


def _file(row: AnyRow) -> UploadedFile:
    return UploadedFile(
        id=FileId(row.id),
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        filename=row.filename,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        purpose=row.purpose,
        status=FileStatus(row.status),
        created_at=row.created_at,
        created_by=None if row.created_by is None else KeyId(row.created_by),
        expires_at=row.expires_at,
        implicit=bool(row.implicit),
    )


def insert_file(connection: Connection, new: NewFile, *, implicit: bool = False) -> UploadedFile:
    """Insert a file. The caller removes the note that its bytes are to be removed (``forget_removal``)."""
    values = {**msgspec.structs.asdict(new), "status": FileStatus.PROCESSED, "implicit": implicit}
    inserted = connection.execute(insert(_files).values(**values)).inserted_primary_key
    assert inserted is not None  # noqa: S101 - the table has a primary key
    return _file(connection.execute(select(_files).where(_files.c.id == inserted[0])).one())


def insert_implicit_file(connection: Connection, document: Document, new: NewFile) -> None:
    """Insert the file that comes with a document, and link both."""
    values = {**msgspec.structs.asdict(new), "status": FileStatus.PROCESSED.value, "implicit": True}
    _insert_link.run(
        connection,
        document_id=document.id,
        file_id=_insert_file.insert(connection, **values),
        created_at=new.created_at,
        collection_id=document.collection_id,
    ).close()


def link(connection: Connection, document_id: DocumentId, file_id: FileId, *, now: int) -> None:
    """Note that a document was made from a file; does nothing if it is known already."""
    names = ["document_id", "file_id", "created_at", "collection_id"]
    row = select(_documents.c.id, literal(file_id), literal(now), _documents.c.collection_id).where(
        _documents.c.id == document_id
    )
    connection.execute(engine_of(connection).insert_or_ignore(_links).from_select(names, row))


def link_all(
    connection: Connection, collection_id: CollectionId, pairs: Sequence[tuple[DocumentId, FileId]], *, now: int
) -> None:
    """``link`` for documents of a collection and their files."""
    values = {"created_at": now, "collection_id": collection_id}
    rows = [{"document_id": document_id, "file_id": file_id, **values} for document_id, file_id in pairs]
    connection.execute(engine_of(connection).insert_or_ignore(_links), rows)


def unlink(connection: Connection, document_id: DocumentId, file_id: FileId) -> None:
    """Separate a file from a document that has other files."""
    connection.execute(delete(_links).where(_links.c.document_id == document_id, _links.c.file_id == file_id))


def _of_visible_documents(collections: tuple[str, ...] = ()) -> ColumnElement[bool]:
    condition = exists().where(
        _links.c.file_id == _files.c.id,
        _documents.c.id == _links.c.document_id,
        _collections.c.id == _documents.c.collection_id,
        _collections.c.deleted_at.is_(None),
    )
    if collections:
        condition = condition.where(_collections.c.name.in_(collections))
    return condition.correlate(_files)


def _visible(reach: FileReach, now: int) -> list[ColumnElement[bool]]:
    """The files that exist for a caller: neither deleted nor expired, nor of a collection that is being deleted."""
    uploaded: ColumnElement[bool] = _files.c.implicit.is_(False)
    if reach.collections:
        uploaded = uploaded & (_files.c.created_by == reach.created_by)
    return [
        _files.c.deleted_at.is_(None),
        or_(_files.c.expires_at.is_(None), _files.c.expires_at > now),
        or_(uploaded, _of_visible_documents(reach.collections)),
    ]


def find_file(
    connection: Connection, tenant: TenantId, public_id: str, *, now: int, reach: FileReach = WHOLE_TENANT
) -> UploadedFile:
    """Load one file of the tenant that the caller sees and that has not expired. Raises ``FileNotFound``."""
    statement = select(_files).where(_files.c.public_id == public_id, _files.c.tenant == tenant, *_visible(reach, now))
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise file_not_found(public_id)
    return _file(row)


def find_files(
    connection: Connection,
    tenant: TenantId,
    public_ids: Sequence[str],
    *,
    now: int,
    reach: FileReach = WHOLE_TENANT,
) -> list[UploadedFile]:
    """Load files as ``find_file`` does, in the order of the ids. Raises ``FileNotFound`` for the first missing one."""
    found: dict[str, UploadedFile] = {}
    for begin in range(0, len(public_ids), _AT_ONCE):
        part = public_ids[begin : begin + _AT_ONCE]
        statement = select(_files).where(_files.c.public_id.in_(part), _files.c.tenant == tenant, *_visible(reach, now))
        found.update({row.public_id: _file(row) for row in connection.execute(statement)})
    for public_id in public_ids:
        if public_id not in found:
            raise file_not_found(public_id)
    return [found[public_id] for public_id in public_ids]


def file_not_found(public_id: str) -> FileNotFound:
    """The error for an id that the caller does not have."""
    return FileNotFound(f"There is no file '{public_id[:100]}'.", param="file_id")


def collections_of_files(connection: Connection, tenant: TenantId, public_ids: SomeOf[str]) -> set[str]:
    """The names of the collections that have a document of one of the files."""
    statement = (
        select(_collections.c.name)
        .join_from(_files, _links, _links.c.file_id == _files.c.id)
        .join(_documents, _documents.c.id == _links.c.document_id)
        .join(_collections, _collections.c.id == _documents.c.collection_id)
        .where(_files.c.public_id.in_(public_ids), _files.c.tenant == tenant)
    )
    return set(connection.execute(statement).scalars())


def get_file_by_row_id(connection: Connection, file_id: FileId) -> UploadedFile | None:
    """Load a file of any tenant by its row id, also one that has expired."""
    row = connection.execute(select(_files).where(_files.c.id == file_id, _files.c.deleted_at.is_(None))).one_or_none()
    return None if row is None else _file(row)


def file_row_id(connection: Connection, tenant: TenantId, public_id: str) -> FileId | None:
    """The row id of a file of the tenant."""
    statement = select(_files.c.id).where(_files.c.public_id == public_id, _files.c.tenant == tenant)
    row_id: int | None = connection.execute(statement).scalar_one_or_none()
    return None if row_id is None else FileId(row_id)


def list_files(
    connection: Connection,
    tenant: TenantId,
    *,
    now: int,
    limit: int,
    reach: FileReach = WHOLE_TENANT,
    purpose: str | None = None,
    after: str | None = None,
    before: str | None = None,
    descending: bool = True,
) -> tuple[list[UploadedFile], bool]:
    """One page of files in order of creation, and whether more follow.

    The page begins after the file with public id ``after``, or ends before ``before``.

    Raises:
        FileNotFound: that file does not exist, or no longer.
    """
    backwards = before is not None
    ascending = descending if backwards else not descending
    cursor = before if backwards else after
    statement = select(_files).where(_files.c.tenant == tenant, *_visible(reach, now))
    if purpose is not None:
        statement = statement.where(_files.c.purpose == purpose)
    if cursor is not None:
        place = find_file(connection, tenant, cursor, now=now, reach=reach).id
        statement = statement.where(_files.c.id > place if ascending else _files.c.id < place)
    statement = statement.order_by(_files.c.id if ascending else _files.c.id.desc()).limit(limit + 1)
    found = [_file(row) for row in connection.execute(statement)]
    page, more = found[:limit], len(found) > limit
    return (page[::-1] if backwards else page), more


def implicit_files_of_documents(connection: Connection, document_ids: SomeOf[DocumentId]) -> list[FileId]:
    """Row ids of the implicit files that these documents were made from."""
    statement = (
        select(_links.c.file_id)
        .join_from(_links, _files, _links.c.file_id == _files.c.id)
        .where(_links.c.document_id.in_(document_ids), _files.c.implicit)
        .distinct()
    )
    return [FileId(row_id) for (row_id,) in connection.execute(statement)]


def has_other_files(connection: Connection, document_id: DocumentId, file_id: FileId) -> bool:
    """Whether a document was made from another file than this one as well."""
    condition = exists().where(_links.c.document_id == document_id, _links.c.file_id != file_id)
    return bool(connection.execute(select(condition)).scalar_one())


def files_of_document(connection: Connection, document_id: DocumentId) -> list[UploadedFile]:
    """The files that a document was made from, the first one first."""
    statement = (
        select(_files)
        .join_from(_links, _files, _links.c.file_id == _files.c.id)
        .where(_links.c.document_id == document_id, _files.c.deleted_at.is_(None))
        .order_by(_links.c.created_at, _files.c.id)
    )
    return [_file(row) for row in connection.execute(statement)]


def has_implicit_file(connection: Connection, document_id: DocumentId) -> bool:
    """Whether one of the files of a document came with it."""
    condition = exists().where(
        _links.c.document_id == document_id, _files.c.id == _links.c.file_id, _files.c.implicit.is_(True)
    )
    return bool(connection.execute(select(condition)).scalar_one())


def has_files_beside_own(connection: Connection, document_id: DocumentId, public_id: str) -> bool:
    """Whether a document was made from another file than the implicit one that came with it as well."""
    condition = exists().where(
        _links.c.document_id == document_id,
        _files.c.id == _links.c.file_id,
        _files.c.public_id != implicit_file_id(public_id),
    )
    return bool(connection.execute(select(condition)).scalar_one())


def documents_of_file(connection: Connection, file_id: FileId) -> list[DocumentOfFile]:
    """The documents that were made from a file, in collections that are not being deleted."""
    others = _links.alias("others")
    statement = (
        select(
            _documents.c.id,
            _documents.c.public_id,
            _documents.c.collection_id,
            _collections.c.name.label("collection"),
            (~exists().where(others.c.document_id == _documents.c.id, others.c.file_id != file_id)).label("only_file"),
        )
        .join_from(_links, _documents, _links.c.document_id == _documents.c.id)
        .join(_collections, _documents.c.collection_id == _collections.c.id)
        .where(_links.c.file_id == file_id, _collections.c.deleted_at.is_(None))
        .order_by(_documents.c.id)
    )
    return [
        DocumentOfFile(
            DocumentId(row.id), row.public_id, CollectionId(row.collection_id), row.collection, bool(row.only_file)
        )
        for row in connection.execute(statement)
    ]


def delete_file_row(connection: Connection, file_id: FileId) -> None:
    """Delete a file with its links; the caller has deleted the documents that have no other file."""
    connection.execute(delete(_files).where(_files.c.id == file_id))


def delete_implicit_files_without_documents(connection: Connection, file_ids: Sequence[FileId]) -> None:
    """Delete those of the files that are implicit and have no document any more."""
    used = exists().where(_links.c.file_id == _files.c.id).correlate(_files)
    for begin in range(0, len(file_ids), _AT_ONCE):  # a statement has a limited number of parameters
        part = file_ids[begin : begin + _AT_ONCE]
        connection.execute(delete(_files).where(_files.c.id.in_(part), _files.c.implicit, ~used))


def rename_implicit_file(connection: Connection, document_id: DocumentId, filename: str) -> None:
    """Give the implicit file of a document the new name of the document."""
    of_document = select(_links.c.file_id).where(_links.c.document_id == document_id)
    connection.execute(update(_files).where(_files.c.id.in_(of_document), _files.c.implicit).values(filename=filename))


def file_bytes(connection: Connection, tenant: TenantId) -> int:
    """The bytes of a tenant's files, without those of collections that are being deleted."""
    total = select(func.coalesce(func.sum(_files.c.size_bytes), 0)).where(
        _files.c.tenant == tenant, _files.c.deleted_at.is_(None)
    )
    doomed = (
        select(func.coalesce(func.sum(_files.c.size_bytes), 0))
        .where(_files.c.deleted_at.is_(None), _files.c.implicit, ~_of_visible_documents())
        .where(
            _files.c.id.in_(
                select(_links.c.file_id)
                .join_from(_collections, _documents, _documents.c.collection_id == _collections.c.id)
                .join(_links, _links.c.document_id == _documents.c.id)
                .where(_collections.c.tenant == tenant, _collections.c.deleted_at.is_not(None))
            )
        )
    )
    return int(connection.execute(total).scalar_one()) - int(connection.execute(doomed).scalar_one())


def count_uploaded_files(connection: Connection, tenant: TenantId) -> int:
    """How many files of a tenant did not come with a document."""
    statement = select(func.count()).where(
        _files.c.tenant == tenant, _files.c.deleted_at.is_(None), _files.c.implicit.is_(False)
    )
    return int(connection.execute(statement).scalar_one())


def has_files(connection: Connection, tenant: TenantId) -> bool:
    """Whether a tenant has any file row, also of a file that is being deleted."""
    return bool(connection.execute(select(exists().where(_files.c.tenant == tenant))).scalar_one())


def mark_files_deleted(connection: Connection, tenant: TenantId, *, now: int) -> int:
    """Make all files of a tenant invisible; returns the number of those that did not come with a document."""
    count = count_uploaded_files(connection, tenant)
    connection.execute(
        update(_files).where(_files.c.tenant == tenant, _files.c.deleted_at.is_(None)).values(deleted_at=now)
    )
    return count


def doomed_files(connection: Connection, *, limit: int) -> list[UploadedFile]:
    """At most ``limit`` files that are marked as deleted and that no document has any more, oldest first."""
    used = exists().where(_links.c.file_id == _files.c.id).correlate(_files)
    statement = select(_files).where(_files.c.deleted_at.is_not(None), ~used).order_by(_files.c.deleted_at).limit(limit)
    return [_file(row) for row in connection.execute(statement)]


def remove_files(connection: Connection, files: Sequence[UploadedFile], *, now: int) -> list[tuple[TenantId, str]]:
    """Delete files without documents; returns (tenant, SHA-256) of the stored files whose removal is noted."""
    connection.execute(delete(_files).where(_files.c.id.in_([file.id for file in files])))
    stored = dict.fromkeys((file.tenant, file.sha256) for file in files)
    return [(tenant, sha256) for tenant, sha256 in stored if add_removal(connection, tenant, sha256, now=now)]


def expired_files(connection: Connection, *, now: int, limit: int) -> list[UploadedFile]:
    """At most ``limit`` files whose time is over."""
    statement = (
        select(_files)
        .where(_files.c.expires_at <= now, _files.c.deleted_at.is_(None))
        .order_by(_files.c.expires_at)
        .limit(limit)
    )
    return [_file(row) for row in connection.execute(statement)]


def next_file_expiry(connection: Connection) -> int | None:
    """When the first file expires; ``None`` if no file does."""
    statement = (
        select(_files.c.expires_at)
        .where(_files.c.expires_at.is_not(None), _files.c.deleted_at.is_(None))
        .order_by(_files.c.expires_at)
        .limit(1)
    )
    first: int | None = connection.execute(statement).scalar_one_or_none()
    return first


def uploaded_files_for_export(
    connection: Connection, tenant: TenantId, *, now: int, after: int, limit: int
) -> list[UploadedFile]:
    """A tenant's files that did not come with a document, with ``row id > after``, ascending."""
    statement = (
        select(_files)
        .where(
            _files.c.tenant == tenant, _files.c.id > after, _files.c.implicit.is_(False), *_visible(WHOLE_TENANT, now)
        )
        .order_by(_files.c.id)
        .limit(limit)
    )
    return [_file(row) for row in connection.execute(statement)]
