"""Statements that delete a file with the documents that were made from it. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from ragsvc.core.documents import Document
from ragsvc.core.files import UploadedFile
from ragsvc.store import document_rows, file_rows
from ragsvc.store.document_rows import DeletedDocument
from ragsvc.store.file_removal_rows import add_removal


def separate_file(connection: Connection, document: Document, file: UploadedFile, *, now: int) -> list[DeletedDocument]:
    """Separate a file from a document, which is deleted if it has no other file; the file itself stays.

    An implicit file that has no document any more is deleted. Returns the documents that were deleted.

    Raises:
        DocumentNotFound: the document was deleted.
    """
    if not file_rows.has_other_files(connection, document.id, file.id):
        return document_rows.delete_with_attachments(connection, document.tenant, document.public_id, now=now)
    file_rows.unlink(connection, document.id, file.id)
    file_rows.delete_implicit_files_without_documents(connection, [file.id])
    return []


class DeletedFile(msgspec.Struct, frozen=True):
    """A file that was deleted, with its documents; ``blob_unused`` if nothing else refers to its bytes."""

    file: UploadedFile
    documents: Sequence[DeletedDocument]
    blob_unused: bool


def delete_file(connection: Connection, file: UploadedFile, *, now: int) -> DeletedFile:
    """Delete a file from every collection, and log it for the indexes.

    A document that has another file stays. Documents that are attached to a deleted document are deleted with it.
    """
    deleted: list[DeletedDocument] = []
    for document in file_rows.documents_of_file(connection, file.id):
        known = {entry.document.id for entry in deleted}  # it can be attached to a document that was deleted before
        if document.only_file and document.id not in known:
            deleted += document_rows.delete_with_attachments(connection, file.tenant, document.public_id, now=now)
    file_rows.delete_file_row(connection, file.id)
    return DeletedFile(
        file=file, documents=deleted, blob_unused=add_removal(connection, file.tenant, file.sha256, now=now)
    )
