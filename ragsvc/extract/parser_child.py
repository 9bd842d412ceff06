"""The entry point of the child process: reads jobs from fd 0, one at a time, and writes replies to the original fd 1.

Owns the child's limits (memory, processor time, core and file size, niceness; ``sandbox`` takes away files, network and
signals) and its end: when the service closes the pipe or dies, after its idle timeout, and after running out of memory.
Knows nothing of how files are read (``read_file``) and how passages are split (the plan in the request).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import logging
import os
import queue
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ragsvc.core.documents import Page
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import TokenSpans
from ragsvc.extract import child_protocol
from ragsvc.extract.page_pictures import draw_page_picture
from ragsvc.extract.pdf_document import read_outline
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_page_boxes
from ragsvc.extract.read_file import extract
from ragsvc.extract.sandbox.confinement import confine

_STDERR_BYTES = 1 << 20
_PROGRESS_EVERY_S = 0.2
_FIRST_EARLY_S = 0.15
_EARLY_S = 1.0
_MOST_EARLY_S = 10.0
_SMALL_FILES_PER_COLLECTION = 64
"""Small files after which garbage is collected: a full collection takes three times as long as reading such a file."""


def main() -> None:
    """Serve jobs until the pipe closes. Arguments: ``MEMORY_BYTES IDLE_S NICENESS FILES`` (``ChildFiles`` as JSON)."""
    memory_bytes, idle_s, niceness = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    files = msgspec.json.decode(sys.argv[4], type=child_protocol.ChildFiles)
    requests, replies = _take_over_pipes()
    _limit_process(memory_bytes, niceness)
    for package in files.packages:
        importlib.import_module(package)  # a later import might have to list a folder that the child may not read
    missing = confine(readable=files.paths, packages=files.packages)
    logging.disable(logging.CRITICAL)  # parsers log every irregularity of every page
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    token_loaders: dict[tuple[str, str], TokenSpans] = {}
    small_files = 0
    while True:
        try:
            payload = inbox.get(timeout=idle_s)
        except queue.Empty:
            return
        small_files = small_files + 1 if _serve(payload, replies, token_loaders, missing) else 0
        if small_files % _SMALL_FILES_PER_COLLECTION == 0:
            gc.collect()
        missing = []


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Duplicate the pipes to the service, and redirect fds 0 and 1 to the null device, against stray output.

    Fd 2 is a file that the service reads when the child has crashed.
    """
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return io.BufferedReader(requests), replies


def _limit_process(memory_bytes: int, niceness: int) -> None:
    os.nice(niceness)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_STDERR_BYTES, _STDERR_BYTES))
    with contextlib.suppress(ValueError, OSError):  # macOS defines RLIMIT_AS and refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Queue requests, and end the process when the service closes the pipe, even during a job."""
    while (payload := child_protocol.read_payload(requests)) is not None:
        inbox.put(payload)
    os._exit(0)


def _serve(
    payload: bytes, replies: BinaryIO, token_loaders: dict[tuple[str, str], TokenSpans], warnings: Sequence[str]
) -> bool:
    """Serve a request; returns whether it was for a small file."""
    request = child_protocol.decode_request(payload)
    _write(replies, child_protocol.ParseStarted())
    for warning in warnings:
        _write(replies, child_protocol.ParseWarning(warning))
    _limit_processor_time(request.limits.timeout_s)
    out_of_memory = False
    try:
        _answer(request, replies, token_loaders)
    except ExtractionFailed as error:
        _write(replies, child_protocol.ParseFailed(error.reason, error.message, rss_bytes=_rss_bytes()))
    except MemoryError:
        out_of_memory = True
    except RecursionError:
        _fail(
            replies,
            FailureReason.DAMAGED,
            "The structure of the file is damaged: it contains an endless reference cycle.",
        )
    except Exception as error:  # noqa: BLE001 - any error of a parser fails this file only
        _fail(replies, FailureReason.PARSER_CRASHED, f"Reading the file failed ({type(error).__name__}).")
    if out_of_memory:  # outside the handler, after the frames that hold the memory are released
        gc.collect()
        _fail(replies, FailureReason.OUT_OF_MEMORY, "Reading the file needs more memory than the limit for a document.")
        os._exit(0)
    return isinstance(request, child_protocol.ParseRequest) and request.is_small


def _answer(
    request: child_protocol.Request, replies: BinaryIO, token_loaders: dict[tuple[str, str], TokenSpans]
) -> None:
    match request:
        case child_protocol.ParseRequest():
            _parse(request, replies, token_loaders)
        case child_protocol.BoxesRequest():
            boxes, lines = find_page_boxes(
                Path(request.path), request.page, request.stretch, password=request.password, known=request.known
            )
            _write(replies, child_protocol.FoundBoxes(boxes, lines, rss_bytes=_rss_bytes()))
        case child_protocol.DrawRequest():
            picture = draw_page_picture(Path(request.path), request.page, request.width, password=request.password)
            _write(replies, child_protocol.DrawnPage(picture, rss_bytes=_rss_bytes()))
        case child_protocol.OutlineRequest():
            bookmarks = read_outline(Path(request.path), password=request.password)
            _write(replies, child_protocol.FoundOutline(bookmarks, rss_bytes=_rss_bytes()))


def _fail(replies: BinaryIO, reason: FailureReason, message: str) -> None:
    _write(replies, child_protocol.ParseFailed(reason, message, rss_bytes=_rss_bytes()))


def _parse(
    request: child_protocol.ParseRequest, replies: BinaryIO, token_loaders: dict[tuple[str, str], TokenSpans]
) -> None:
    last_report, recognised = time.monotonic() if request.is_small else 0.0, 0
    early = _EarlyPageSender(replies)

    def report(done: int, total: int) -> None:
        nonlocal last_report
        early.total = total
        early.send_if_due()
        now = time.monotonic()
        if (done >= total and not request.is_small) or now - last_report >= _PROGRESS_EVERY_S:
            last_report = now
            _write(replies, child_protocol.ParseProgress(done, total, recognised))

    def count(pages: int) -> None:
        nonlocal recognised
        recognised = pages
        _limit_processor_time(request.limits.timeout_s)  # restart the limit: the service extends its deadline as well

    def announce_recognition(pages: int) -> None:
        early.send()
        _write(replies, child_protocol.RecognitionBegins(pages))

    started = time.perf_counter()
    extraction = extract(
        Path(request.path),
        media_type=request.media_type,
        filename=request.filename,
        password=request.password,
        limits=request.limits,
        reports=PageReports(
            on_progress=report,
            on_recognised=count,
            on_warning=lambda message: _write(replies, child_protocol.ParseWarning(message)),
            on_text=early.add,
            on_recognition=announce_recognition,
        ),
    )
    extracted = time.perf_counter()
    passages = []
    plan = request.plan
    if plan is not None:
        key = (plan.load_tokens, plan.tokenizer)
        if key not in token_loaders:
            token_loaders[key] = _resolve(plan.load_tokens)(Path(plan.tokenizer))
        passages = _resolve(plan.split)(
            extraction, options=plan.options, tokens=token_loaders[key], filename=request.filename
        )
    timings = {
        **extraction.timings,
        "extract_s": round(extracted - started, 4),
        "chunk_s": round(time.perf_counter() - extracted, 4),
    }
    for batch in child_protocol.page_batches(extraction.pages):
        _write(replies, batch)
    for passage_batch in child_protocol.passage_batches(passages):
        _write(replies, passage_batch)
    for piece in child_protocol.attachment_pieces(extraction.attached_files):
        _write(replies, piece)
    summary = msgspec.structs.asdict(msgspec.structs.replace(extraction, timings=timings))
    del summary["pages"], summary["attached_files"], summary["tables"], extraction, passages
    _write(replies, child_protocol.ParseFinished(**summary, rss_bytes=_rss_bytes()))


class _EarlyPageSender:
    """Sends the pages that were read so far: the first soon, later ones after intervals that double.

    The service counts the words of these pages once more when the document is complete. In a report that is read
    within a second, only the pages of the first ``_FIRST_EARLY_S`` are counted twice.
    """

    def __init__(self, replies: BinaryIO) -> None:
        self.total = 0
        """The number of pages of the document."""
        self._replies = replies
        self._pages: list[Page] = []
        self._due = time.monotonic() + _FIRST_EARLY_S
        self._interval_s = _EARLY_S

    def add(self, number: int, text: str) -> None:
        self._pages.append(Page(number, text))

    def send_if_due(self) -> None:
        if self._pages and time.monotonic() >= self._due:
            self.send()

    def send(self) -> None:
        for batch in child_protocol.page_batches(self._pages):
            _write(self._replies, child_protocol.EarlyPageBatch(batch.pages, self.total))
        self._pages = []
        self._due = time.monotonic() + self._interval_s
        self._interval_s = min(_MOST_EARLY_S, 2 * self._interval_s)


def _resolve(dotted: str) -> Callable[..., Any]:
    """Import ``module:function``. The name comes from the service, never from a file or a client."""
    module, _, name = dotted.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _write(replies: BinaryIO, message: child_protocol.Reply) -> None:
    view = memoryview(child_protocol.pack(message))
    while view:
        view = view[replies.write(view) :]


def _limit_processor_time(timeout_s: float) -> None:
    """Let a signal end the process if a job far exceeds its time and even the receiving thread is blocked."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + timeout_s) + 30
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _rss_bytes() -> int:
    try:
        with Path("/proc/self/statm").open("rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux: use the peak instead
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
