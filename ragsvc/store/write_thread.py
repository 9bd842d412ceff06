"""The one thread of a process that writes to a database: waiting writes share a commit, each in its own savepoint.

Knows neither the tables nor how a connection is opened. An exception undoes only the changes of its own write; a
commit that fails fails all writes of its group.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

from ragsvc.core.errors import Overloaded, ShuttingDown, StorageFull
from ragsvc.store.engines.interface import DriverConnection

ConnectionT = TypeVar("ConnectionT")
T = TypeVar("T")


class WritableConnection(Protocol[ConnectionT]):
    """A connection that belongs to the write thread."""

    savepoint_for_one: bool
    """Whether a write that is alone in its transaction has a savepoint as well."""

    def open(self) -> AbstractContextManager[ConnectionT]:
        """The connection, closed at the end; called once, in the write thread."""
        ...

    def transaction(self, connection: ConnectionT) -> AbstractContextManager[object]:
        """A transaction that holds the write lock, committed durably at the end, rolled back by an exception."""
        ...

    def driver(self, connection: ConnectionT) -> DriverConnection:
        """The driver's connection, in the same transaction."""
        ...

    def has_lost(self, connection: ConnectionT, error: Exception) -> bool:
        """Whether an error has ended the transaction of all writes, or must end it."""
        ...

    def may_repeat(self, error: Exception, *, times: int) -> bool:
        """Whether to run the writes again after their transaction failed; they were repeated ``times`` before.

        Frees reserved disk space if the disk is full.
        """
        ...

    def translate(self, error: Exception) -> Exception:
        """The error that callers see."""
        ...


class _QueuedWrite(Generic[ConnectionT]):
    __slots__ = ("function", "future")

    def __init__(self, function: Callable[[ConnectionT], Any], future: Future[Any]) -> None:
        self.function = function
        self.future = future


class WriteThread(Generic[ConnectionT]):
    """Runs write functions in order; ``close`` runs the queued functions first.

    At most ``group_limit`` writes share a commit, and at most ``queue_limit`` wait.
    """

    def __init__(
        self,
        connection: WritableConnection[ConnectionT],
        *,
        name: str,
        group_limit: int,
        queue_limit: int,
        overloaded: str,
    ) -> None:
        """``name`` is the thread's; ``overloaded`` is the message of the error when the queue is full."""
        self._connection = connection
        self._group_limit = group_limit
        self._overloaded = overloaded
        self._queue: queue.Queue[_QueuedWrite[ConnectionT] | None] = queue.Queue(maxsize=queue_limit)
        self._closed = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[ConnectionT], T]) -> Future[T]:
        """Queue a write; its future ends after the commit. A future that is cancelled before its turn is not run.

        Raises:
            Overloaded: too many writes are waiting.
            ShuttingDown: the thread was closed.
        """
        future: Future[T] = Future()
        with self._close_lock:
            if self._closed:
                raise ShuttingDown("The service is shutting down.")
            try:
                self._queue.put_nowait(_QueuedWrite(function, future))
            except queue.Full as error:
                raise Overloaded(self._overloaded, retry_after_s=1) from error
        return future

    def close(self) -> bool:
        """Finish queued writes and end the thread; ``False`` if it was closed before."""
        with self._close_lock:
            if self._closed:
                return False
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        return True

    def _run(self) -> None:
        with self._connection.open() as connection:
            last = False
            while not last:
                group, last = self._next_group()
                if group:
                    self._commit(connection, group)
                del group  # nothing of a finished write is kept while the thread waits

    def _next_group(self) -> tuple[list[_QueuedWrite[ConnectionT]], bool]:
        """The waiting writes, at least one unless the thread ends, and ``True`` if they are the last writes."""
        write = self._queue.get()
        group: list[_QueuedWrite[ConnectionT]] = []
        while write is not None:
            group.append(write)
            if len(group) == self._group_limit:
                return group, False
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, connection: ConnectionT, group: list[_QueuedWrite[ConnectionT]]) -> None:
        wanted = [write for write in group if write.future.set_running_or_notify_cancel()]
        if wanted:
            self._commit_running(connection, wanted)

    def _commit_running(self, connection: ConnectionT, wanted: list[_QueuedWrite[ConnectionT]]) -> None:
        try:
            outcomes = self._run_group(connection, wanted)
        except Exception as error:  # noqa: BLE001 - every caller of the group receives it
            failure = self._connection.translate(error)
            if isinstance(failure, StorageFull) and len(wanted) > 1:  # some may need no room: reads, for example
                for write in wanted:
                    self._commit_running(connection, [write])
                return
            for write in wanted:
                write.future.set_exception(failure)
            return
        for write, result, own_failure in outcomes:
            if own_failure is None:
                write.future.set_result(result)
            else:
                write.future.set_exception(own_failure)

    def _run_group(
        self, connection: ConnectionT, group: list[_QueuedWrite[ConnectionT]]
    ) -> list[tuple[_QueuedWrite[ConnectionT], object, Exception | None]]:
        """Run the writes in one transaction, and again if that can help."""
        times = 0
        while True:
            try:
                with self._connection.transaction(connection):
                    if len(group) == 1 and not self._connection.savepoint_for_one:
                        return [(group[0], group[0].function(connection), None)]
                    return [(write, *self._run_in_savepoint(connection, write)) for write in group]
            except Exception as error:
                if not self._connection.may_repeat(error, times=times):
                    raise
            times += 1

    def _run_in_savepoint(
        self, connection: ConnectionT, write: _QueuedWrite[ConnectionT]
    ) -> tuple[object, Exception | None]:
        driver = self._connection.driver(connection)
        driver.execute("SAVEPOINT one_write").close()
        try:
            result = write.function(connection)
        except Exception as error:
            if self._connection.has_lost(connection, error):
                raise
            driver.execute("ROLLBACK TO one_write").close()
            driver.execute("RELEASE one_write").close()
            return None, self._connection.translate(error)
        driver.execute("RELEASE one_write").close()
        return result, None
