"""Runs jobs: a queued document is parsed in a child process and embedded in batches, then one commit makes it ready.

The words of a document are searchable once it is parsed, and its vectors batch by batch. A short document is usually
embedded within that time, so that its words and vectors become searchable together; its words do not wait longer than
a second for the vectors. A document that fails is not searchable any more.

A job of a ready document replaces its vectors after a rename. Every step is idempotent: a job that a crash or a
shutdown interrupted continues from the rows that it had stored.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import msgspec
from sqlalchemy import Connection

from ragsvc.core.documents import Document, DocumentStatus, Page, Problem, ProblemCode, Stage
from ragsvc.core.errors import (
    EmbeddingFailed,
    ExtractionFailed,
    FailureReason,
    Overloaded,
    ShuttingDown,
    StorageFull,
    StorageUnavailable,
    StoredDataDamaged,
)
from ragsvc.core.file_types import PICTURES
from ragsvc.core.ids import DocumentId, TenantId
from ragsvc.core.log_events import log_event
from ragsvc.core.observation import ObservedOperation, Observer
from ragsvc.core.ports.parsing import BatchParser, ParsedDocument, Parser, RecognitionDeferred, RecognitionTurn
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.attached_documents import AttachedDocuments, AttachmentLimits, picture_left_out
from ragsvc.services.early_pages import EarlyPages
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.file_locks import FileLocks
from ragsvc.services.file_removals import FileRemovals
from ragsvc.services.index_lag import IndexLag
from ragsvc.services.passage_vectors import (
    EMBEDDED_AT_ONCE,
    DocumentGone,
    DocumentRenamed,
    EmbeddingSteps,
    PassageVectors,
)
from ragsvc.services.progress_events import ProgressHub
from ragsvc.services.recognition_share import JobPlace, RecognitionShare
from ragsvc.services.small_documents import IngestedTogether, SmallDocuments
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import attachment_rows
from ragsvc.store import job_rows as rows
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.disk_space import DiskSpace
from ragsvc.store.document_rows import DeletedDocument, add_problem, delete_document, get_by_row_id
from ragsvc.store.file_rows import has_files_beside_own
from ragsvc.store.job_rows import ClaimedJob, JobOutcome, JobWork
from ragsvc.store.parsed_rows import make_searchable, store_parsed

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 10
_PROGRESS_EVERY_S = 0.5
_IDLE_POLL_S = 30.0
_RETRY_S = 5.0
_FULL_POLL_S = 1.0
_PATIENCE_S = 1.0
_SMALL_AT_ONCE = 64
"""Most small documents that are ingested together: they share each fixed cost, and none waits for many others."""
_GATHER_S = 0.2
_GATHER_POLL_S = 0.02
_STREAM_S = 1.0
"""If small documents were ingested together within this time, the next ones wait ``_GATHER_S`` for further ones."""
_MAY_NEED_DISK = frozenset({FailureReason.PARSER_CRASHED, FailureReason.INTERNAL_ERROR, FailureReason.DAMAGED})
"""Failures of the parser that a full disk can cause, as its child process may write temporary files."""


class IngestLimits(msgspec.Struct, frozen=True, kw_only=True):
    workers: int = 3
    recognisers: int = 2
    attachments: AttachmentLimits = AttachmentLimits()
    quotas: TenantQuotas = TenantQuotas()


class IngestService:
    """Runs the ingest jobs of one data directory."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        parser: Parser,
        spaces: EmbeddingSpaces,
        index_lag: IndexLag,
        hub: ProgressHub,
        options: IngestLimits,
        clock: Callable[[], float] = time.time,
        retry_s: float = _RETRY_S,
        patience_s: float = _PATIENCE_S,
        space: DiskSpace | None = None,
        observer: Observer | None = None,
        early: EarlyPages | None = None,
    ) -> None:
        """``retry_s``: seconds until the next attempt after an error that may pass.

        ``patience_s``: a short document whose vectors take longer becomes searchable by its words before.
        ``early`` takes the pages of documents that are being parsed.

        While the disk is full, which ``space`` knows, no job is begun. After a fault of the service, such as a full
        queue, the worker pauses as well as the job. After a failed renewal only its job waits, and the worker runs
        other jobs.
        """
        self._retry_s = retry_s
        self.early = early
        self._patience_s = patience_s
        self._space = space
        self._unreleased: set[int] = set()
        self._database = database
        self._blobs = blobs
        self._parser = parser
        self._spaces = spaces
        self._vectors = PassageVectors(database, clock=clock)
        self.file_locks = FileLocks()
        self.file_removals = FileRemovals(database, blobs, self.file_locks)
        self._attached = AttachedDocuments(
            database,
            blobs,
            self.file_locks,
            self.file_removals,
            limits=options.attachments,
            quotas=options.quotas,
        )
        self._small = (
            SmallDocuments(
                database=database, blobs=blobs, parser=parser, spaces=spaces, index_lag=index_lag, clock=clock
            )
            if isinstance(parser, BatchParser)
            else None
        )
        self._index_lag = index_lag
        self._hub = hub
        self._options = options
        self._clock = clock
        self._observer = observer or Observer()
        self._wake = anyio.Event()
        self._wake_small = anyio.Event()
        self._running_together: set[DocumentId] = set()
        self._small_queued = 0
        self._last_small: TenantId | None = None
        self._stream_until = 0.0
        self._draining = anyio.Event()
        self._claiming = anyio.Lock()
        self._scopes: dict[DocumentId, anyio.CancelScope] = {}
        self._ended: dict[DocumentId, anyio.Event] = {}
        self._places = anyio.Semaphore(options.workers)
        self._recognition = RecognitionShare(options.recognisers)
        self._pace: dict[DocumentId, tuple[float, int]] = {}
        self._not_before: dict[int, float] = {}

    def now(self) -> int:
        return int(self._clock())

    def kick(self, *, small: bool = False) -> None:
        """Wake the workers, because a job was queued; ``small``: one that may run together with others."""
        if not small or self._small is None:
            self._wake.set()
        self._small_queued += small
        self._wake_small.set()

    async def resume(self) -> None:
        """Wake the workers, because the disk has room again."""
        self.kick()

    def running_count(self) -> int:
        """How many jobs are running."""
        return len(self._scopes)

    def stop_work_on(self, document_id: DocumentId) -> None:
        """Stop the job of a document that was deleted; a job that runs together with others ends in a moment."""
        scope = self._scopes.get(document_id)
        if scope is not None and document_id not in self._running_together:
            scope.cancel()
        self._recognition.forget(document_id)
        if self.early is not None:
            self.early.drop(document_id)

    async def stop_work_on_all(self, document_ids: Collection[DocumentId]) -> None:
        """Stop the jobs of documents that are being deleted, and wait until they have stopped."""
        for document_id in document_ids:
            self.stop_work_on(document_id)
        for document_id in document_ids:
            if (ended := self._ended.get(document_id)) is not None:
                await ended.wait()

    def eta_s(self, document: Document) -> float | None:
        """Seconds until ready, estimated from this document's progress so far; ``None`` if unknown."""
        if (recognition_s := self._recognition.eta_s(document)) is not None:
            return recognition_s
        pace = self._pace.get(document.id)
        if pace is None or document.passages_total == 0 or document.status is DocumentStatus.READY:
            return None
        started, done_at_start = pace
        done = document.passages_done - done_at_start
        elapsed = time.monotonic() - started
        if done <= 0 or elapsed <= 0:
            return None
        return round((document.passages_total - document.passages_done) * elapsed / done, 1)

    async def run(self) -> None:
        """Run jobs until cancelled or drained."""
        await self._release_running()
        async with anyio.create_task_group() as group:
            for _ in range(self._options.workers + self._options.recognisers):
                group.start_soon(self._work)
            if self._small is not None:
                group.start_soon(self._work_on_small, self._small)

    async def _release_running(self) -> None:
        """Queue the jobs that a killed process left, as soon as the disk has room."""
        while not self._draining.is_set():
            try:
                await self._database.write(rows.release_running)
            except (StorageFull, Overloaded):
                await self._pause(self._retry_s)
            else:
                return

    def drain(self) -> None:
        """Claim no more jobs and queue the running ones again, for the next start."""
        self._draining.set()
        self.kick()
        for scope in list(self._scopes.values()):
            scope.cancel()

    async def _work(self) -> None:
        while not self._draining.is_set():
            wake = self._wake
            await self._places.acquire()
            place = JobPlace(self._places)
            try:
                job = await self._claim()
                if job is not None and not await self._run_job(job, place):
                    await self._pause(self._retry_s)
            finally:
                place.leave()
            if job is None:
                with anyio.move_on_after(self._idle_s()):
                    await wake.wait()
                if self._wake is wake and wake.is_set():
                    self._wake = anyio.Event()

    async def _work_on_small(self, small: SmallDocuments) -> None:
        """Run small jobs together: all that were queued while the ones before them ran."""
        while not self._draining.is_set():
            wake = self._wake_small
            jobs = await self._claim_small()
            if not jobs:
                with anyio.move_on_after(self._idle_s()):
                    await wake.wait()
                if self._wake_small is wake and wake.is_set():
                    self._wake_small = anyio.Event()
                continue
            if not await self._run_together(small, jobs):
                await self._pause(self._retry_s)
            if len(jobs) > 1:
                self._stream_until = time.monotonic() + _STREAM_S

    async def _gather(self, jobs: Sequence[ClaimedJob]) -> bool:
        """Wait a moment for further small documents if many arrive; ``False`` if there are none.

        Nobody is kept waiting: not while a request waits for one of these documents, and not for a single document.
        """
        deadline = time.monotonic() + _GATHER_S
        if time.monotonic() > self._stream_until:
            return False
        while len(jobs) + self._small_queued < _SMALL_AT_ONCE and time.monotonic() < deadline:
            if self._draining.is_set() or any(self._hub.is_watched(job.document.public_id) for job in jobs):
                break
            await self._pause(_GATHER_POLL_S)
        return self._small_queued > 0 and len(jobs) < _SMALL_AT_ONCE and not self._draining.is_set()

    async def _claim_small(self, tenant: TenantId | None = None, *, limit: int = _SMALL_AT_ONCE) -> list[ClaimedJob]:
        """The next small jobs, if there are some and the disk has room; with ``tenant``, to add them to its others."""
        if self._space is not None and self._space.is_full:
            await self._pause(min(self._retry_s, _FULL_POLL_S))
            return []
        waiting, after = self._jobs_that_wait(), self._last_small
        try:
            async with self._claiming:
                if self._draining.is_set():
                    return []
                self._small_queued = 0
                busy = list(self._scopes)
                jobs = await write_to_the_end(
                    self._database,
                    lambda connection: rows.claim_small(
                        connection, limit=limit, tenant=tenant, after=after, waiting=waiting, busy=busy
                    ),
                )
                if jobs:
                    self._last_small = jobs[0].document.tenant
                scope = anyio.CancelScope()
                for job in jobs:
                    self._scopes[job.document.id] = scope
                    self._ended[job.document.id] = anyio.Event()
        except (StorageFull, Overloaded):
            await self._pause(self._retry_s)
            return []
        if self._draining.is_set():
            scope.cancel()
        return jobs

    async def _run_together(self, small: SmallDocuments, jobs: list[ClaimedJob]) -> bool:
        """Run claimed jobs together. Those that do not end are queued: by themselves, or all again after a fault.

        Adds jobs that are gathered to ``jobs``. Returns ``False`` for a passing fault of the service.
        """
        observed: dict[DocumentId, ObservedOperation] = {}
        ingested = IngestedTogether()
        again = True
        scope = anyio.CancelScope()
        self._share_scope(jobs, scope)
        try:
            with scope:
                if await self._gather(jobs):
                    more = await self._claim_small(jobs[0].document.tenant, limit=_SMALL_AT_ONCE - len(jobs))
                    jobs += more
                    self._share_scope(more, scope)
                for job in jobs:
                    observed[job.document.id] = self._observer.begin(
                        "ingest", document_id=job.document.public_id, media_type=job.document.media_type
                    )
                ingested = await small.ingest([job.document for job in jobs])
                again = False
        except (StorageFull, StorageUnavailable, Overloaded):
            return False
        except ShuttingDown:
            pass
        except Exception as error:  # noqa: BLE001 - each document runs by itself, and fails for its own reason
            again = self._is_of_full_disk(error)
            if not isinstance(error, EmbeddingFailed | ExtractionFailed):
                _log_without_content(error, f"{len(jobs)} small documents")
            return not again
        finally:
            with anyio.CancelScope(shield=True):
                await self._end_together(jobs, observed, ingested, again=again)
        return True

    def _share_scope(self, jobs: Sequence[ClaimedJob], scope: anyio.CancelScope) -> None:
        """Let a stop of the service cancel jobs that run together, but not the deletion of one of the documents."""
        for job in jobs:
            if self._scopes[job.document.id].cancel_called:
                scope.cancel()
            self._scopes[job.document.id] = scope
            self._running_together.add(job.document.id)

    async def _end_together(
        self,
        jobs: Sequence[ClaimedJob],
        observed: Mapping[DocumentId, ObservedOperation],
        ingested: IngestedTogether,
        *,
        again: bool,
    ) -> None:
        left = [job.job_id for job in jobs if job.document.id not in ingested.ready]
        if left:
            try:
                await self._database.write(lambda connection: rows.release_small(connection, left, together=again))
            except (StorageFull, Overloaded):
                self._unreleased.update(left)
            except ShuttingDown:
                logger.warning("%d jobs could not be queued again; the next start queues them", len(left))
        for job in jobs:
            document = job.document
            if (operation := observed.get(document.id)) is not None:
                if document.id in ingested.ready:
                    for stage, seconds in ingested.stage_s.items():
                        operation.stage_ended(stage, seconds)
                    operation.end()
                operation.end("cancelled")
            self._running_together.discard(document.id)
            self._scopes.pop(document.id)
            self._ended.pop(document.id).set()
            self._hub.notify(document)
        if left and not again:
            self.kick()

    def _is_of_full_disk(self, error: Exception) -> bool:
        try:
            self._raise_if_disk_is_full(error, suspect=True)
        except StorageFull:
            return True
        return False

    async def _pause(self, seconds: float) -> None:
        """Wait after a fault, but not longer than until ``drain``."""
        with anyio.move_on_after(seconds):
            await self._draining.wait()

    def _idle_s(self) -> float:
        """Seconds until a job may have become claimable without a call of ``kick``."""
        first = min(self._not_before.values(), default=math.inf)
        return min(_IDLE_POLL_S, max(0.0, first - time.monotonic()))

    def _jobs_that_wait(self) -> list[int]:
        """Ids of failed jobs whose next attempt is not due yet; forgets the jobs that are due."""
        now = time.monotonic()
        self._not_before = {job_id: due for job_id, due in self._not_before.items() if due > now}
        return list(self._not_before)

    async def _claim(self) -> ClaimedJob | None:
        """The next job, if there is one and the disk has room."""
        if self._space is not None and self._space.is_full:
            await self._pause(min(self._retry_s, _FULL_POLL_S))
            return None
        try:
            async with self._claiming:  # until the job is in ``_scopes``: the next claim has to know its document
                return None if self._draining.is_set() else await self._claim_next()
        except (StorageFull, Overloaded):
            await self._pause(self._retry_s)
            return None

    async def _claim_next(self) -> ClaimedJob | None:
        """Claim a job of a document that no worker has; jobs that could not be queued again come back first.

        A document can have a new job before the worker of the former job has finished with it: a rename queues one as
        soon as the document is ready.
        """
        waiting, busy = [*self._jobs_that_wait(), *self._recognition.deferred], list(self._scopes)
        unreleased, self._unreleased = self._unreleased, set()

        def claim(connection: Connection) -> ClaimedJob | None:
            for job_id in unreleased:
                rows.release(connection, job_id)
            return rows.claim(connection, now=self.now(), waiting=waiting, busy=busy, also_small=self._small is None)

        try:
            job = await write_to_the_end(self._database, claim)  # a committed claim has to be run or put back
        except BaseException:
            self._unreleased |= unreleased
            raise
        if job is not None:
            scope = self._scopes[job.document.id] = anyio.CancelScope()
            self._ended[job.document.id] = anyio.Event()
            if self._draining.is_set():
                scope.cancel()
        return job

    async def _run_job(self, job: ClaimedJob, place: JobPlace) -> bool:
        """Run a claimed job; ``False`` if it is queued again because of a passing fault.

        A job that is cancelled is queued again, whoever cancels it. After any other error the row says that it runs:
        the next start queues it, and counts the attempt.
        """
        document = job.document
        self._hub.notify(document)
        is_renewal = job.work is JobWork.RENEW_VECTORS  # of a ready document: neither an ingest nor a failed one
        observer = Observer() if is_renewal else self._observer
        observed = observer.begin("ingest", document_id=document.public_id, media_type=document.media_type)
        ended, interrupted, deferred = True, False, False
        with self._scopes[document.id] as scope:
            try:
                with observed.active():
                    ended = await self._attempt(job, place, observed)
                if not ended:
                    self._not_before[job.job_id] = time.monotonic() + self._retry_s
            except ShuttingDown:
                interrupted = True
            except RecognitionDeferred:  # its text pages stay searchable
                interrupted = deferred = True
            except anyio.get_cancelled_exc_class():
                interrupted = True
                raise
            finally:
                observed.end("cancelled")
                if interrupted or not ended or scope.cancel_called:
                    with anyio.CancelScope(shield=True):
                        await self._put_back(job)
                if not deferred:
                    self._drop_early(document)
                self._scopes.pop(document.id)
                self._pace.pop(document.id, None)
                self._ended.pop(document.id).set()
                if self._recognition.end(document.id, job.job_id, deferred=deferred):
                    self.kick()
                self._hub.notify(document)
        return ended

    async def _attempt(self, job: ClaimedJob, place: JobPlace, observed: ObservedOperation) -> bool:
        """Run a job to its end, ready or failed; ``False`` if it has to run again because of a passing fault.

        Raises:
            ShuttingDown: it has to run again at the next start.
            RecognitionDeferred: it has to run again when other documents have been recognised.
        """
        try:
            failure = await self._failure_of(job, place, observed)
            if failure is not None:
                observed.end(failure.reason)
                await self._fail(job, code=failure.reason, message=failure.message)
        except (StorageFull, StorageUnavailable, Overloaded):
            return False
        return True

    async def _failure_of(
        self, job: ClaimedJob, place: JobPlace, observed: ObservedOperation
    ) -> ExtractionFailed | None:
        """Run a job; ``None`` when it has ended, or the reason why the document cannot be ingested.

        Raises:
            StorageFull, StorageUnavailable, Overloaded: a passing fault; this includes every fault of the disk,
                whichever library met it.
            ShuttingDown, RecognitionDeferred: as ``_attempt``.
        """
        document = job.document
        try:
            await (
                self._renew_vectors(job) if job.work is JobWork.RENEW_VECTORS else self._ingest(job, place, observed)
            )
            observed.end()
        except DocumentGone:
            return None
        except (ShuttingDown, Overloaded, StorageUnavailable, RecognitionDeferred):
            raise
        except ExtractionFailed as error:
            self._raise_if_disk_is_full(error, suspect=error.reason in _MAY_NEED_DISK)
            if error.reason is FailureReason.NO_TEXT and await self._leave_out_picture(document):
                return None
            return error
        except EmbeddingFailed as error:
            self._raise_if_disk_is_full(error, suspect=True)
            return ExtractionFailed(FailureReason.EMBEDDING_FAILED, error.message)
        except Exception as error:  # noqa: BLE001 - a failing document must not stop the others
            self._raise_if_disk_is_full(error, suspect=True)
            _log_without_content(error, document.public_id)
            return ExtractionFailed(
                FailureReason.INTERNAL_ERROR,
                "An internal error occurred for this document. See the log of the service.",
            )
        return None

    def _raise_if_disk_is_full(self, error: Exception, *, suspect: bool) -> None:
        """Raise ``StorageFull`` for a fault of the disk.

        ``suspect``: the error may have been caused by a full disk without saying so, which is assumed if it is full.
        """
        if is_storage_fault(error):
            if self._space is not None:
                self._space.report_fault()
        elif not suspect or self._space is None or not self._space.looks_full():
            return
        raise StorageFull("The disk is full. The document is ingested when there is room.") from error

    async def _put_back(self, job: ClaimedJob) -> None:
        try:
            await self._database.write(lambda connection: rows.release(connection, job.job_id))
        except (StorageFull, Overloaded):
            self._unreleased.add(job.job_id)
        except ShuttingDown:
            logger.warning("job %s could not be queued again; the next start queues it", job.job_id)

    async def _fail(self, job: ClaimedJob, *, code: str, message: str) -> None:
        document = job.document
        if job.work is JobWork.RENEW_VECTORS:
            await self._fail_renewal(job)
            return
        async with self._index_lag.committing(document.collection_id):  # it may have been searchable
            await write_to_the_end(
                self._database,
                lambda connection: rows.mark_failed(
                    connection, document.id, code=code, message=message, now=self.now()
                ),
            )
        log_event(
            logger,
            logging.WARNING,
            "document_failed",
            "a document failed",
            document_id=document.public_id,
            tenant=document.tenant,
            code=str(code),
            media_type=document.media_type,
            size_bytes=document.size_bytes,
        )

    async def _leave_out_picture(self, document: Document) -> bool:
        """Delete an attached picture without text, such as a logo; ``False`` if the document is something else."""
        if document.media_type not in PICTURES:
            return False

        def write(connection: Connection) -> DeletedDocument | None:
            current = get_by_row_id(connection, document.id)
            if current is None or not current.attached:
                return None
            if has_files_beside_own(connection, current.id, current.public_id):  # it was also added by itself
                return None
            for parent_id in attachment_rows.parents_of(connection, [document.id]):
                add_problem(connection, parent_id, picture_left_out(document.filename))
            return delete_document(connection, document.tenant, document.public_id, now=self.now())

        async with self.file_locks.of(document.tenant, document.sha256):
            deleted = await self._database.write(write)
            if deleted is not None and deleted.blob_unused:
                await self.file_removals.finish_locked(document.tenant, document.sha256)
        return deleted is not None

    async def _fail_renewal(self, job: ClaimedJob) -> None:
        """Try again later; the document stays ready, and its former vectors keep serving."""
        document = job.document
        if job.attempts < _MAX_ATTEMPTS:
            logger.warning("new vectors for the renamed %s failed; they are tried again", document.public_id)
            self._not_before[job.job_id] = time.monotonic() + self._retry_s
            await self._database.write(lambda connection: rows.release(connection, job.job_id, count_attempt=True))
            return
        if not await self._database.write(lambda connection: rows.end_failed_renewal(connection, job)):
            return
        logger.error(
            "new vectors for the renamed %s failed %d times; the vectors of its former name stay in use until it is "
            "renamed again or 'ragsvc reindex --embeddings' is run",
            document.public_id,
            job.attempts,
        )

    async def _ingest(self, job: ClaimedJob, place: JobPlace, observed: ObservedOperation) -> None:
        document = job.document
        _check_attempts(job)
        if job.work is JobWork.PARSE:
            with observed.stage("parse"):
                document = await self._parse(job, place)
        elif not document.is_searchable:
            document = await self._make_searchable(document)
        while (outcome := await self._embed_and_finish(document, observed)) is not JobOutcome.DONE:
            logger.info("%s is embedded again: %s", document.public_id, outcome.value)
            document = await self._read_again(document)

    async def _embed_and_finish(self, document: Document, observed: ObservedOperation) -> JobOutcome:
        """Embed and make ready. Raises ``DocumentGone``."""
        try:
            with observed.stage("embed"):
                space, embed_s = await self._embed(document)
        except DocumentRenamed:
            return JobOutcome.DOCUMENT_RENAMED
        with observed.stage("index"):
            outcome = await self._make_ready(document, space, embed_s)
        if outcome is JobOutcome.DOCUMENT_DELETED:
            raise DocumentGone
        if outcome is JobOutcome.DONE:
            log_event(
                logger,
                logging.DEBUG,
                "document_ready",
                "a document is ready",
                document_id=document.public_id,
                tenant=document.tenant,
                passages=document.passages_total,
                embed_s=round(embed_s, 3),
            )
        return outcome

    async def _make_ready(self, document: Document, space: EmbeddingSpace, embed_s: float) -> JobOutcome:
        """Commit the document as ready, and make its collection's searches wait for the indexes."""
        async with self._index_lag.committing(document.collection_id):
            return await write_to_the_end(  # a cancelled write may be committed after the indexes have followed
                self._database,
                lambda connection: rows.mark_ready(
                    connection,
                    document,
                    model=space.model,
                    model_id=space.model_id,
                    timings={"embed_s": round(embed_s, 3)},
                    now=self.now(),
                ),
            )

    async def _renew_vectors(self, job: ClaimedJob) -> None:
        """Replace a ready document's vectors by vectors of its present name, and make them searchable."""
        document = job.document
        _check_attempts(job)
        while (outcome := await self._renew_and_finish(document)) is not JobOutcome.DONE:
            logger.info("%s is embedded again: %s", document.public_id, outcome.value)
            document = await self._read_again(document)

    async def _renew_and_finish(self, document: Document) -> JobOutcome:
        space = self._spaces.serving
        try:
            await self._vectors.renew(space, document)
        except DocumentRenamed:
            return JobOutcome.DOCUMENT_RENAMED
        async with self._index_lag.committing(document.collection_id):
            outcome = await self._database.write(
                lambda connection: rows.finish_renewal(connection, document, model_id=space.model_id)
            )
        if outcome is JobOutcome.DOCUMENT_DELETED:
            raise DocumentGone
        return outcome

    async def _read_again(self, document: Document) -> Document:
        current = await self._database.read(lambda connection: get_by_row_id(connection, document.id))
        if current is None:
            raise DocumentGone
        return current

    async def _parse(self, job: ClaimedJob, place: JobPlace) -> Document:
        document = job.document
        begin = time.monotonic()
        await self._check_file(document)
        progress = _PageProgress(self, document)
        reports: dict[str, Any] = {}  # a parser that sends no early pages needs no parameters for them
        if self.early is not None:
            self.early.begin(document)
            reports["on_pages"] = _EarlyReports(self.early, document, progress).put
            reports["on_recognition"] = functools.partial(self._turn, job, place)
        async with _readable(self._blobs, document) as path:
            parsed = await self._parser.parse(
                path,
                media_type=document.media_type,
                filename=document.filename,
                password=job.password,
                on_progress=progress.put,
                **reports,
            )
        timings = {**parsed.extraction.timings, "parse_s": round(time.monotonic() - begin, 3)}
        parsed = await self._with_attachments(document, parsed)
        is_long = len(parsed.passages) > EMBEDDED_AT_ONCE

        def store(connection: Connection) -> Document | None:
            stored = store_parsed(connection, document.id, parsed, timings=timings, now=self.now())
            return make_searchable(connection, document.id) if is_long else stored

        if is_long:
            return await self._commit_searchable(document, store)
        stored = await self._database.write(store)
        if stored is None:
            raise DocumentGone
        self._hub.notify(document)
        return stored

    def _turn(self, job: ClaimedJob, place: JobPlace, pages: int) -> RecognitionTurn:
        turn = self._recognition.turn(job.document, job.job_id, place, pages=pages)
        if turn is RecognitionTurn.MOVE:
            self.kick()
        return turn

    def _drop_early(self, document: Document) -> None:
        if self.early is not None:
            self.early.drop(document.id)

    async def _make_searchable(self, document: Document) -> Document:
        """Make the words of a parsed document searchable, if they are not."""
        return await self._commit_searchable(document, lambda connection: make_searchable(connection, document.id))

    async def _commit_searchable(self, document: Document, write: Callable[[Connection], Document | None]) -> Document:
        """Commit the words of a document, make its collection's searches wait for them, and announce the stage."""
        async with self._index_lag.committing(document.collection_id):
            stored = await write_to_the_end(self._database, write)
            if stored is not None:
                self._hub.notify(stored)
        self._drop_early(document)
        if stored is None:
            raise DocumentGone
        return stored

    async def _check_file(self, document: Document) -> None:
        """Raise ``ExtractionFailed`` if the stored file is not the uploaded one, and note it as a problem."""
        try:
            await anyio.to_thread.run_sync(self._blobs.check, document.tenant, document.sha256)
        except StoredDataDamaged as error:
            problem = stored_file_damaged(document, error)
            await self._database.write(lambda connection: add_problem(connection, document.id, problem))
            raise ExtractionFailed(FailureReason.STORED_FILE_DAMAGED, error.message) from error

    async def _with_attachments(self, document: Document, parsed: ParsedDocument) -> ParsedDocument:
        """Register the attached files. The pages are stored after it, so that an interrupted job does both again."""
        extraction = parsed.extraction
        if not extraction.attached_files:
            return parsed
        left_out = await self._attached.register(
            document, extraction.attached_files, extraction.attachments, now=self.now()
        )
        self.kick()
        extraction = msgspec.structs.replace(extraction, problems=[*extraction.problems, *left_out], attached_files=[])
        return ParsedDocument(extraction, parsed.passages)

    async def _embed(self, document: Document) -> tuple[EmbeddingSpace, float]:
        """Embed every passage; returns the space and the seconds spent."""
        begin = time.monotonic()
        self._pace[document.id] = (begin, document.passages_done)
        space = self._spaces.serving
        steps = EmbeddingSteps(
            on_batch=lambda: self._hub.notify(document),
            between_batches=lambda: self._index_lag.follow(document.collection_id),
            on_wait=functools.partial(self._make_searchable, document),
            patience_s=math.inf if document.is_searchable else self._patience_s,
        )
        await self._vectors.fill(space, document, steps=steps)
        return space, time.monotonic() - begin

    def report_pages(self, document: Document, done: int, total: int) -> None:
        """Write the progress of parsing to the row without waiting for the commit."""
        loop = asyncio.get_running_loop()
        self._database.post(
            lambda connection: rows.set_progress(
                connection, document.id, stage=Stage.PARSING, now=self.now(), pages_done=done, pages_total=total
            ),
            then=lambda: loop.call_soon_threadsafe(self._hub.notify, document),
        )


class _PageProgress:
    """Passes on the parser's page counts, at most two per second."""

    def __init__(self, service: IngestService, document: Document) -> None:
        self._service = service
        self._document = document
        self._reported_at = time.monotonic()

    def put(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _PROGRESS_EVERY_S:
            self._reported_at = now
            self._service.report_pages(self._document, done, total)

    def put_now(self, done: int, total: int) -> None:
        """Pass on the first counts after pages became searchable without delay."""
        self._reported_at = -math.inf
        self.put(done, total)


class _EarlyReports:
    """Makes pages searchable while others are parsed, and announces them."""

    def __init__(self, early: EarlyPages, document: Document, progress: _PageProgress) -> None:
        self.early = early
        self._document = document
        self._progress = progress

    def put(self, pages: list[Page], pages_total: int) -> None:
        """Called in a worker thread."""
        done = self.early.add(self._document.id, pages, pages_total)
        anyio.from_thread.run_sync(self._progress.put_now, done, pages_total)


@asynccontextmanager
async def _readable(blobs: BlobStore, document: Document) -> AsyncGenerator[Path, None]:
    """The path of the document's plain file, decrypted in a worker thread."""
    with ExitStack() as stack:
        opened = blobs.readable(document.tenant, document.sha256)
        yield await anyio.to_thread.run_sync(stack.enter_context, opened)


def stored_file_damaged(document: Document, error: StoredDataDamaged) -> Problem:
    """The problem of a document whose stored file is missing or damaged."""
    return Problem(ProblemCode.STORED_FILE_DAMAGED, error.message, 1, max(1, document.pages_total))


def _check_attempts(job: ClaimedJob) -> None:
    """Raise ``ExtractionFailed`` for a job during which the process has died too often."""
    if job.attempts > _MAX_ATTEMPTS:
        raise ExtractionFailed(
            FailureReason.INTERNAL_ERROR,
            f"The service stopped {_MAX_ATTEMPTS} times while it processed this document.",
        )


def _log_without_content(error: BaseException, public_id: str) -> None:
    """Log the type and the stack only: an exception's message may contain document text."""
    stack = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
    log_event(
        logger,
        logging.ERROR,
        "unexpected_error",
        f"ingest of {public_id} failed with {type(error).__name__}\n{stack}",
        document_id=public_id,
    )
