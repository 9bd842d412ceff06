"""Statements of the ingest job: claim, progress, parsed text, vectors, the end. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, delete, func, insert, select, update

from ragsvc.core.documents import Document, DocumentStatus, Passage, Problem, Stage
from ragsvc.core.ids import CollectionId, DocumentId, PassageId, TenantId
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.core.ports.indexes import Ids
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.store.document_rows import get_by_row_id
from ragsvc.store.serving_model import serving_model
from ragsvc.store.tables import (
    DocumentRow,
    EmbeddingModelRow,
    EmbeddingRow,
    IndexLogRow,
    JobRow,
    PageRow,
    PassageRow,
    table_of,
)

_documents = table_of(DocumentRow)
_pages = table_of(PageRow)
_passages = table_of(PassageRow)
_embeddings = table_of(EmbeddingRow)
_models = table_of(EmbeddingModelRow)
_jobs = table_of(JobRow)
_index_log = table_of(IndexLogRow)

_encode = msgspec.json.encode
_HASHES_AT_ONCE = 500


class ClaimedJob(msgspec.Struct, frozen=True):
    """A document to work on. ``parsed`` says that its pages and passages are stored already."""

    job_id: int
    document: Document
    attempts: int
    password: str | None
    parsed: bool


class PendingPassage(msgspec.Struct, frozen=True):
    """A passage that has no vector yet."""

    id: PassageId
    passage: Passage
    embedding_hash: bytes


def embedding_hash(text: str) -> bytes:
    """BLAKE2b-128 of what is embedded: equal hashes of one tenant share one vector."""
    return blake2b(text.encode(), digest_size=16).digest()


def model_row_id(connection: Connection, model: EmbeddingModel, *, setting: str = "", now: int) -> int:
    """Row id of an embedding model, registered when new; ``setting`` is what opens it again."""
    statement = select(_models.c.id).where(_models.c.fingerprint == model.fingerprint)
    found = connection.execute(statement).scalar_one_or_none()
    if found is not None:
        return int(found)
    connection.execute(
        insert(_models).values(
            name=model.name,
            dimension=model.dimension,
            fingerprint=model.fingerprint,
            setting=setting or model.name,
            created_at=now,
        )
    )
    return int(connection.execute(statement).scalar_one())


# -- jobs ------------------------------------------------------------------------------------------------------


def enqueue(
    connection: Connection, document_id: DocumentId, tenant: TenantId, *, password: str | None, now: int
) -> None:
    """Queue a document, replacing a job that has ended."""
    connection.execute(delete(_jobs).where(_jobs.c.document_id == document_id))
    connection.execute(
        insert(_jobs).values(
            document_id=document_id, tenant=tenant, state="queued", attempts=0, password=password, created_at=now
        )
    )


def claim(connection: Connection, *, now: int) -> ClaimedJob | None:
    """Take the next job: of the tenant with the fewest running ones, oldest first."""
    running = select(_jobs.c.tenant, func.count().label("n")).where(_jobs.c.state == "running")
    counts = running.group_by(_jobs.c.tenant).subquery()
    statement = (
        select(_jobs.c.id, _jobs.c.document_id, _jobs.c.attempts, _jobs.c.password)
        .outerjoin(counts, counts.c.tenant == _jobs.c.tenant)
        .where(_jobs.c.state == "queued")
        .order_by(func.coalesce(counts.c.n, 0), _jobs.c.id)
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    document = get_by_row_id(connection, DocumentId(row.document_id))
    assert document is not None  # noqa: S101 - jobs cascade with their document
    stage = Stage.EMBEDDING if document.passages_total else Stage.PARSING
    connection.execute(update(_jobs).where(_jobs.c.id == row.id).values(state="running", attempts=row.attempts + 1))
    set_progress(connection, document.id, stage=stage, now=now)
    return ClaimedJob(
        job_id=row.id,
        document=document,
        attempts=row.attempts + 1,
        password=row.password,
        parsed=stage is Stage.EMBEDDING,
    )


def release_running(connection: Connection) -> int:
    """Queue what a dead process left running; only at start, when this process owns the directory."""
    return connection.execute(update(_jobs).where(_jobs.c.state == "running").values(state="queued")).rowcount


def release(connection: Connection, job_id: int) -> None:
    """Give a job back untouched (shutdown); the attempt does not count."""
    connection.execute(update(_jobs).where(_jobs.c.id == job_id).values(state="queued", attempts=_jobs.c.attempts - 1))


def queued_count(connection: Connection) -> int:
    """How many jobs wait or run."""
    return int(connection.execute(select(func.count()).select_from(_jobs)).scalar_one())


# -- progress --------------------------------------------------------------------------------------------------


def set_progress(
    connection: Connection,
    document_id: DocumentId,
    *,
    stage: Stage,
    now: int,
    pages_done: int | None = None,
    pages_total: int | None = None,
) -> None:
    """Write where a running job stands."""
    values: dict[str, Any] = {"status": DocumentStatus.PROCESSING, "stage": stage, "updated_at": now}
    if pages_done is not None:
        values["pages_done"] = pages_done
    if pages_total is not None:
        values["pages_total"] = pages_total
    connection.execute(update(_documents).where(_documents.c.id == document_id).values(**values))


def store_parsed(
    connection: Connection,
    document_id: DocumentId,
    parsed: ParsedDocument,
    *,
    embedding_texts: Sequence[str],
    timings: dict[str, float],
    now: int,
) -> bool:
    """Store pages and passages, replacing what an earlier try left. False when the document was deleted meanwhile."""
    if get_by_row_id(connection, document_id) is None:
        return False
    clear_parsed(connection, document_id)
    extraction = parsed.extraction
    if extraction.pages:
        connection.execute(
            insert(_pages),
            [
                {"document_id": document_id, "number": page.number, "label": page.label, "text": page.text}
                for page in extraction.pages
            ],
        )
    if parsed.passages:
        connection.execute(
            insert(_passages),
            [
                _passage_values(document_id, passage, text)
                for passage, text in zip(parsed.passages, embedding_texts, strict=True)
            ],
        )
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document_id)
        .values(
            stage=Stage.EMBEDDING,
            title=extraction.title,
            problems=_encode(extraction.problems),
            timings=_encode(timings),
            pages_total=extraction.page_count,
            pages_done=extraction.page_count,
            passages_total=len(parsed.passages),
            passages_done=0,
            updated_at=now,
        )
    )
    return True


def _passage_values(document_id: DocumentId, passage: Passage, text: str) -> dict[str, Any]:
    return {
        "document_id": document_id,
        "ordinal": passage.ordinal,
        "page": passage.page,
        "page_label": passage.page_label,
        "start": passage.start,
        "end": passage.end,
        "token_count": passage.token_count,
        "headings": _encode(passage.headings),
        "embedding_hash": embedding_hash(text),
        "text": passage.text,
    }


def clear_parsed(connection: Connection, document_id: DocumentId) -> None:
    """Remove pages, passages and vectors of a document that is not ready."""
    connection.execute(delete(_pages).where(_pages.c.document_id == document_id))
    connection.execute(delete(_passages).where(_passages.c.document_id == document_id))


_decode_headings = msgspec.json.Decoder(tuple[str, ...]).decode


def pending_passages(
    connection: Connection, document_id: DocumentId, model_id: int, *, after: int, limit: int
) -> list[PendingPassage]:
    """Passages of a document without a vector of the model, in order of id, from beyond ``after``."""
    statement = (
        select(_passages)
        .outerjoin(_embeddings, (_embeddings.c.passage_id == _passages.c.id) & (_embeddings.c.model_id == model_id))
        .where(_passages.c.document_id == document_id, _passages.c.id > after, _embeddings.c.passage_id.is_(None))
        .order_by(_passages.c.id)
        .limit(limit)
    )
    return [
        PendingPassage(
            id=PassageId(row.id),
            passage=Passage(
                ordinal=row.ordinal,
                page=row.page,
                start=row.start,
                end=row.end,
                text=row.text,
                headings=_decode_headings(row.headings),
                page_label=row.page_label,
                token_count=row.token_count,
            ),
            embedding_hash=row.embedding_hash,
        )
        for row in connection.execute(statement)
    ]


def cached_vectors(
    connection: Connection, tenant: TenantId, model_id: int, hashes: Sequence[bytes]
) -> dict[bytes, bytes]:
    """Vectors (float16 bytes) that the tenant's other passages with the same embedded text already have."""
    found: dict[bytes, bytes] = {}
    for begin in range(0, len(hashes), _HASHES_AT_ONCE):
        statement = (
            select(_passages.c.embedding_hash, _embeddings.c.vector)
            .join(_embeddings, (_embeddings.c.passage_id == _passages.c.id) & (_embeddings.c.model_id == model_id))
            .join(_documents, _documents.c.id == _passages.c.document_id)
            .where(
                _documents.c.tenant == tenant,
                _passages.c.embedding_hash.in_(hashes[begin : begin + _HASHES_AT_ONCE]),
            )
        )
        found.update({row.embedding_hash: row.vector for row in connection.execute(statement)})
    return found


def store_vectors(
    connection: Connection,
    document_id: DocumentId,
    model_id: int,
    vectors: Sequence[tuple[PassageId, bytes]],
    *,
    now: int,
) -> bool:
    """Store float16 vectors. False when the document was deleted meanwhile."""
    if get_by_row_id(connection, document_id) is None:
        return False
    connection.execute(
        insert(_embeddings).prefix_with("OR REPLACE"),
        [{"model_id": model_id, "passage_id": passage_id, "vector": vector} for passage_id, vector in vectors],
    )
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document_id)
        .values(passages_done=_documents.c.passages_done + len(vectors), updated_at=now)
    )
    return True


# -- the end ---------------------------------------------------------------------------------------------------


class ReadyOutcome(Enum):
    """What became of a document whose passages were embedded."""

    READY = "ready"
    GONE = "gone"
    ANOTHER_MODEL = "another model"


def mark_ready(
    connection: Connection,
    document_id: DocumentId,
    collection_id: CollectionId,
    *,
    model: EmbeddingModel,
    model_id: int,
    timings: dict[str, float],
    now: int,
) -> ReadyOutcome:
    """Make a document part of retrieval: status, log entry and the job's end in one step.

    ``GONE`` when it was deleted; ``ANOTHER_MODEL`` when vectors of ``model_id`` are not what is served any more.
    """
    document = get_by_row_id(connection, document_id)
    if document is None:
        return ReadyOutcome.GONE
    serving = serving_model(connection)
    if serving is not None and serving.id != model_id:
        return ReadyOutcome.ANOTHER_MODEL
    statement = select(_passages.c.id).where(_passages.c.document_id == document_id).order_by(_passages.c.id)
    passage_ids = np.fromiter(connection.execute(statement).scalars(), dtype="<i8")
    if passage_ids.size:
        connection.execute(
            insert(_index_log).values(
                collection_id=collection_id, op="add", document_id=document_id, passage_ids=passage_ids.tobytes()
            )
        )
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document_id)
        .values(
            status=DocumentStatus.READY,
            stage=Stage.READY,
            embedding_model=model.name,
            timings=_encode({**document.timings, **timings}),
            passages_done=int(passage_ids.size),
            failure_code=None,
            failure_message=None,
            updated_at=now,
            ready_at=now,
        )
    )
    connection.execute(delete(_jobs).where(_jobs.c.document_id == document_id))
    return ReadyOutcome.READY


def mark_failed(
    connection: Connection,
    document_id: DocumentId,
    *,
    code: str,
    message: str,
    now: int,
    problems: Sequence[Problem] | None = None,
) -> bool:
    """End a document as failed, keeping the row and its reason. False when it was deleted meanwhile."""
    if get_by_row_id(connection, document_id) is None:
        return False
    clear_parsed(connection, document_id)
    values: dict[str, Any] = {
        "status": DocumentStatus.FAILED,
        "stage": Stage.FAILED,
        "failure_code": code,
        "failure_message": message,
        "passages_total": 0,
        "passages_done": 0,
        "updated_at": now,
    }
    if problems is not None:
        values["problems"] = _encode(list(problems))
    connection.execute(update(_documents).where(_documents.c.id == document_id).values(**values))
    connection.execute(delete(_jobs).where(_jobs.c.document_id == document_id))
    return True


def requeue(connection: Connection, document: Document, *, password: str | None, now: int) -> None:
    """Start a failed document again from the beginning."""
    clear_parsed(connection, document.id)
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document.id)
        .values(
            status=DocumentStatus.QUEUED,
            stage=Stage.QUEUED,
            failure_code=None,
            failure_message=None,
            problems=b"[]",
            timings=b"{}",
            pages_done=0,
            pages_total=0,
            passages_total=0,
            passages_done=0,
            updated_at=now,
        )
    )
    enqueue(connection, document.id, document.tenant, password=password, now=now)


def pack_vectors(vectors: Vectors) -> list[bytes]:
    """Rows as little-endian float16 bytes."""
    halves = np.ascontiguousarray(vectors, dtype="<f2")
    return [row.tobytes() for row in halves]


def unpack_vectors(rows: Sequence[bytes], dimension: int) -> Vectors:
    """``(n, dimension)`` float32 unit rows from stored float16 bytes."""
    halves = np.frombuffer(b"".join(rows), dtype="<f2").reshape(len(rows), dimension)
    vectors = halves.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12))


def unpack_ids(packed: bytes) -> Ids:
    """``(n,)`` int64 from the log's packed form."""
    return np.frombuffer(packed, dtype="<i8").astype(np.int64)
