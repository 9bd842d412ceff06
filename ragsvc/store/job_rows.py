"""Statements about jobs: queue, claim, report progress, and the end of a job. Callers own the transaction.

A job of a ready document renews its vectors after a rename; every other job ingests the document. Where several
processes can claim at a time (PostgreSQL), a claim locks its rows and passes over those that another one has locked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from enum import Enum
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.core.errors import FailureReason
from ragsvc.core.file_types import MARKDOWN, TEXT
from ragsvc.core.ids import DocumentId, TenantId
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.store.document_rows import document_of, get_by_row_id, has_other_names, select_documents
from ragsvc.store.driver_statement import DriverStatement
from ragsvc.store.engines import engine_of
from ragsvc.store.index_log_rows import append_change, passage_ids_of_document
from ragsvc.store.parsed_rows import clear_parsed
from ragsvc.store.serving_model import lacks_vectors, serving_model
from ragsvc.store.tables import CollectionRow, DocumentRow, JobRow, table_of

_collections = table_of(CollectionRow)
_documents = table_of(DocumentRow)
_jobs = table_of(JobRow)

_encode = msgspec.json.encode


SMALL_FILE_BYTES: Final = 8192
"""A text of at most so many bytes is ingested together with others."""
_SMALL_TYPES: Final = frozenset({TEXT, MARKDOWN})
_QUEUED: Final = "queued"
_QUEUED_SMALL: Final = "queued small"
"""The state of a queued job that may run together with others; a job that is queued again runs by itself."""
_RUNNING: Final = "running"


_count_jobs = DriverStatement(select(func.count()).select_from(_jobs))
_insert_small = DriverStatement(
    insert(_jobs).values(
        document_id=bindparam("document_id"),
        tenant=bindparam("tenant"),
        state=_QUEUED_SMALL,
        attempts=0,
        created_at=bindparam("created_at"),
    )
)


def is_small(media_type: str, size_bytes: int) -> bool:
    """Whether a file may be ingested together with others."""
    return media_type in _SMALL_TYPES and size_bytes <= SMALL_FILE_BYTES


class JobWork(Enum):
    """The next step of a job."""

    PARSE = "parse"
    EMBED = "embed"
    RENEW_VECTORS = "renew vectors"


class ClaimedJob(msgspec.Struct, frozen=True):
    """A job that this process runs, and its document as it was before the claim."""

    job_id: int
    document: Document
    attempts: int
    password: str | None
    work: JobWork


class JobOutcome(Enum):
    """Whether a job ended, or why it has to go on."""

    DONE = "done"
    DOCUMENT_DELETED = "document deleted"
    DOCUMENT_RENAMED = "document renamed"
    MODEL_CHANGED = "model changed"


def enqueue(
    connection: Connection, document_id: DocumentId, tenant: TenantId, *, password: str | None, now: int
) -> None:
    """Queue a document, replacing a job that has ended."""
    connection.execute(delete(_jobs).where(_jobs.c.document_id == document_id))
    connection.execute(
        insert(_jobs).values(
            document_id=document_id, tenant=tenant, state=_QUEUED, attempts=0, password=password, created_at=now
        )
    )


def enqueue_small(connection: Connection, document_id: DocumentId, tenant: TenantId, *, now: int) -> None:
    """Queue a document that has no job and may run together with others (see ``is_small``)."""
    _insert_small.run(connection, document_id=document_id, tenant=tenant, created_at=now).close()


def enqueue_new(
    connection: Connection,
    document_ids: Sequence[DocumentId],
    tenant: TenantId,
    *,
    now: int,
    small: Collection[DocumentId] = (),
) -> None:
    """Queue documents that have no job. Those in ``small`` (see ``is_small``) may run together."""
    if document_ids:
        values = {"tenant": tenant, "attempts": 0, "created_at": now}
        rows = [
            {"document_id": document_id, "state": _QUEUED_SMALL if document_id in small else _QUEUED, **values}
            for document_id in document_ids
        ]
        connection.execute(insert(_jobs), rows)


def enqueue_renewal(connection: Connection, document: Document, *, now: int) -> None:
    """Queue new vectors for a ready document. A job that is queued or running already will use the latest name."""
    values = {"document_id": document.id, "tenant": document.tenant, "state": _QUEUED, "attempts": 0, "created_at": now}
    connection.execute(engine_of(connection).insert_or_ignore(_jobs).values(**values))


def claim(
    connection: Connection,
    *,
    now: int,
    waiting: Collection[int] = (),
    busy: Collection[DocumentId] = (),
    also_small: bool = True,
) -> ClaimedJob | None:
    """Take the next job: ingest before renewal, then the tenant with the fewest running jobs, then the oldest job.

    Jobs of collections that are being deleted are passed over; they are removed with their documents.
    ``waiting`` are ids of jobs that must not run yet, ``busy`` documents of which no job must run yet. With
    ``also_small=False``, jobs that may run together are left to ``claim_small``.
    """
    passed_over = set(waiting)
    while (job_id := _next_job(connection, _claimable(passed_over, busy), also_small=also_small)) is not None:
        row = connection.execute(
            select(_jobs).where(_jobs.c.id == job_id, _jobs.c.state != _RUNNING).with_for_update(skip_locked=True)
        ).one_or_none()
        if row is not None:
            break
        passed_over.add(job_id)  # another process claims it at the same time
    else:
        return None
    document = get_by_row_id(connection, DocumentId(row.document_id))
    assert document is not None  # noqa: S101 - jobs cascade with their document, and its collection is not deleted
    connection.execute(update(_jobs).where(_jobs.c.id == row.id).values(state=_RUNNING, attempts=row.attempts + 1))
    work = _next_work(document)
    if work is not JobWork.RENEW_VECTORS:
        set_progress(connection, document.id, stage=_first_stage(document, work), now=now)
    return ClaimedJob(job_id=row.id, document=document, attempts=row.attempts + 1, password=row.password, work=work)


def _next_job(connection: Connection, claimable: ColumnElement[bool], *, also_small: bool) -> int | None:
    is_renewal = _documents.c.status == DocumentStatus.READY
    return (
        _next_of(connection, claimable & ~is_renewal)
        or (_next_of(connection, claimable & ~is_renewal, state=_QUEUED_SMALL) if also_small else None)
        or _next_of(connection, claimable & is_renewal)
    )


def claim_small(
    connection: Connection,
    *,
    limit: int,
    tenant: TenantId | None = None,
    after: TenantId | None = None,
    waiting: Collection[int] = (),
    busy: Collection[DocumentId] = (),
) -> list[ClaimedJob]:
    """Take up to ``limit`` jobs of one tenant that may run together, the oldest first; ``waiting`` as in ``claim``.

    Without ``tenant``, the tenants take turns: it is the next one ``after`` the tenant whose jobs ran last.

    The status of their documents stays ``queued``: they become ready in one step.
    """
    claimable = _claimable(waiting, busy)
    if tenant is None:
        tenant = _next_with_small(connection, claimable, after=after)
        if tenant is None:
            return []
    statement = (
        select_documents.join(_jobs, _jobs.c.document_id == _documents.c.id)
        .add_columns(_jobs.c.id.label("job_id"), _jobs.c.attempts.label("job_attempts"))
        .where(_jobs.c.state == _QUEUED_SMALL, _jobs.c.tenant == tenant, claimable)
        .order_by(_jobs.c.id)
        .limit(limit)
        .with_for_update(of=_jobs, skip_locked=True)
    )
    rows = connection.execute(statement).all()
    claimed = _jobs.c.id.in_([row.job_id for row in rows])
    connection.execute(update(_jobs).where(claimed).values(state=_RUNNING, attempts=_jobs.c.attempts + 1))
    return [
        ClaimedJob(
            job_id=row.job_id,
            document=document_of(row),
            attempts=row.job_attempts + 1,
            password=None,
            work=JobWork.PARSE,
        )
        for row in rows
    ]


def _next_with_small(
    connection: Connection, claimable: ColumnElement[bool], *, after: TenantId | None
) -> TenantId | None:
    """The next tenant with such a job, in the order of names; after the last one follows the first."""
    statement = (
        select(_jobs.c.tenant)
        .join(_documents, _documents.c.id == _jobs.c.document_id)
        .join(_collections, _collections.c.id == _documents.c.collection_id)
        .where(_jobs.c.state == _QUEUED_SMALL, claimable)
        .order_by(_jobs.c.tenant)
        .limit(1)
    )
    following = None if after is None else connection.execute(statement.where(_jobs.c.tenant > after)).scalar()
    found = connection.execute(statement).scalar() if following is None else following
    return None if found is None else TenantId(found)


def _claimable(waiting: Collection[int], busy: Collection[DocumentId]) -> ColumnElement[bool]:
    return _jobs.c.id.not_in(waiting) & _jobs.c.document_id.not_in(busy) & _collections.c.deleted_at.is_(None)


def _next_of(connection: Connection, condition: ColumnElement[bool], *, state: str = _QUEUED) -> int | None:
    """Id of the job to run next of the queued jobs with this condition.

    Reads the first such job of each tenant that has queued jobs; the index ``jobs_by_tenant`` leads from one tenant to
    the next. A statement that sorts all jobs takes 45 ms of the write thread with 100,000 of them.
    """
    queued = _jobs.c.state == state
    tenants = select(func.min(_jobs.c.tenant).label("tenant")).where(queued).cte("tenants", recursive=True)
    following = select(func.min(_jobs.c.tenant)).where(queued, _jobs.c.tenant > tenants.c.tenant).correlate(tenants)
    tenants = tenants.union_all(select(following.scalar_subquery()).where(tenants.c.tenant.is_not(None)))
    first = (
        select(_jobs.c.id)
        .join(_documents, _documents.c.id == _jobs.c.document_id)
        .join(_collections, _collections.c.id == _documents.c.collection_id)
        .where(queued, _jobs.c.tenant == tenants.c.tenant, condition)
        .order_by(_jobs.c.id)
        .limit(1)
        .correlate(tenants)
    )
    running = (
        select(func.count()).where(_jobs.c.state == _RUNNING, _jobs.c.tenant == tenants.c.tenant).correlate(tenants)
    )
    rows = connection.execute(select(running.scalar_subquery(), first.scalar_subquery()).select_from(tenants))
    found = [(count, job_id) for count, job_id in rows if job_id is not None]
    return min(found)[1] if found else None


def _next_work(document: Document) -> JobWork:
    if document.status is DocumentStatus.READY:
        return JobWork.RENEW_VECTORS
    return JobWork.EMBED if document.passages_total else JobWork.PARSE


def _first_stage(document: Document, work: JobWork) -> Stage:
    if work is JobWork.PARSE:
        return Stage.PARSING
    return Stage.SEARCHABLE if document.is_searchable else Stage.EMBEDDING


def release_running(connection: Connection) -> int:
    """Queue the jobs that a dead process left running; only at start, when this process owns the directory."""
    return connection.execute(update(_jobs).where(_jobs.c.state == _RUNNING).values(state=_QUEUED)).rowcount


def release(connection: Connection, job_id: int, *, count_attempt: bool = False) -> None:
    """Queue a running job again; the attempt counts only if ``count_attempt``. Does nothing if it is not running."""
    attempts = _jobs.c.attempts if count_attempt else _jobs.c.attempts - 1
    running = (_jobs.c.id == job_id) & (_jobs.c.state == _RUNNING)
    connection.execute(update(_jobs).where(running).values(state=_QUEUED, attempts=attempts))


def release_small(connection: Connection, job_ids: Sequence[int], *, together: bool) -> None:
    """Queue running jobs again, to run together or by themselves; the attempt does not count."""
    running = _jobs.c.id.in_(job_ids) & (_jobs.c.state == _RUNNING)
    state = _QUEUED_SMALL if together else _QUEUED
    connection.execute(update(_jobs).where(running).values(state=state, attempts=_jobs.c.attempts - 1))


def has_room(connection: Connection, most: int) -> bool:
    """Whether fewer than ``most`` documents are queued or being ingested.

    Counts all jobs first, which reads an index only; new vectors of ready documents are few.
    """
    with closing(_count_jobs.run(connection)) as cursor:
        (jobs,) = cursor.fetchone()
    return jobs < most or waiting_count(connection) < most


def waiting_count(connection: Connection) -> int:
    """How many documents are queued or being ingested."""
    statement = (
        select(func.count())
        .select_from(_jobs.join(_documents, _documents.c.id == _jobs.c.document_id))
        .where(_documents.c.status != DocumentStatus.READY)
    )
    return int(connection.execute(statement).scalar_one())


def set_progress(
    connection: Connection,
    document_id: DocumentId,
    *,
    stage: Stage,
    now: int,
    pages_done: int | None = None,
    pages_total: int | None = None,
) -> None:
    """Write the stage and the page counts of a document that is being ingested."""
    values: dict[str, Any] = {"status": DocumentStatus.PROCESSING, "stage": stage, "updated_at": now}
    if pages_done is not None:
        values["pages_done"] = pages_done
    if pages_total is not None:
        values["pages_total"] = pages_total
    connection.execute(update(_documents).where(_documents.c.id == document_id).values(**values))


def mark_ready(
    connection: Connection,
    embedded: Document,
    *,
    model: EmbeddingModel,
    model_id: int,
    timings: dict[str, float],
    now: int,
) -> JobOutcome:
    """Make a document ready: status and the end of its job in one step. Its words and vectors are searchable already.

    ``embedded`` is the document as it was when its passages were embedded with ``model``. Nothing changes unless the
    outcome is ``DONE``: after a rename or a change of the serving model its vectors are not valid.
    """
    document = get_by_row_id(connection, embedded.id)
    if document is None:
        return JobOutcome.DOCUMENT_DELETED
    outcome = _outcome_of_embedding(connection, document, embedded, model_id)
    if outcome is not JobOutcome.DONE:
        return outcome
    passage_ids = passage_ids_of_document(connection, document.id)
    if not document.is_searchable:
        append_change(connection, document, "add", passage_ids)
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document.id)
        .values(
            status=DocumentStatus.READY,
            stage=Stage.READY,
            embedding_model=model.name,
            timings=_encode({**document.timings, **timings}),
            passages_done=len(passage_ids),
            failure_code=None,
            failure_message=None,
            updated_at=now,
            ready_at=now,
        )
    )
    end_job(connection, document.id)
    return JobOutcome.DONE


def finish_renewal(connection: Connection, embedded: Document, *, model_id: int) -> JobOutcome:
    """End a job that renewed vectors, unless the document was renamed or another model began to serve meanwhile."""
    document = get_by_row_id(connection, embedded.id)
    if document is None:
        return JobOutcome.DOCUMENT_DELETED
    outcome = _outcome_of_embedding(connection, document, embedded, model_id)
    if outcome is JobOutcome.DONE:
        end_job(connection, document.id)
    return outcome


def end_failed_renewal(connection: Connection, job: ClaimedJob) -> bool:
    """End a job that failed to renew vectors too often; returns whether it ended.

    If the document was renamed while the job ran, the job is queued again, with all attempts for the new name.
    """
    document = get_by_row_id(connection, job.document.id)
    if document is not None and has_other_names(document, job.document):
        connection.execute(update(_jobs).where(_jobs.c.id == job.job_id).values(state=_QUEUED, attempts=0))
        return False
    end_job(connection, job.document.id)
    return True


def _outcome_of_embedding(connection: Connection, document: Document, embedded: Document, model_id: int) -> JobOutcome:
    """``DONE`` if the serving model has a vector of every passage, made with the document's present name.

    A rename deletes vectors. After a rename to another name and back, the names are equal and vectors are missing.
    """
    serving = serving_model(connection)
    if serving is not None and serving.id != model_id:
        return JobOutcome.MODEL_CHANGED
    if has_other_names(document, embedded) or lacks_vectors(connection, document.id, model_id):
        return JobOutcome.DOCUMENT_RENAMED
    return JobOutcome.DONE


def end_job(connection: Connection, document_id: DocumentId) -> None:
    connection.execute(delete(_jobs).where(_jobs.c.document_id == document_id))


def mark_failed(
    connection: Connection,
    document_id: DocumentId,
    *,
    code: str,
    message: str,
    now: int,
) -> bool:
    """End an ingest as failed and keep the reason in the document's row; ``False`` if the document was deleted.

    A document that was searchable already no longer is.
    """
    document = get_by_row_id(connection, document_id)
    if document is None:
        return False
    clear_parsed(connection, document)
    values: dict[str, Any] = {
        "status": DocumentStatus.FAILED,
        "stage": Stage.FAILED,
        "failure_code": code,
        "failure_message": message,
        "passages_total": 0,
        "passages_done": 0,
        "updated_at": now,
    }
    connection.execute(update(_documents).where(_documents.c.id == document_id).values(**values))
    end_job(connection, document_id)
    return True


def cancel_queued(connection: Connection, document_ids: Collection[DocumentId], *, now: int) -> None:
    """End the jobs of documents whose ingest has not begun; the documents fail with the reason ``cancelled``."""
    values = {
        "status": DocumentStatus.FAILED,
        "stage": Stage.FAILED,
        "failure_code": FailureReason.CANCELLED,
        "failure_message": "The ingest was cancelled before it began.",
        "updated_at": now,
    }
    connection.execute(update(_documents).where(_documents.c.id.in_(document_ids)).values(**values))
    connection.execute(delete(_jobs).where(_jobs.c.document_id.in_(document_ids)))


def requeue(connection: Connection, document: Document, *, password: str | None, now: int) -> None:
    """Start a failed document again from the beginning."""
    clear_parsed(connection, document)
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
