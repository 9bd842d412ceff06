"""Statements that make several parsed and embedded documents ready in one transaction. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.store.document_rows import document_of, select_documents
from ragsvc.store.index_log_rows import append_changes
from ragsvc.store.parsed_rows import page_values, passage_values
from ragsvc.store.serving_model import serving_model
from ragsvc.store.tables import DocumentRow, EmbeddingRow, JobRow, PageRow, PassageRow, table_of

_documents = table_of(DocumentRow)
_pages = table_of(PageRow)
_passages = table_of(PassageRow)
_embeddings = table_of(EmbeddingRow)
_jobs = table_of(JobRow)

_encode = msgspec.json.encode


class EmbeddedDocument(msgspec.Struct, frozen=True):
    """A document with the content that was read from its file; ``hashes`` and ``vectors`` are those of its passages."""

    document: Document
    parsed: ParsedDocument
    filename: str
    hashes: Sequence[bytes]
    vectors: Sequence[bytes]
    timings: dict[str, float]


def store_ready(
    connection: Connection, embedded: Sequence[EmbeddedDocument], *, model: EmbeddingModel, model_id: int, now: int
) -> frozenset[DocumentId]:
    """Store pages, passages and vectors of queued documents, make them part of retrieval, and end their jobs.

    Returns those that are ready. Nothing is stored for a document that was deleted, cancelled or renamed meanwhile, and
    for none of them if another model serves.
    """
    serving = serving_model(connection)
    if serving is not None and serving.id != model_id:
        return frozenset()
    present = _present(connection, [entry.document.id for entry in embedded])
    wanted = [entry for entry in embedded if _is_unchanged(present.get(entry.document.id), entry.document)]
    if wanted:
        _insert_content(connection, wanted, model_id=model_id)
        _make_ready(connection, wanted, model=model, now=now)
    return frozenset(entry.document.id for entry in wanted)


def _present(connection: Connection, document_ids: Sequence[DocumentId]) -> dict[DocumentId, Document]:
    found = connection.execute(select_documents.where(_documents.c.id.in_(document_ids)))
    return {document.id: document for document in map(document_of, found)}


def _is_unchanged(current: Document | None, read: Document) -> bool:
    return current is not None and current.status is DocumentStatus.QUEUED and current.filename == read.filename


def _insert_content(connection: Connection, wanted: Sequence[EmbeddedDocument], *, model_id: int) -> None:
    """Insert pages, passages, vectors, and the log entries of the indexes."""
    pages = [page_values(entry.document.id, page) for entry in wanted for page in entry.parsed.extraction.pages]
    passages = [
        passage_values(entry.document.id, passage, embedding_hash=digest)
        for entry in wanted
        for passage, digest in zip(entry.parsed.passages, entry.hashes, strict=True)
    ]
    connection.execute(insert(_pages), pages)
    connection.execute(insert(_passages), passages)
    document_ids = [entry.document.id for entry in wanted]
    statement = (
        select(_passages.c.id, _passages.c.document_id)
        .where(_passages.c.document_id.in_(document_ids))
        .order_by(_passages.c.document_id, _passages.c.ordinal)
    )
    passage_ids: dict[int, list[PassageId]] = {document_id: [] for document_id in document_ids}
    for passage_id, document_id in connection.execute(statement):
        passage_ids[document_id].append(PassageId(passage_id))
    connection.execute(
        insert(_embeddings),
        [
            {"model_id": model_id, "passage_id": passage_id, "vector": vector}
            for entry in wanted
            for passage_id, vector in zip(passage_ids[entry.document.id], entry.vectors, strict=True)
        ],
    )
    append_changes(connection, "add", ((entry.document, passage_ids[entry.document.id]) for entry in wanted))


def _make_ready(connection: Connection, wanted: Sequence[EmbeddedDocument], *, model: EmbeddingModel, now: int) -> None:
    """Write the documents as ready, and end their jobs."""
    statement = (
        update(_documents)
        .where(_documents.c.id == bindparam("row_id"))
        .values(
            status=DocumentStatus.READY,
            stage=Stage.READY,
            embedding_model=model.name,
            updated_at=now,
            ready_at=now,
            **{
                name: bindparam(f"new_{name}")
                for name in (
                    "title", "filename", "problems", "timings",
                    "pages_total", "pages_done", "passages_total", "passages_done",
                )
            },
        )
    )  # fmt: skip
    connection.execute(statement, [_ready_values(entry) for entry in wanted])
    connection.execute(delete(_jobs).where(_jobs.c.document_id.in_([entry.document.id for entry in wanted])))


def _ready_values(entry: EmbeddedDocument) -> Mapping[str, Any]:
    extraction, passages = entry.parsed.extraction, len(entry.parsed.passages)
    return {
        "row_id": entry.document.id,
        "new_title": extraction.title,
        "new_filename": entry.filename,
        "new_problems": _encode(extraction.problems),
        "new_timings": _encode(entry.timings),
        "new_pages_total": extraction.page_count,
        "new_pages_done": extraction.page_count,
        "new_passages_total": passages,
        "new_passages_done": passages,
    }
