"""Turns queued documents into retrieval: parse in a child, embed in batches, then one commit makes them ready.

Every step is idempotent: a job that a crash or a shutdown interrupts goes on from what its rows hold.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import anyio
import msgspec

from ragsvc.core.chunking import embedding_text
from ragsvc.core.documents import Document, Stage
from ragsvc.core.errors import (
    EmbeddingFailed,
    ExtractionFailed,
    FailureReason,
    Overloaded,
    ShuttingDown,
    StorageFull,
)
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports import EmbeddingModel, ParsedDocument, Parser, Vectors
from ragsvc.services.freshness import Freshness
from ragsvc.services.progress import ProgressHub
from ragsvc.store import ingest as rows
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.ingest import ClaimedJob, PendingPassage

logger = logging.getLogger(__name__)

_BATCH = 64
_MAX_ATTEMPTS = 10
_PROGRESS_EVERY_S = 0.5
_IDLE_POLL_S = 30.0
_STORAGE_RETRY_S = 5.0


class PassageEmbedder(Protocol):
    """What ingest asks of the embedding batcher."""

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, in order."""
        ...


class IngestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of ingest."""

    workers: int = 3


class _DocumentGone(Exception):
    """The document was deleted while it was worked on."""


class IngestService:
    """Runs the ingest jobs of one data directory."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        parser: Parser,
        embedder: PassageEmbedder,
        model: EmbeddingModel,
        model_id: int,
        freshness: Freshness,
        hub: ProgressHub,
        options: IngestOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._parser = parser
        self._embedder = embedder
        self._model = model
        self._model_id = model_id
        self._freshness = freshness
        self._hub = hub
        self._options = options
        self._clock = clock
        self._wake = anyio.Event()
        self._draining = False
        self._scopes: dict[DocumentId, anyio.CancelScope] = {}
        self._pace: dict[DocumentId, tuple[float, int]] = {}

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def kick(self) -> None:
        """Say that a job was queued."""
        self._wake.set()

    def running_count(self) -> int:
        """How many documents are worked on now."""
        return len(self._scopes)

    def stop_work_on(self, document_id: DocumentId) -> None:
        """Stop working on a document that was deleted."""
        scope = self._scopes.get(document_id)
        if scope is not None:
            scope.cancel()

    def eta_s(self, document: Document) -> float | None:
        """Seconds until ready, estimated from this document's own pace; ``None`` when unknown."""
        pace = self._pace.get(document.id)
        if pace is None or document.passages_total == 0:
            return None
        started, done_at_start = pace
        done = document.passages_done - done_at_start
        elapsed = time.monotonic() - started
        if done <= 0 or elapsed <= 0:
            return None
        return round((document.passages_total - document.passages_done) * elapsed / done, 1)

    async def run(self) -> None:
        """Work until cancelled or drained."""
        await self._database.write(rows.release_running)
        async with anyio.create_task_group() as group:
            for _ in range(self._options.workers):
                group.start_soon(self._work)

    def drain(self) -> None:
        """Stop claiming and hand running jobs over to the next start."""
        self._draining = True
        self._wake.set()
        for scope in list(self._scopes.values()):
            scope.cancel()

    async def _work(self) -> None:
        while not self._draining:
            wake = self._wake
            job = await self._claim()
            if job is None:
                with anyio.move_on_after(_IDLE_POLL_S):
                    await wake.wait()
                if self._wake is wake and wake.is_set():
                    self._wake = anyio.Event()
                continue
            await self._run_job(job)

    async def _claim(self) -> ClaimedJob | None:
        try:
            return await self._database.write(lambda connection: rows.claim(connection, now=self.now()))
        except (StorageFull, Overloaded):
            await anyio.sleep(_STORAGE_RETRY_S)
            return None

    async def _run_job(self, job: ClaimedJob) -> None:
        document = job.document
        self._hub.notify(document.public_id)
        with anyio.CancelScope() as scope:
            self._scopes[document.id] = scope
            try:
                await self._ingest(job)
            except _DocumentGone:
                pass
            except ExtractionFailed as error:
                await self._fail(document, code=error.reason, message=error.message)
            except EmbeddingFailed as error:
                await self._fail(document, code=FailureReason.EMBEDDING_FAILED, message=error.message)
            except (StorageFull, Overloaded):
                await self._put_back(job)
                await anyio.sleep(_STORAGE_RETRY_S)
            except ShuttingDown:
                await self._put_back(job)
            except Exception as error:  # noqa: BLE001 - one document must not stop the others
                _log_without_content(error, document.public_id)
                await self._fail(
                    document, code=FailureReason.INTERNAL_ERROR, message="ragsvc failed on this document; see its log"
                )
            finally:
                self._scopes.pop(document.id, None)
                self._pace.pop(document.id, None)
                if scope.cancel_called:
                    with anyio.CancelScope(shield=True):
                        await self._put_back(job)
                self._hub.notify(document.public_id)

    async def _put_back(self, job: ClaimedJob) -> None:
        try:
            await self._database.write(lambda connection: rows.release(connection, job.job_id))
        except (StorageFull, ShuttingDown, Overloaded):
            logger.warning("job %s could not be handed over; the next start takes it", job.job_id)

    async def _fail(self, document: Document, *, code: str, message: str) -> None:
        await self._database.write(
            lambda connection: rows.mark_failed(connection, document.id, code=code, message=message, now=self.now())
        )

    async def _ingest(self, job: ClaimedJob) -> None:
        document = job.document
        if job.attempts > _MAX_ATTEMPTS:
            raise ExtractionFailed(
                FailureReason.INTERNAL_ERROR,
                f"the service stopped {_MAX_ATTEMPTS} times while it worked on this document",
            )
        if not job.parsed:
            document = await self._parse(job)
        embed_s = await self._embed(document)
        async with self._freshness.committing(document.collection_id):
            ready = await self._database.write(
                lambda connection: rows.mark_ready(
                    connection,
                    document.id,
                    document.collection_id,
                    model=self._model,
                    timings={"embed_s": round(embed_s, 3)},
                    now=self.now(),
                )
            )
        if not ready:
            raise _DocumentGone

    async def _parse(self, job: ClaimedJob) -> Document:
        document = job.document
        begin = time.monotonic()
        async with _readable(self._blobs, document) as path:
            parsed = await self._parser.parse(
                path,
                media_type=document.media_type,
                filename=document.filename,
                password=job.password,
                on_progress=_PageProgress(self, document).put,
            )
        timings = {**parsed.extraction.timings, "parse_s": round(time.monotonic() - begin, 3)}
        texts = await anyio.to_thread.run_sync(_embedding_texts, parsed, document.filename)
        stored = await self._database.write(
            lambda connection: rows.store_parsed(
                connection, document.id, parsed, embedding_texts=texts, timings=timings, now=self.now()
            )
        )
        if not stored:
            raise _DocumentGone
        self._hub.notify(document.public_id)
        return msgspec.structs.replace(
            document, title=parsed.extraction.title, passages_total=len(parsed.passages), passages_done=0
        )

    async def _embed(self, document: Document) -> float:
        """Give every passage a vector; returns the seconds spent."""
        begin = time.monotonic()
        self._pace[document.id] = (begin, document.passages_done)
        after = 0
        while pending := await self._pending(document, after):
            after = pending[-1].id
            await self._store_vectors(document, await self._vectors_of(document, pending))
        return time.monotonic() - begin

    async def _pending(self, document: Document, after: int) -> list[PendingPassage]:
        return await self._database.read(
            lambda connection: rows.pending_passages(connection, document.id, self._model_id, after=after, limit=_BATCH)
        )

    async def _store_vectors(self, document: Document, vectors: list[tuple[PassageId, bytes]]) -> None:
        stored = await self._database.write(
            lambda connection: rows.store_vectors(connection, document.id, self._model_id, vectors, now=self.now())
        )
        if not stored:
            raise _DocumentGone
        self._hub.notify(document.public_id)

    async def _vectors_of(self, document: Document, pending: Sequence[PendingPassage]) -> list[tuple[PassageId, bytes]]:
        hashes = list({one.embedding_hash for one in pending})
        known = await self._database.read(
            lambda connection: rows.cached_vectors(connection, document.tenant, self._model_id, hashes)
        )
        unique = {one.embedding_hash: one for one in pending if one.embedding_hash not in known}
        if unique:
            texts = [
                embedding_text(one.passage, title=document.title, filename=document.filename) for one in unique.values()
            ]
            vectors = await self._embedder.embed_passages(texts)
            known.update(zip(unique, rows.pack_vectors(vectors), strict=True))
        return [(one.id, known[one.embedding_hash]) for one in pending]

    def report_pages(self, document: Document, done: int, total: int) -> None:
        """Write a parse's progress to the row, without waiting for it."""
        loop = asyncio.get_running_loop()
        self._database.post(
            lambda connection: rows.set_progress(
                connection, document.id, stage=Stage.PARSING, now=self.now(), pages_done=done, pages_total=total
            ),
            then=lambda: loop.call_soon_threadsafe(self._hub.notify, document.public_id),
        )


class _PageProgress:
    """Takes page counts from the parser as they come and passes on a few a second."""

    def __init__(self, service: IngestService, document: Document) -> None:
        self._service = service
        self._document = document
        self._reported_at = time.monotonic()

    def put(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _PROGRESS_EVERY_S:
            self._reported_at = now
            self._service.report_pages(self._document, done, total)


@asynccontextmanager
async def _readable(blobs: BlobStore, document: Document) -> AsyncGenerator[Path, None]:
    """The document's file in plain, decrypted off the event loop."""
    with ExitStack() as stack:
        opened = blobs.readable(document.tenant, document.sha256)
        yield await anyio.to_thread.run_sync(stack.enter_context, opened)


def _embedding_texts(parsed: ParsedDocument, filename: str) -> list[str]:
    return [embedding_text(one, title=parsed.extraction.title, filename=filename) for one in parsed.passages]


def _log_without_content(error: BaseException, public_id: str) -> None:
    """Log type and stack; an exception's message may hold document text."""
    stack = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
    logger.error("ingest of %s failed with %s\n%s", public_id, type(error).__name__, stack)
