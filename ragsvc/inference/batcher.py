"""Asynchronous interface to an embedder: batches concurrent calls, bounds the queue, never blocks the event loop.

Two threads embed passages, so that the model has work while the other thread tokenises or wakes callers. Each thread
waits a few milliseconds for further calls, takes texts from all waiting calls in turn (a document of 2,000 passages
does not delay a call with one passage), and drops calls that were cancelled. Queries run on separate threads and
through a small cache. This module knows neither HTTP nor models.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import numpy as np

from ragsvc.core.errors import EmbeddingFailed, Overloaded, RagsvcError, ShuttingDown
from ragsvc.core.ports.embedding import Embedder, EmbeddingModel, Vectors
from ragsvc.inference.thread_priority import lower_priority

_SMALLEST_SHARE = 8
"""Least number of texts that a batch takes from a call, however many calls wait."""

_QUERIES_AT_ONCE = 16
"""Most queries in one forward pass; with more, the first queries would wait for the last."""

T = TypeVar("T")

_FIRST_RATE = 50.0
"""Texts per second assumed before the first measurement, for ``retry_after_s``."""


class _Waiting:
    """A caller that awaits ``answer``. Created on the caller's event loop, woken from a thread."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def wake(self, result: object) -> None:
        """Set the answer if the caller still waits; later calls have no effect. An exception is raised there."""
        with contextlib.suppress(RuntimeError):  # the caller's event loop is closed, so the caller no longer waits
            self.answer.get_loop().call_soon_threadsafe(self._answer, result)

    def _answer(self, result: object) -> None:
        if self.answer.done():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class _Call(_Waiting):
    """A waiting call of ``embed_passages``: its texts, and how many of them are taken and embedded."""

    def __init__(self, texts: Sequence[str], dimension: int) -> None:
        super().__init__()
        self.texts = list(texts)
        self.vectors: Vectors = np.empty((len(self.texts), dimension), np.float32)
        self.taken = 0
        self.embedded = 0

    @property
    def remaining(self) -> int:
        return len(self.texts) - self.taken


class _Query(_Waiting):
    """A waiting call: the vectors of its texts, of which some may be known, and the work to do with them."""

    def __init__(
        self, texts: Sequence[str], known: dict[str, Vectors], work: Callable[[Sequence[Vectors]], object] | None
    ) -> None:
        super().__init__()
        self.texts = texts
        self.vectors = known
        self.missing = [text for text in dict.fromkeys(texts) if text not in known]
        self.work = work

    def finish(self) -> None:
        """Wake the caller with the result of the work, or without work."""
        if self.work is None:
            self.wake(None)
        elif not self.answer.done():
            try:
                result = self.work([self.vectors[text] for text in self.texts])
            except BaseException as raised:  # noqa: BLE001 - raised in the task that waits; a panic of Rust is one
                self.wake(_for_a_future(raised, RuntimeError("The work with the vectors of a query failed.")))
            else:
                self.wake(result)


class EmbeddingBatcher:
    """Embeds for concurrent callers. Use ``async with``, or ``start`` and ``aclose``, within one event loop."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        max_batch_texts: int = 48,
        max_wait_s: float = 0.003,
        max_waiting_texts: int = 8192,
        max_waiting_queries: int = 512,
        bulk_threads: int = 2,
        query_threads: int = 2,
        cached_queries: int = 1024,
    ) -> None:
        self._embedder = embedder
        self._max_batch_texts = max_batch_texts
        self._max_wait_s = max_wait_s
        self._max_waiting_texts = max_waiting_texts
        self._max_waiting_queries = max_waiting_queries
        self._queries: queue.SimpleQueue[_Query | None] = queue.SimpleQueue()
        self._waiting_queries = 0
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._cached_queries = cached_queries
        self._calls: deque[_Call] = deque()
        self._waiting_texts = 0
        self._texts_per_s = _FIRST_RATE
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"embedding-batcher-{number}", daemon=True)
            for number in range(bulk_threads)
        ]
        self._query_threads = [
            threading.Thread(target=self._answer_queries, name=f"embedding-query-{number}", daemon=True)
            for number in range(query_threads)
        ]

    @property
    def model(self) -> EmbeddingModel:
        return self._embedder.model

    @property
    def runtime(self) -> str:
        """The embedder's runtime, as shown to operators."""
        return self._embedder.runtime

    @property
    def waiting_texts(self) -> int:
        """Number of passages that wait or are being embedded."""
        return self._waiting_texts

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def start(self) -> None:
        for thread in (*self._threads, *self._query_threads):
            thread.start()

    async def aclose(self) -> None:
        """Finish the running batches and fail waiting calls with ``ShuttingDown``. The embedder stays open."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for _ in self._query_threads:
            self._queries.put(None)
        for thread in (*self._threads, *self._query_threads):
            if thread.is_alive():
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(thread.join)

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed passages; returns ``(n, dim)`` float32 in the order of ``texts``.

        Raises:
            Overloaded: too many passages wait; ``retry_after_s`` estimates when they are embedded.
            ShuttingDown: the batcher is closed, or was closed before the call was complete.
            EmbeddingFailed: the model failed.
        """
        call = _Call(texts, self.model.dimension)
        if not texts:
            return call.vectors
        with self._changed:
            if self._closing:
                raise ShuttingDown("The service is stopping.")
            # a call that finds an empty queue may exceed the bound; otherwise it could never be served
            if self._waiting_texts and self._waiting_texts + len(texts) > self._max_waiting_texts:
                raise Overloaded(
                    "Too many passages wait for their embedding.",
                    retry_after_s=round(max(1.0, self._waiting_texts / self._texts_per_s), 1),
                )
            self._calls.append(call)
            self._waiting_texts += len(texts)
            self._changed.notify_all()
        vectors: Vectors = await call.answer
        return vectors

    async def embed_query(self, text: str) -> Vectors:
        """Embed one query; returns ``(dim,)`` float32, from the cache if the same text was embedded before.

        Raises:
            Overloaded: too many queries wait.
            ShuttingDown: the batcher is closed.
            EmbeddingFailed: the model failed.
        """
        if not self._closing and (known := self._cache.get(text)) is not None:
            self._cache.move_to_end(text)
            return known
        query = self._query([text], None)
        await self._answer_of(query)
        return query.vectors[text]

    async def with_queries(self, texts: Sequence[str], work: Callable[[Sequence[Vectors]], T]) -> T:
        """Embed queries as ``embed_query`` does, and run ``work`` with their vectors; see the port ``Batcher``.

        Of several calls that wait, a thread embeds the texts together and then does the work of each. A call that was
        cancelled is left out.
        """
        query = self._query(texts, work)
        result: T = await self._answer_of(query)
        return result

    def _query(self, texts: Sequence[str], work: Callable[[Sequence[Vectors]], object] | None) -> _Query:
        if self._closing:
            raise ShuttingDown("The service is stopping.")
        if self._waiting_queries >= self._max_waiting_queries:
            raise Overloaded("Too many queries wait for their embedding.", retry_after_s=1.0)
        known: dict[str, Vectors] = {}
        for text in texts:
            if (vector := self._cache.get(text)) is not None:
                self._cache.move_to_end(text)
                known[text] = vector
        return _Query(texts, known, work)

    async def _answer_of(self, query: _Query) -> Any:  # noqa: ANN401 - what its work returns
        self._waiting_queries += 1
        try:
            self._queries.put(query)
            result = await query.answer
        finally:
            self._waiting_queries -= 1
        for text in query.missing:
            self._cache[text] = query.vectors[text]
        while len(self._cache) > self._cached_queries:
            self._cache.popitem(last=False)
        return result

    def _answer_queries(self) -> None:
        """Embed queries until closed. Each pass takes this thread's share of the queries that wait."""
        closing = False
        while not closing and (query := self._queries.get()) is not None:
            together = [query]
            share = min(_QUERIES_AT_ONCE, 1 + self._queries.qsize() // len(self._query_threads))
            with contextlib.suppress(queue.Empty):
                while len(together) < share and not closing:
                    another = self._queries.get_nowait()
                    closing = another is None
                    if another is not None:
                        together.append(another)
            self._embed_queries([query for query in together if not query.answer.done()])

    def _embed_queries(self, queries: Sequence[_Query]) -> None:
        if not queries:
            return
        texts = [text for query in queries for text in query.missing]
        try:
            vectors = _checked(self._embedder.embed_queries(texts), len(texts)) if texts else ()
        except BaseException as raised:  # noqa: BLE001 - as in _embed
            if len(queries) == 1:
                queries[0].wake(raised if isinstance(raised, RagsvcError) else _failed(raised))
                return
            for query in queries:  # separately, so that a failing text does not fail the others
                self._embed_queries([query] if not query.answer.done() else [])
            return
        row = 0
        for query in queries:
            for text in query.missing:
                query.vectors[text] = vectors[row]
                row += 1
        for query in sorted(queries, key=lambda query: query.work is not None):  # those without work wait no longer
            query.finish()

    def _work(self) -> None:
        """Embed batches until closed, then fail the waiting calls."""
        lower_priority()
        while (batch := self._next_batch()) is not None:
            if batch:
                self._embed(batch)
        with self._changed:
            while self._calls:
                call = self._calls.popleft()
                self._waiting_texts -= call.remaining
                call.wake(ShuttingDown("The service is stopping."))

    def _next_batch(self) -> list[tuple[_Call, int, int]] | None:
        """Wait for texts; return ``(call, start, stop)`` slices, a fair share per call, or ``None`` when closing."""
        with self._changed:
            while not self._calls and not self._closing:
                self._changed.wait()
            deadline = time.monotonic() + self._max_wait_s
            while not self._closing and self._waiting_texts < self._max_batch_texts:
                if (left := deadline - time.monotonic()) <= 0 or not self._changed.wait(left):
                    break
            if self._closing:
                return None
            self._drop_cancelled()
            return self._take()

    def _drop_cancelled(self) -> None:
        for call in [call for call in self._calls if call.answer.done()]:
            self._calls.remove(call)
            self._waiting_texts -= call.remaining

    def _take(self) -> list[tuple[_Call, int, int]]:
        """Take at most one batch: a share of each call in turn, repeated until the batch is full."""
        share = max(_SMALLEST_SHARE, self._max_batch_texts // max(1, len(self._calls)))
        room = self._max_batch_texts
        batch: list[tuple[_Call, int, int]] = []
        while self._calls and room:
            call = self._calls.popleft()
            count = min(call.remaining, share, room)
            batch.append((call, call.taken, call.taken + count))
            call.taken += count
            room -= count
            if call.remaining:
                self._calls.append(call)  # at the end, so that the other calls come first
        return batch

    def _embed(self, batch: list[tuple[_Call, int, int]]) -> None:
        texts = [text for call, start, stop in batch for text in call.texts[start:stop]]
        started = time.monotonic()
        error: RagsvcError | None = None
        vectors: Vectors | None = None
        try:
            vectors = _checked(self._embedder.embed_passages(texts), len(texts))
        except BaseException as raised:  # noqa: BLE001 - a panic of Rust is no Exception, and must not end the thread
            error = raised if isinstance(raised, RagsvcError) else _failed(raised)
        self._texts_per_s = len(self._threads) * len(texts) / max(time.monotonic() - started, 1e-6)
        row = 0
        with self._changed:
            for call, start, stop in batch:
                if vectors is not None:
                    call.vectors[start:stop] = vectors[row : row + stop - start]
                row += stop - start
                call.embedded += stop - start
                self._waiting_texts -= stop - start
                self._settle(call, error)

    def _settle(self, call: _Call, error: RagsvcError | None) -> None:
        """Wake the caller if the call is complete or a part of it failed."""
        if error is not None:
            if call in self._calls:
                self._calls.remove(call)
                self._waiting_texts -= call.remaining
            call.wake(error)
        elif call.embedded == len(call.texts):
            call.wake(call.vectors)


def _checked(vectors: Vectors, count: int) -> Vectors:
    """Return the vectors, read-only. Raises ``EmbeddingFailed`` if their number is not ``count``."""
    if len(vectors) != count:
        raise EmbeddingFailed(f"The embedding model returned {len(vectors)} vectors for {count} texts.")
    vectors.flags.writeable = False
    return vectors


def _for_a_future(raised: BaseException, replacement: Exception) -> Exception:
    """``raised``, or ``replacement`` for what a future refuses or what would end the task group of the caller."""
    if isinstance(raised, Exception) and not isinstance(raised, StopIteration):
        return raised
    replacement.__cause__ = raised
    return replacement


def _failed(cause: BaseException) -> EmbeddingFailed:
    error = EmbeddingFailed(f"The embedding model failed: {cause!r}.")
    error.__cause__ = cause
    return error
