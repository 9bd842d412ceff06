"""Access to the database: one write thread with grouped commits, and reads on a small pool of threads.

``sqlite_database`` and ``postgres_database`` own connections and transactions. When ``write`` returns, the change is
committed durably: it survives a crash of the process and of the machine.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from ragsvc.core.errors import ShuttingDown
from ragsvc.store.write_thread import WritableConnection, WriteThread

logger = logging.getLogger(__name__)

T = TypeVar("T")
_GROUP_LIMIT: Final = 64
_QUEUE_LIMIT: Final = 4096


class Database(ABC):
    """An open database. ``close`` finishes queued writes first."""

    _writer: WriteThread[Connection]
    _readers: ThreadPoolExecutor

    def _start(self, connection: WritableConnection[Connection], *, name: str, readers: int) -> None:
        """Start the threads, whose names begin with ``name``; the last step of opening a database."""
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix=f"{name}-read")
        self._writer = WriteThread(
            connection,
            name=f"{name}-write",
            group_limit=_GROUP_LIMIT,
            queue_limit=_QUEUE_LIMIT,
            overloaded="Too many writes are waiting.",
        )

    @abstractmethod
    def claim_service(self) -> None:
        """Refuse a second service on this database until it is closed.

        Raises:
            DataDirectoryLocked: another service uses the database, with another data directory.
        """

    # -- writes ------------------------------------------------------------------------------------------------

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run ``function`` in the write thread and return after its transaction is durable.

        Writes that wait at the same time share a commit; each runs in its own savepoint, so an exception undoes only
        its own changes. ``function`` may run again if its transaction failed. Cancelling the caller does not undo a
        write that has begun.

        Raises:
            StorageFull: the disk is full; nothing was changed.
            Overloaded: too many writes are waiting, or the database cannot be reached.
        """
        return await asyncio.wrap_future(self._writer.submit(function))

    def write_sync(self, function: Callable[[Connection], T]) -> T:
        """As ``write``, for callers outside an event loop."""
        return self._writer.submit(function).result()

    def post(self, function: Callable[[Connection], object], *, then: Callable[[], object] | None = None) -> None:
        """Queue a write without waiting (progress, counters). A failure is logged; ``then`` runs after the commit."""

        def done(future: Future[object]) -> None:
            if (error := future.exception()) is not None:
                logger.warning("a background write failed with %s", type(error).__name__)
            elif then is not None:
                then()

        self._writer.submit(function).add_done_callback(done)

    # -- reads -------------------------------------------------------------------------------------------------

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run ``function`` in a read-only transaction on a reader thread; it sees all committed writes."""
        return await self.on_reader(lambda: self.read_sync(function))

    async def on_reader(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a reader thread, without a transaction; its calls of ``read_sync`` do not change threads.

        Raises:
            ShuttingDown: the database was closed.
        """
        try:
            result = asyncio.get_running_loop().run_in_executor(self._readers, work)
        except RuntimeError as error:  # the threads have ended
            raise ShuttingDown("The database is closed.") from error
        return await result

    @abstractmethod
    def read_sync(self, function: Callable[[Connection], T]) -> T:
        """As ``read``, in the calling thread."""

    # -- what was deleted --------------------------------------------------------------------------------------

    @abstractmethod
    def erase_deleted(self, *, timeout_s: float = 5.0) -> bool:
        """Overwrite what was deleted, as far as the engine leaves that to this process. Blocking.

        ``False`` if this was not possible within ``timeout_s``, and is tried again in the background, or if it is left
        to a server.
        """

    @abstractmethod
    def size_bytes(self) -> int:
        """The size of the database on its disk. Blocking."""

    @abstractmethod
    def older_copies(self) -> Sequence[Path]:
        """The copies of the database that upgrades have made and left in the data directory."""

    @abstractmethod
    def connect_copy(self, path: Path) -> sqlite3.Connection:
        """Open one of ``older_copies``; the caller closes the connection."""

    @abstractmethod
    def close(self) -> None:
        """Finish queued writes and running reads, close all connections."""


def driver_connection(connection: Connection) -> Any:  # noqa: ANN401 - sqlite3's, SQLCipher's or psycopg's
    """The driver's connection behind a SQLAlchemy connection, in the same transaction."""
    return connection.connection.driver_connection
