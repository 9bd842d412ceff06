"""The port ``Parser``, implemented with a pool of child processes.

Owns the queue and the children. A child runs a single job at a time; it is replaced after a crash, after many jobs, or
if its memory has grown. Blocking waits run in separate threads, never on the event loop. ``anyio.to_process`` is not
suitable: it unpickles the child's output (a malicious file may control the child), reports no progress, and gives no
access to a child's memory use after a job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from ragsvc.core.documents import AttachedFile, Page, Passage
from ragsvc.core.errors import ExtractionFailed, FailureReason, Overloaded
from ragsvc.core.page_views import OutlineEntry, PageBoxes, PagePicture, RecognisedLines, TextStretch
from ragsvc.core.ports.parsing import (
    ExtractionLimits,
    FileToParse,
    OnPages,
    OnRecognition,
    ParsedDocument,
    RecognitionDeferred,
    RecognitionTurn,
)
from ragsvc.extract import child_protocol
from ragsvc.extract.child_process import NICENESS, ParserProcess, ParserProcessEnded
from ragsvc.extract.child_protocol import ChunkingPlan

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
_PageReply = child_protocol.FoundBoxes | child_protocol.DrawnPage | child_protocol.FoundOutline
_LastReply = child_protocol.ParseFinished | _PageReply | child_protocol.ParseFailed
_P = TypeVar("_P", child_protocol.FoundBoxes, child_protocol.DrawnPage, child_protocol.FoundOutline)

_IDLE_S = 60.0
_MAX_SERVED = 200
_MAX_RSS_BYTES = 400 << 20
_FRESH_TRIES = 3


class ChildParser:
    """Parses files in up to ``workers`` child processes; ``queue_limit`` more jobs may wait, others get ``Overloaded``.

    Children start with the first job, are reused, and end after a while without a job.
    """

    def __init__(
        self,
        limits: ExtractionLimits,
        *,
        chunk: ChunkingPlan | None,
        workers: int = 2,
        recognisers: int = 0,
        queue_limit: int = 64,
        work_folder: Path | None = None,
        niceness: int = NICENESS,
        idle_s: float = _IDLE_S,
    ) -> None:
        """Start no child yet.

        ``recognisers`` jobs that recognise text may run besides ``workers`` others, see ``RecognitionTurn``.
        ``work_folder`` should be on the file system of the files, so that they can be linked instead of copied; a
        system folder for temporary files by default. A child ends after ``idle_s`` without a job.
        """
        self._start = partial(
            ParserProcess,
            memory_bytes=limits.memory_bytes,
            idle_s=idle_s,
            niceness=niceness,
            files=_child_files(chunk),
            work_folder=work_folder,
        )
        self._limits = limits
        self._plan = chunk
        self._workers = workers
        self._queue_limit = queue_limit
        self._slots = anyio.Semaphore(workers)
        self._threads = anyio.CapacityLimiter(workers + recognisers)
        self._pending = 0
        self._idle: list[ParserProcess] = []
        self._jobs: set[_ParseJob] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the running children, idle or busy."""
        busy = [job.worker for job in self._jobs if job.worker is not None]
        return [worker.pid for worker in [*self._idle, *busy] if worker.alive]

    async def parse(
        self,
        path: Path,
        *,
        media_type: str,
        filename: str,
        password: str | None = None,
        on_progress: OnProgress | None = None,
        on_pages: OnPages | None = None,
        on_recognition: OnRecognition | None = None,
    ) -> ParsedDocument:
        """Extract pages and passages; cancelling the call kills the child.

        Raises:
            ExtractionFailed: the file cannot be read, or the child crashed or exceeded a limit.
            Overloaded: too many jobs are waiting.
            RecognitionDeferred: ``on_recognition`` decided so.
        """
        request = child_protocol.ParseRequest(str(path), media_type, filename, password, self._limits, self._plan)
        outcome = await self._run(request, _Reports(on_progress, on_pages, on_recognition))
        extraction = child_protocol.assemble(outcome.pages, outcome.finished(), outcome.attached_files)
        return ParsedDocument(extraction, outcome.passages)

    async def parse_many(self, files: Sequence[FileToParse]) -> list[ParsedDocument | None]:
        """Parse small files one after the other in one child; see ``BatchParser``.

        Raises:
            Overloaded: too many jobs are waiting.
        """
        first, *further = [
            child_protocol.ParseRequest(
                str(file.path), file.media_type, file.filename, None, self._limits, self._plan, is_small=True
            )
            for file in files
        ]
        parsed: list[ParsedDocument | None] = []
        for outcome in await self._run_all(first, _Reports(), further):
            if outcome.failure is not None or outcome.end is None:
                parsed.append(None)
                continue
            extraction = child_protocol.assemble(outcome.pages, outcome.end, outcome.attached_files)
            parsed.append(ParsedDocument(extraction, outcome.passages))
        return parsed + [None] * (len(files) - len(parsed))

    async def draw_page(self, path: Path, page: int, *, width: int, password: str | None = None) -> PagePicture:
        """Draw page ``page`` (from 1) of a stored file about ``width`` pixels wide.

        Raises:
            ExtractionFailed: the file cannot be read, or has no pages to draw (``unsupported_file``).
            Overloaded: too many jobs are waiting.
        """
        request = child_protocol.DrawRequest(str(path), password, page, width, self._limits)
        return (await self._run(request, _Reports())).page_reply(child_protocol.DrawnPage).picture

    async def page_boxes(
        self,
        path: Path,
        page: int,
        stretch: TextStretch,
        *,
        password: str | None = None,
        known: RecognisedLines | None = None,
    ) -> tuple[PageBoxes, RecognisedLines | None]:
        """The rectangles of a stretch of the text of page ``page`` (from 1), and recognised lines if they were needed.

        Raises:
            ExtractionFailed: the file cannot be read, or has no pages to draw (``unsupported_file``).
            Overloaded: too many jobs are waiting.
        """
        request = child_protocol.BoxesRequest(str(path), password, page, stretch, known, self._limits)
        reply = (await self._run(request, _Reports())).page_reply(child_protocol.FoundBoxes)
        return reply.boxes, reply.lines

    async def outline(self, path: Path, *, password: str | None = None) -> list[OutlineEntry]:
        """The bookmarks of a PDF; empty for other files.

        Raises:
            ExtractionFailed: the file cannot be read.
            Overloaded: too many jobs are waiting.
        """
        request = child_protocol.OutlineRequest(str(path), password, self._limits)
        return (await self._run(request, _Reports())).page_reply(child_protocol.FoundOutline).bookmarks

    async def close(self) -> None:
        """End the children; running jobs fail with ``parser_crashed``."""
        self._closed = True
        for job in list(self._jobs):
            job.cancel()
        while self._idle:
            self._idle.pop().close()

    async def _run(self, request: child_protocol.Request, reports: _Reports) -> _Outcome:
        (outcome,) = await self._run_all(request, reports)
        if outcome.failure is not None:
            raise outcome.failure
        return outcome

    async def _run_all(
        self, request: child_protocol.Request, reports: _Reports, further: Sequence[child_protocol.Request] = ()
    ) -> list[_Outcome]:
        """Run requests in one child; without the outcomes of those after a request that ended it."""
        if self._closed or self._pending >= self._workers + self._queue_limit:
            raise Overloaded(
                "Too many documents are waiting to be parsed; try again in a few seconds.", retry_after_s=5
            )
        self._pending += 1
        try:
            await self._slots.acquire()
            place = _Place(self._slots)
            try:
                return await self._run_now(request, reports.leaving(place), further)
            finally:
                place.leave()
        finally:
            self._pending -= 1

    async def _run_now(
        self, request: child_protocol.Request, reports: _Reports, further: Sequence[child_protocol.Request]
    ) -> list[_Outcome]:
        worker = self._idle.pop() if self._idle else None
        job = _ParseJob(
            request,
            worker,
            start=self._start,
            limits=self._limits,
            on_progress=reports.on_progress,
            on_pages=reports.on_pages,
            on_recognition=reports.on_recognition,
            further=further,
        )
        self._jobs.add(job)
        try:
            outcomes = await anyio.to_thread.run_sync(job.run, abandon_on_cancel=True, limiter=self._threads)
        except BaseException:
            job.cancel()
            raise
        finally:
            self._jobs.discard(job)
        if job.reusable is not None:
            if self._closed:
                job.reusable.close()
            else:
                self._idle.append(job.reusable)
        return outcomes


def _child_files(plan: ChunkingPlan | None) -> child_protocol.ChildFiles:
    """What the children read for the plan."""
    if plan is None:
        return child_protocol.ChildFiles()
    packages = {"ragsvc", *(function.partition(".")[0] for function in (plan.split, plan.load_tokens))}
    return child_protocol.ChildFiles((str(Path(plan.tokenizer).absolute()),), tuple(sorted(packages)))


@cache
def _warn(message: str) -> None:
    """Log a warning about the installation, once."""
    logger.warning("%s", message)


class _Place:
    """The place of a job among those that may run at the same time."""

    def __init__(self, slots: anyio.Semaphore) -> None:
        self._slots = slots
        self._is_left = False

    def leave(self) -> None:
        """Let another job take the place; the second call does nothing."""
        if not self._is_left:
            self._is_left = True
            self._slots.release()


class _Reports(msgspec.Struct, frozen=True):
    """The callbacks of a job; see the port ``Parser``."""

    on_progress: OnProgress | None = None
    on_pages: OnPages | None = None
    on_recognition: OnRecognition | None = None

    def leaving(self, place: _Place) -> _Reports:
        """The same; the job leaves its place when it is told to move."""
        decide = self.on_recognition
        if decide is None:
            return self

        def on_recognition(pages: int) -> RecognitionTurn:
            turn = decide(pages)
            if turn is RecognitionTurn.MOVE:
                place.leave()
            return turn

        return msgspec.structs.replace(self, on_recognition=on_recognition)


class _Outcome:
    """The combined replies of a job."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.passages: list[Passage] = []
        self.attached_files: list[AttachedFile] = []
        self._attachment = bytearray()
        self._attached_bytes = 0
        self.allowance_s = 0.0
        self.end: child_protocol.ParseFinished | None = None
        self.reply: _PageReply | None = None
        self.failure: ExtractionFailed | None = None

    def add_piece(self, piece: child_protocol.AttachmentPiece, limits: ExtractionLimits) -> None:
        """Add a piece of an attached file. Raises ``ExtractionFailed`` if a faulty child exceeds the limits."""
        self._attached_bytes += len(piece.data)
        if self._attached_bytes > limits.max_attachment_bytes or len(self.attached_files) >= limits.max_attachments:
            raise ExtractionFailed(FailureReason.PARSER_CRASHED, "The parser sent more attached files than the limits.")
        self._attachment += piece.data
        if piece.last:
            self.attached_files.append(AttachedFile(piece.name, bytes(self._attachment)))
            self._attachment = bytearray()

    def finished(self) -> child_protocol.ParseFinished:
        """The last reply of a parse. Raises ``ExtractionFailed`` if the child sent another kind of reply."""
        if self.end is None:
            raise _no_result()
        return self.end

    def page_reply(self, kind: type[_P]) -> _P:
        """The only reply to a request for a page. Raises ``ExtractionFailed`` if the child sent another kind."""
        if not isinstance(self.reply, kind):
            raise _no_result()
        return self.reply


def _no_result() -> ExtractionFailed:
    return ExtractionFailed(FailureReason.PARSER_CRASHED, "The PDF parser returned no result.")


class _ParseJob:
    """Requests to a child, one after the other. ``run`` is called in a worker thread, ``cancel`` from any thread."""

    def __init__(
        self,
        request: child_protocol.Request,
        worker: ParserProcess | None,
        *,
        start: Callable[[], ParserProcess],
        limits: ExtractionLimits,
        on_progress: OnProgress | None,
        on_pages: OnPages | None = None,
        on_recognition: OnRecognition | None = None,
        further: Sequence[child_protocol.Request] = (),
    ) -> None:
        self.worker = worker
        self.reusable: ParserProcess | None = None
        self._request = request
        self._further = further
        self._start = start
        self._limits = limits
        self._reports = _Reports(on_progress, on_pages, on_recognition)
        self._lock = threading.Lock()
        self._cancelled = False

    def cancel(self) -> None:
        """Kill the child; ``run`` then cleans up."""
        with self._lock:
            self._cancelled = True
            if self.worker is not None:
                self.worker.kill()
            if self.reusable is not None:  # the job ended just before the cancellation
                self.reusable.close()

    def run(self) -> list[_Outcome]:
        """Run the requests in a child; errors of a document are in its outcome, the last one if it ended the child."""
        for _ in range(_FRESH_TRIES):
            healthy = False
            try:
                worker = self._take_worker()
            except OSError:
                break
            try:
                worker.send(self._request)
                outcomes = [self._collect(worker)]
                self._run_further(worker, outcomes)
                healthy = worker.alive and not self._cancelled
            except ParserProcessEnded:
                continue
            finally:
                self._give_back(worker, healthy=healthy)
            return outcomes
        outcome = _Outcome()
        outcome.failure = ExtractionFailed(FailureReason.PARSER_CRASHED, "The PDF parser could not be started.")
        return [outcome]

    def _run_further(self, worker: ParserProcess, outcomes: list[_Outcome]) -> None:
        """Run the further requests while the child lives; it does not count as served for each small file."""
        served = worker.served
        for request in self._further:
            if not worker.alive or self._cancelled:
                return
            try:
                worker.send(request)
                outcomes.append(self._collect(worker))
            except ParserProcessEnded:
                return
        worker.served = served

    def _take_worker(self) -> ParserProcess:
        with self._lock:
            if self._cancelled:
                raise ExtractionFailed(FailureReason.PARSER_CRASHED, "Reading the file was cancelled.")
            if self.worker is not None and self.worker.alive:
                return self.worker
            if self.worker is not None:
                self.worker.close()
            self.worker = self._start()
            return self.worker

    def _give_back(self, worker: ParserProcess, *, healthy: bool) -> None:
        worker.remove_input()
        with self._lock:
            self.worker = None
            if healthy and not self._cancelled and worker.served < _MAX_SERVED and worker.rss_bytes < _MAX_RSS_BYTES:
                self.reusable = worker
                return
        worker.close()

    def _collect(self, worker: ParserProcess) -> _Outcome:
        outcome = _Outcome()
        begun = time.monotonic()
        started = False
        try:
            while True:
                reply = worker.receive(deadline=begun + self._limits.timeout_s + outcome.allowance_s)
                if reply is None:
                    if not started and not self._cancelled:
                        raise ParserProcessEnded
                    outcome.failure = worker.death()
                    break
                started = True
                if self._add(reply, outcome, worker):
                    worker.served += 1
                    break
        except ExtractionFailed as failure:
            outcome.failure = failure
        if outcome.failure is not None and outcome.failure.reason is FailureReason.TIMEOUT:
            outcome.failure = ExtractionFailed(
                FailureReason.TIMEOUT,
                f"Reading the file took longer than the limit of {self._limits.timeout_s:g} seconds.",
            )
        return outcome

    def _add(self, reply: child_protocol.Reply, outcome: _Outcome, worker: ParserProcess) -> bool:
        """Add a reply to the outcome; ``True`` if it was the last one."""
        if isinstance(reply, _LastReply):
            self._add_last(reply, outcome)
            worker.rss_bytes = reply.rss_bytes
            return True
        match reply:
            case child_protocol.ParseWarning():
                _warn(reply.message)
            case child_protocol.ParseProgress():
                recognised = max(0, min(reply.recognised, self._limits.ocr_max_pages))
                outcome.allowance_s = recognised * self._limits.ocr_page_s
                self._report(reply)
            case child_protocol.EarlyPageBatch() | child_protocol.RecognitionBegins():
                self._pass_on(reply)
            case child_protocol.PageBatch():
                outcome.pages.extend(reply.pages)
            case child_protocol.PassageBatch():
                outcome.passages.extend(reply.passages)
            case child_protocol.AttachmentPiece():
                outcome.add_piece(reply, self._limits)
            case child_protocol.ParseStarted():
                pass
        return False

    def _pass_on(self, reply: child_protocol.EarlyPageBatch | child_protocol.RecognitionBegins) -> None:
        """Raises ``RecognitionDeferred``."""
        if self._cancelled:
            return
        if isinstance(reply, child_protocol.EarlyPageBatch):
            if self._reports.on_pages is not None:
                self._reports.on_pages(reply.pages, reply.total)
        elif self._reports.on_recognition is not None:
            turn = anyio.from_thread.run_sync(self._reports.on_recognition, reply.pages)
            if turn is RecognitionTurn.DEFER:
                raise RecognitionDeferred

    def _report(self, progress: child_protocol.ParseProgress) -> None:
        if self._reports.on_progress is not None and not self._cancelled:
            anyio.from_thread.run_sync(self._reports.on_progress, progress.done, progress.total)

    @staticmethod
    def _add_last(reply: _LastReply, outcome: _Outcome) -> None:
        match reply:
            case child_protocol.ParseFinished():
                outcome.end = reply
            case child_protocol.FoundBoxes() | child_protocol.DrawnPage() | child_protocol.FoundOutline():
                outcome.reply = reply
            case child_protocol.ParseFailed():
                outcome.failure = ExtractionFailed(reply.reason, reply.message)
