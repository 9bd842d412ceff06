"""The statement that reads the files of the documents that a search has found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from ragsvc.core.documents import CitedFile
from ragsvc.store.engines.constructs import is_requested, rows_as_json, text_of_bytes
from ragsvc.store.one_value_statement import OneValueStatement
from ragsvc.store.tables import DocumentFileRow, DocumentRow, FileRow, table_of
from ragsvc.store.text_integrity import readable

_documents = table_of(DocumentRow)
_links = table_of(DocumentFileRow)
_files = table_of(FileRow)

_first_file = (
    select(_files.c.public_id)
    .join_from(_links, _files, _files.c.id == _links.c.file_id)
    .where(_links.c.document_id == _documents.c.id, _files.c.deleted_at.is_(None))
    .order_by(_links.c.created_at, _files.c.id)
    .limit(1)
    .correlate(_documents)
    .scalar_subquery()
)
_files_as_json = OneValueStatement(
    select(rows_as_json(_documents.c.public_id, _first_file, text_of_bytes(_documents.c.metadata))).where(
        is_requested(_documents.c.id)
    )
)
_decode_files = msgspec.json.Decoder(list[tuple[str, str | None, str]]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def cited_files(connection: Connection, documents: Iterable[int]) -> dict[str, CitedFile]:
    """The first file of each document, by the public id of the document."""
    found = _files_as_json.read(connection, documents)
    rows = _decode_files(readable(found) if isinstance(found, str) else found)
    return {
        document: CitedFile(file, {} if metadata == "{}" else _decode_object(metadata))
        for document, file, metadata in rows
        if file is not None
    }
