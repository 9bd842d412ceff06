"""Statements that store and remove a document's pages and passages. Callers own the transaction."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, update

from ragsvc.core.documents import Document, Extraction, Page, Passage, Stage
from ragsvc.core.file_names import default_filename, filename_from_title
from ragsvc.core.ids import DocumentId
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.store.document_rows import get_by_row_id
from ragsvc.store.index_log_rows import append_change, passage_ids_of_document
from ragsvc.store.searchable_documents import remove_from_search
from ragsvc.store.tables import DocumentRow, PageRow, PassageRow, table_of
from ragsvc.store.text_integrity import text_checksum
from ragsvc.store.vector_rows import UNKNOWN_HASH

_documents = table_of(DocumentRow)
_pages = table_of(PageRow)
_passages = table_of(PassageRow)

_encode = msgspec.json.encode


def store_parsed(
    connection: Connection, document_id: DocumentId, parsed: ParsedDocument, *, timings: dict[str, float], now: int
) -> Document | None:
    """Store pages and passages, replacing those of an earlier attempt; ``None`` if the document was deleted.

    A document that was uploaded without a name gets one made from its title.
    """
    document = get_by_row_id(connection, document_id)
    if document is None:
        return None
    clear_parsed(connection, document)
    extraction = parsed.extraction
    filename = filename_of_parsed(document, extraction)
    if extraction.pages:
        connection.execute(insert(_pages), [page_values(document_id, page) for page in extraction.pages])
    if parsed.passages:
        connection.execute(insert(_passages), [passage_values(document_id, passage) for passage in parsed.passages])
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document_id)
        .values(
            stage=Stage.EMBEDDING,
            title=extraction.title,
            filename=filename,
            problems=_encode(extraction.problems),
            timings=_encode(timings),
            pages_total=extraction.page_count,
            pages_done=extraction.page_count,
            passages_total=len(parsed.passages),
            passages_done=0,
            updated_at=now,
        )
    )
    return get_by_row_id(connection, document_id)


def make_searchable(connection: Connection, document_id: DocumentId) -> Document | None:
    """Make the words of a parsed document searchable, and its vectors as they are stored; ``None`` if deleted."""
    document = get_by_row_id(connection, document_id)
    if document is None or document.is_searchable:
        return document
    connection.execute(update(_documents).where(_documents.c.id == document_id).values(stage=Stage.SEARCHABLE))
    append_change(connection, document, "add", passage_ids_of_document(connection, document_id))
    return get_by_row_id(connection, document_id)


def filename_of_parsed(document: Document, extraction: Extraction) -> str:
    """The file name of a document from now on: one made from the title if it was uploaded without a name."""
    if document.filename != default_filename(document.media_type):
        return document.filename
    return filename_from_title(extraction.title, document.media_type) or document.filename


def page_values(document_id: DocumentId, page: Page) -> dict[str, Any]:
    """The columns of a page."""
    return {
        "document_id": document_id,
        "number": page.number,
        "label": page.label,
        "text": page.text,
        "checksum": text_checksum(page.text.encode()),
    }


def passage_values(
    document_id: DocumentId, passage: Passage, *, embedding_hash: bytes = UNKNOWN_HASH
) -> dict[str, Any]:
    """The columns of a passage."""
    return {
        "document_id": document_id,
        "ordinal": passage.ordinal,
        "page": passage.page,
        "page_label": passage.page_label,
        "start": passage.start,
        "end": passage.end,
        "token_count": passage.token_count,
        "headings": _encode(passage.headings),
        "embedding_hash": embedding_hash,
        "text": passage.text,
        "tables": _encode(passage.tables) if passage.tables else None,
        "checksum": text_checksum(passage.text.encode()),
    }


def clear_parsed(connection: Connection, document: Document) -> None:
    """Remove pages, passages and vectors of a document that is not ready, also from the indexes."""
    remove_from_search(connection, document)
    connection.execute(delete(_pages).where(_pages.c.document_id == document.id))
    connection.execute(delete(_passages).where(_passages.c.document_id == document.id))
