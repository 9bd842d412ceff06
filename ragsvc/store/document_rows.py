"""Statements about collections and documents: register, look up, list, change, delete. Callers own the transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, union, update

from ragsvc.core.documents import Collection, Document, DocumentStatus, Problem, ProblemCode, Stage
from ragsvc.core.errors import CollectionNotFound, DocumentNotFound
from ragsvc.core.files import FilePurpose, UploadedFile, implicit_file_id
from ragsvc.core.ids import CollectionId, DocumentId, FileId, TenantId, new_store_id
from ragsvc.core.retrieval.filters import Filter, matches
from ragsvc.core.text.chunking import document_name
from ragsvc.store import attachment_rows, file_rows
from ragsvc.store.driver_statement import DriverStatement
from ragsvc.store.file_removal_rows import add_removal, forget_removal, forget_removals
from ragsvc.store.searchable_documents import is_searchable, remove_from_search
from ragsvc.store.tables import AnyRow, CollectionRow, DocumentRow, FileRow, UploadPartRow, table_of

_documents = table_of(DocumentRow)
_collections = table_of(CollectionRow)
_files = table_of(FileRow)
_upload_parts = table_of(UploadPartRow)

_encode = msgspec.json.encode
_decode_problems = msgspec.json.Decoder(list[Problem]).decode
_decode_timings = msgspec.json.Decoder(dict[str, float]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_SCAN = 500


_insert_queued = DriverStatement(
    insert(_documents).values(
        status=DocumentStatus.QUEUED.value,
        stage=Stage.QUEUED.value,
        problems=b"[]",
        timings=b"{}",
        pages_total=0,
        pages_done=0,
        passages_total=0,
        passages_done=0,
        **{
            name: bindparam(name)
            for name in (
                "public_id", "tenant", "collection_id", "filename", "media_type", "size_bytes", "sha256", "metadata",
                "created_at", "updated_at",
            )
        },
    )
)  # fmt: skip
_find_collection = DriverStatement(
    select(_collections.c.id, _collections.c.created_at, _collections.c.public_id).where(
        _collections.c.tenant == bindparam("tenant"), _collections.c.name == bindparam("name")
    )
)
_find_bytes = DriverStatement(
    select(_documents.c.id)
    .join(_collections, _collections.c.id == _documents.c.collection_id)
    .where(
        _collections.c.tenant == bindparam("tenant"),
        _collections.c.name == bindparam("name"),
        _documents.c.sha256 == bindparam("sha256"),
    )
    .limit(1)
)


class NewDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a document whose bytes have been received.

    ``file_id``: the file that the document is made from; ``None`` inserts an implicit file with the document.
    """

    public_id: str
    tenant: TenantId
    collection: Collection
    filename: str
    media_type: str
    size_bytes: int
    sha256: str
    metadata: Mapping[str, Any]
    created_at: int
    file_id: FileId | None = None


class DocumentOfStoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a document that is made from a stored file; ``failure`` is a code and a message."""

    public_id: str
    file: UploadedFile
    media_type: str
    metadata: Mapping[str, Any]
    failure: tuple[str, str] | None = None


def ensure_collection(connection: Connection, tenant: TenantId, name: str, *, now: int) -> Collection:
    """Find the tenant's collection, or create it."""
    found = _collection_row(connection, tenant, name)
    if found is None:
        values = {"public_id": new_store_id(), "display_name": name, "created_at": now, "last_active_at": now}
        connection.execute(insert(_collections).values(tenant=tenant, name=name, **values))
        found = _collection_row(connection, tenant, name)
        assert found is not None  # noqa: S101 - inserted in this transaction
    return found


def find_collection(connection: Connection, tenant: TenantId, name: str) -> Collection:
    """Find the tenant's collection. Raises ``CollectionNotFound``."""
    found = _collection_row(connection, tenant, name)
    if found is None:
        raise CollectionNotFound(f"There is no collection '{name}'.", param="collection")
    return found


def has_collection(connection: Connection, tenant: TenantId, name: str) -> bool:
    """Whether the tenant has a collection of this name."""
    return _collection_row(connection, tenant, name) is not None


def _collection_row(connection: Connection, tenant: TenantId, name: str) -> Collection | None:
    with closing(_find_collection.run(connection, tenant=tenant, name=name)) as cursor:
        row = cursor.fetchone()
    if row is None:
        return None
    row_id, created_at, public_id = row
    return Collection(id=CollectionId(row_id), tenant=tenant, name=name, created_at=created_at, public_id=public_id)


def collection_of(row: AnyRow) -> Collection:
    """The collection of a row of the table."""
    return Collection(
        id=CollectionId(row.id),
        tenant=TenantId(row.tenant),
        name=row.name,
        created_at=row.created_at,
        public_id=row.public_id,
    )


def list_collections(connection: Connection, tenant: TenantId | None = None) -> list[Collection]:
    """All collections of one tenant, or of all tenants."""
    statement = select(_collections).where(_collections.c.deleted_at.is_(None)).order_by(_collections.c.id)
    if tenant is not None:
        statement = statement.where(_collections.c.tenant == tenant)
    return [collection_of(row) for row in connection.execute(statement)]


select_documents = (
    select(
        _documents,
        _collections.c.name.label("collection"),
        attachment_rows.parent_public_id().label("parent_public_id"),
        attachment_rows.is_brought().label("is_attached"),
    )
    .join_from(_documents, _collections, _documents.c.collection_id == _collections.c.id)
    .where(_collections.c.deleted_at.is_(None))
)
"""Documents of all tenants with the names of their collections, except those of deleted collections."""


def document_of(row: AnyRow) -> Document:
    """The document of a row that ``select_documents`` selects."""
    return Document(
        id=DocumentId(row.id),
        public_id=row.public_id,
        tenant=TenantId(row.tenant),
        collection_id=CollectionId(row.collection_id),
        collection=row.collection,
        filename=row.filename,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        status=DocumentStatus(row.status),
        stage=Stage(row.stage),
        metadata=_decode_object(row.metadata),
        problems=_decode_problems(row.problems),
        timings=_decode_timings(row.timings),
        created_at=row.created_at,
        updated_at=row.updated_at,
        title=row.title,
        failure_code=row.failure_code,
        failure_message=row.failure_message,
        pages_total=row.pages_total,
        pages_done=row.pages_done,
        passages_total=row.passages_total,
        passages_done=row.passages_done,
        embedding_model=row.embedding_model,
        ready_at=row.ready_at,
        parent_id=row.parent_public_id,
        attached=bool(row.is_attached),
    )


def insert_document(connection: Connection, new: NewDocument) -> Document:
    """Insert a document as queued, with its file. The caller checked that the collection does not have these bytes."""
    forget_removal(connection, new.tenant, new.sha256)
    collection, metadata = new.collection, _encode(new.metadata)
    document_id = _insert_queued.insert(
        connection,
        public_id=new.public_id,
        tenant=new.tenant,
        collection_id=collection.id,
        filename=new.filename,
        media_type=new.media_type,
        size_bytes=new.size_bytes,
        sha256=new.sha256,
        metadata=metadata,
        created_at=new.created_at,
        updated_at=new.created_at,
    )
    document = Document(
        id=DocumentId(document_id),
        public_id=new.public_id,
        tenant=new.tenant,
        collection_id=collection.id,
        collection=collection.name,
        status=DocumentStatus.QUEUED,
        stage=Stage.QUEUED,
        metadata=_decode_object(metadata),
        problems=[],
        timings={},
        created_at=new.created_at,
        updated_at=new.created_at,
        filename=new.filename,
        media_type=new.media_type,
        size_bytes=new.size_bytes,
        sha256=new.sha256,
    )
    if new.file_id is not None:
        file_rows.link(connection, document.id, new.file_id, now=new.created_at)
    else:
        _insert_implicit_file(connection, document, now=new.created_at)
    return document


def has_bytes(connection: Connection, tenant: TenantId, collection: str, sha256: str) -> bool:
    """Whether a collection of the tenant has a document with these bytes."""
    with closing(_find_bytes.run(connection, tenant=tenant, name=collection, sha256=sha256)) as cursor:
        return cursor.fetchone() is not None


def insert_documents_of_files(
    connection: Connection, collection: Collection, new: Sequence[DocumentOfStoredFile], *, now: int
) -> dict[str, DocumentId]:
    """Insert documents of stored files as queued, or as failed; thousands take a few statements.

    The caller checked that the collection does not have their bytes, which differ, and links the files.

    Returns:
        Row ids by SHA-256.
    """
    if not new:
        return {}
    rows = [
        {
            "public_id": each.public_id,
            "tenant": collection.tenant,
            "collection_id": collection.id,
            "filename": each.file.filename,
            "media_type": each.media_type,
            "size_bytes": each.file.size_bytes,
            "sha256": each.file.sha256,
            "status": DocumentStatus.QUEUED if each.failure is None else DocumentStatus.FAILED,
            "stage": Stage.QUEUED if each.failure is None else Stage.FAILED,
            "failure_code": None if each.failure is None else each.failure[0],
            "failure_message": None if each.failure is None else each.failure[1],
            "metadata": _encode(each.metadata),
            "problems": b"[]",
            "timings": b"{}",
            "pages_total": 0,
            "pages_done": 0,
            "passages_total": 0,
            "passages_done": 0,
            "created_at": now,
            "updated_at": now,
        }
        for each in new
    ]
    connection.execute(insert(_documents), rows)
    ids: dict[str, DocumentId] = {}
    for begin in range(0, len(new), _SCAN):
        digests = [each.file.sha256 for each in new[begin : begin + _SCAN]]
        forget_removals(connection, collection.tenant, digests)
        statement = select(_documents.c.sha256, _documents.c.id).where(
            _documents.c.collection_id == collection.id, _documents.c.sha256.in_(digests)
        )
        ids.update({sha256: DocumentId(row_id) for sha256, row_id in connection.execute(statement)})
    return ids


def documents_by_sha256(
    connection: Connection, collection_id: CollectionId, digests: Sequence[str]
) -> dict[str, Document]:
    """The documents of a collection with these bytes, by their SHA-256."""
    found: dict[str, Document] = {}
    for begin in range(0, len(digests), _SCAN):
        statement = select_documents.where(
            _documents.c.collection_id == collection_id, _documents.c.sha256.in_(digests[begin : begin + _SCAN])
        )
        found.update({row.sha256: document_of(row) for row in connection.execute(statement)})
    return found


def ensure_implicit_file(connection: Connection, document: Document, *, now: int) -> None:
    """Give a document an implicit file if it has none, so that it outlives the other files it was made from.

    Its own may have been separated from it and still have a document in another collection; both are linked again.
    """
    if file_rows.has_implicit_file(connection, document.id):
        return
    own = file_rows.file_row_id(connection, document.tenant, implicit_file_id(document.public_id))
    if own is None:
        _insert_implicit_file(connection, document, now=now)
    else:
        file_rows.link(connection, document.id, own, now=now)


def _insert_implicit_file(connection: Connection, document: Document, *, now: int) -> None:
    new = file_rows.NewFile(
        public_id=implicit_file_id(document.public_id),
        tenant=document.tenant,
        filename=document.filename,
        media_type=document.media_type,
        size_bytes=document.size_bytes,
        sha256=document.sha256,
        purpose=FilePurpose.ASSISTANTS,
        created_at=now,
    )
    file_rows.insert_implicit_file(connection, document, new)


def get_document(connection: Connection, tenant: TenantId, public_id: str) -> Document:
    """Load one document of the tenant. Raises ``DocumentNotFound``."""
    statement = select_documents.where(_documents.c.public_id == public_id, _documents.c.tenant == tenant)
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise DocumentNotFound(f"There is no document '{public_id}'.", param="document_id")
    return document_of(row)


def get_by_row_id(connection: Connection, document_id: DocumentId) -> Document | None:
    """Load a document of any tenant by its row id."""
    row = connection.execute(select_documents.where(_documents.c.id == document_id)).one_or_none()
    return None if row is None else document_of(row)


def has_other_names(current: Document, embedded: Document) -> bool:
    """Whether a document's name in the text to embed is not the name that ``embedded`` has, an earlier state of it."""
    return document_name(current.title, current.filename) != document_name(embedded.title, embedded.filename)


def find_by_sha256(connection: Connection, collection_id: CollectionId, sha256: str) -> Document | None:
    """Find the document with these bytes in a collection."""
    statement = select_documents.where(_documents.c.collection_id == collection_id, _documents.c.sha256 == sha256)
    row = connection.execute(statement).one_or_none()
    return None if row is None else document_of(row)


def resolve_ids(connection: Connection, collection_id: CollectionId, public_ids: list[str]) -> list[DocumentId]:
    """Row ids of public ids within a collection. Raises ``DocumentNotFound`` for the first unknown id."""
    found: dict[str, DocumentId] = {}
    for begin in range(0, len(public_ids), _SCAN):
        statement = select(_documents.c.public_id, _documents.c.id).where(
            _documents.c.collection_id == collection_id,
            _documents.c.public_id.in_(public_ids[begin : begin + _SCAN]),
        )
        found.update({public_id: DocumentId(row_id) for public_id, row_id in connection.execute(statement)})
    for public_id in public_ids:
        if public_id not in found:
            raise DocumentNotFound(f"There is no document '{public_id}'.", param="document_ids")
    return [found[public_id] for public_id in public_ids]


def ids_matching(
    connection: Connection, collection_id: CollectionId, condition: Filter, *, also: Sequence[DocumentId] = ()
) -> list[DocumentId]:
    """Row ids of a collection's searchable documents, or of documents in ``also``, whose metadata match the filter."""
    columns = (_documents.c.id, _documents.c.metadata, _documents.c.filename, _documents.c.created_at)
    wanted = or_(is_searchable, _documents.c.id.in_(also)) if also else is_searchable
    statement = select(*columns).where(_documents.c.collection_id == collection_id, wanted)
    return [
        DocumentId(row_id)
        for row_id, metadata, filename, created_at in connection.execute(statement)
        if matches(condition, _decode_object(metadata), filename=filename, created_at=created_at)
    ]


class DeletedDocument(msgspec.Struct, frozen=True):
    """A document that was deleted; ``blob_unused`` if no other row refers to its file, so the caller removes it."""

    document: Document
    blob_unused: bool


def delete_document(
    connection: Connection, tenant: TenantId, public_id: str, *, now: int | None = None
) -> DeletedDocument:
    """Delete a document with its pages, passages, vectors and job, and log it for the indexes.

    Its implicit file is deleted with it. If nothing else has its bytes, their removal is noted in the same transaction.

    Raises:
        DocumentNotFound: the tenant has no such document.
    """
    document = get_document(connection, tenant, public_id)
    remove_from_search(connection, document)
    files = file_rows.implicit_files_of_documents(connection, [document.id])
    connection.execute(delete(_documents).where(_documents.c.id == document.id))
    file_rows.delete_implicit_files_without_documents(connection, files)
    return DeletedDocument(
        document=document,
        blob_unused=add_removal(
            connection, document.tenant, document.sha256, now=int(time.time()) if now is None else now
        ),
    )


def delete_with_attachments(
    connection: Connection, tenant: TenantId, public_id: str, *, now: int | None = None
) -> list[DeletedDocument]:
    """Delete a document, and the documents that exist only because they are attached to it, at any depth.

    An attached document that was made from another file as well stays, without the file that came with it.

    Raises:
        DocumentNotFound: the tenant has no such document.
    """
    deleted: list[DeletedDocument] = []
    waiting = [public_id]
    while waiting:
        current = get_document(connection, tenant, waiting.pop(0))
        attached = attachment_rows.only_attached_to(connection, current.id)
        waiting += [name for name in attached if not _keep_for_other_files(connection, tenant, name)]
        deleted.append(delete_document(connection, tenant, current.public_id, now=now))
    return deleted


def _keep_for_other_files(connection: Connection, tenant: TenantId, public_id: str) -> bool:
    """Separate an attached document from the file that came with it, if it has others; ``False`` if it has none."""
    document = get_document(connection, tenant, public_id)
    if not file_rows.has_files_beside_own(connection, document.id, public_id):
        return False
    own = file_rows.file_row_id(connection, tenant, implicit_file_id(public_id))
    if own is not None:
        file_rows.unlink(connection, document.id, own)
        file_rows.delete_implicit_files_without_documents(connection, [own])
    return True


def add_problem(connection: Connection, document_id: DocumentId, problem: Problem) -> None:
    """Add a problem to those of a document, unless it has it; does nothing if the document was deleted."""
    document = get_by_row_id(connection, document_id)
    if document is not None and problem not in document.problems:
        problems = msgspec.json.encode([*document.problems, problem])
        connection.execute(update(_documents).where(_documents.c.id == document_id).values(problems=problems))


def remove_problem(connection: Connection, document_id: DocumentId, code: ProblemCode) -> None:
    """Remove all problems with this code from a document."""
    document = get_by_row_id(connection, document_id)
    if document is not None:
        problems = [problem for problem in document.problems if problem.code is not code]
        values = {"problems": msgspec.json.encode(problems)}
        connection.execute(update(_documents).where(_documents.c.id == document_id).values(**values))


def referenced_blobs(connection: Connection) -> set[tuple[str, str]]:
    """(tenant, sha256) of every file that a row refers to."""
    statement = union(*(select(table.c.tenant, table.c.sha256) for table in (_documents, _files, _upload_parts)))
    return {(tenant, sha256) for tenant, sha256 in connection.execute(statement)}


class IngestRate(msgspec.Struct, frozen=True):
    """Documents that became ready since a time, their pages, and documents that failed since."""

    documents: int
    pages: int
    failed: int


def ingest_rate(connection: Connection, *, since: int) -> IngestRate:
    """How much was ingested, of all tenants; ``since`` is in Unix seconds."""
    # tenant and status make the index by status and time usable
    recent = (_documents.c.tenant.in_(select(_collections.c.tenant)), _documents.c.updated_at >= since)
    done = select(func.count(), func.coalesce(func.sum(_documents.c.pages_total), 0)).where(
        *recent, _documents.c.status.in_(list(DocumentStatus)), _documents.c.ready_at >= since
    )
    failed = select(func.count()).select_from(_documents).where(*recent, _documents.c.status == DocumentStatus.FAILED)
    documents, pages = connection.execute(done).one()
    return IngestRate(int(documents), int(pages), int(connection.execute(failed).scalar_one()))


def count_by_status(connection: Connection) -> dict[str, int]:
    """How many documents of all tenants are in each status."""
    statement = select(_documents.c.status, func.count()).group_by(_documents.c.status)
    return {str(status): int(count) for status, count in connection.execute(statement)}
