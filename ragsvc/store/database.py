"""One SQLite file: one write thread with grouped commits, reads from a small pool of threads.

Owns connections, transactions and pragmas; knows nothing of documents or keys. What ``write`` returned has been
committed with ``synchronous=FULL``: it survives a crash of the process and of the machine.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import os
import queue
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError

from ragsvc.core.errors import ConfigurationError, Overloaded, RagsvcError, ShuttingDown, StorageFull
from ragsvc.store.schema import prepare_schema

logger = logging.getLogger(__name__)

T = TypeVar("T")
_GROUP_LIMIT: Final = 64
_QUEUE_LIMIT: Final = 4096
_READERS: Final = 2, 4
"""Threads that read, at least and at most; in between one a core. With twice as many, searches at once took turns at
the interpreter so often that the slowest one in a hundred waited a seventh longer."""


class _WriteJob:
    __slots__ = ("function", "future")

    def __init__(self, function: Callable[[Connection], Any], future: Future[Any]) -> None:
        self.function = function
        self.future = future


class _Reader:
    """A thread's connection for reading, locked while it reads; closed with its thread, or with the database."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.RLock()
        self.close = weakref.finalize(self, _close, connection)
        self.close.atexit = False


def _close(connection: Connection) -> None:
    connection.close()
    connection.engine.dispose()


class Database:
    """A SQLite database; see the module. ``close`` finishes queued writes first.

    With ``key`` (32 bytes) the file is encrypted by SQLCipher.
    """

    def __init__(self, path: Path, *, key: bytes | None = None) -> None:
        self.path = path
        self._key = key
        self._driver = sqlite3 if key is None else _cipher_driver()
        self._writer_engine = _open_engine(path, key=key, begin="BEGIN IMMEDIATE", query_only=False)
        self._local = threading.local()
        self._open_lock = threading.Lock()
        self._open: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._no_more_reads = False
        self._queue: queue.Queue[_WriteJob | None] = queue.Queue(maxsize=_QUEUE_LIMIT)
        self._closed = False
        self._close_lock = threading.Lock()
        self._prepare_schema()
        self._readers = ThreadPoolExecutor(_reader_count(), thread_name_prefix="sqlite-read")
        self._writer = threading.Thread(target=self._write_loop, name="sqlite-write", daemon=True)
        self._writer.start()

    def _prepare_schema(self) -> None:
        try:
            prepare_schema(self._writer_engine, self.path, connect=lambda path: connect_raw(path, key=self._key))
        except (DatabaseError, self._driver.Error, OSError) as error:
            if (translated := _translate(error)) is error:
                raise
            raise translated from error

    # -- writes ------------------------------------------------------------------------------------------------

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Run ``function`` in the write thread and return after its transaction is durable.

        Calls that wait at the same time share one commit; each runs in its own savepoint, so an exception undoes only
        its own changes. A cancelled caller does not undo its write.

        Raises:
            StorageFull: the disk is full; nothing was changed.
            Overloaded: too many writes are waiting.
        """
        return await asyncio.wrap_future(self._submit(function))

    def write_sync(self, function: Callable[[Connection], T]) -> T:
        """Do what ``write`` does, for callers outside an event loop."""
        return self._submit(function).result()

    def post(self, function: Callable[[Connection], object], *, then: Callable[[], object] | None = None) -> None:
        """Queue a write that nobody waits for (progress, counters); a failure is logged, ``then`` follows success."""

        def done(future: Future[object]) -> None:
            if (error := future.exception()) is not None:
                logger.warning("a background write failed with %s", type(error).__name__)
            elif then is not None:
                then()

        self._submit(function).add_done_callback(done)

    def _submit(self, function: Callable[[Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._close_lock:
            if self._closed:
                raise ShuttingDown("the database is closed")
            try:
                self._queue.put_nowait(_WriteJob(function, future))
            except queue.Full as error:
                raise Overloaded("too many writes are waiting", retry_after_s=1) from error
        return future

    def _write_loop(self) -> None:
        with self._writer_engine.connect() as connection:
            while True:
                first = self._queue.get()
                if first is None:
                    return
                group, stop = [first], False
                while len(group) < _GROUP_LIMIT:
                    try:
                        following = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        stop = True
                        break
                    group.append(following)
                self._commit_group(connection, group)
                del group, first
                if stop:
                    return

    def _commit_group(self, connection: Connection, group: list[_WriteJob]) -> None:
        outcomes: list[tuple[_WriteJob, object, BaseException | None]] = []
        try:
            with connection.begin():
                for job in group:
                    if not job.future.set_running_or_notify_cancel():
                        continue
                    outcomes.append(self._run_in_savepoint(connection, job))
        except Exception as error:  # noqa: BLE001 - every caller of the group learns it
            failure = _translate(error)
            for job in group:
                if job.future.running():
                    job.future.set_exception(failure)
            return
        for job, result, failure_of_one in outcomes:
            if failure_of_one is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(failure_of_one)

    @staticmethod
    def _run_in_savepoint(connection: Connection, job: _WriteJob) -> tuple[_WriteJob, object, BaseException | None]:
        connection.exec_driver_sql("SAVEPOINT one_write")
        try:
            result = job.function(connection)
        except Exception as error:
            if not driver_connection(connection).in_transaction:
                raise  # SQLite ended the whole transaction by itself: full disk, I/O error, no memory
            connection.exec_driver_sql("ROLLBACK TO one_write")
            connection.exec_driver_sql("RELEASE one_write")
            return job, None, _translate(error)
        connection.exec_driver_sql("RELEASE one_write")
        return job, result, None

    # -- reads -------------------------------------------------------------------------------------------------

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run ``function`` in a read-only transaction on a reader thread; sees all committed writes."""
        return await self.on_reader(lambda: self.read_sync(function))

    async def on_reader(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a reader's thread, without a transaction; what it reads by ``read_sync`` costs no hop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def read_sync(self, function: Callable[[Connection], T]) -> T:
        """Do what ``read`` does, in the calling thread."""
        reader = self._reader()
        with reader.lock:
            if not reader.close.alive:
                raise ShuttingDown("the database is closed")
            try:
                with reader.connection.begin():
                    return function(reader.connection)
            except (DatabaseError, self._driver.Error) as error:  # the driver's own, from where it is used directly
                if (translated := _translate(error)) is error:
                    raise
                raise translated from error

    def _reader(self) -> _Reader:
        """This thread's own, kept open: taking a connection from a pool costs as much as a small statement."""
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            with self._open_lock:
                if self._no_more_reads:
                    raise ShuttingDown("the database is closed")
                engine = _open_engine(self.path, key=self._key, begin="BEGIN", query_only=True)
                reader = _Reader(engine.connect())
                self._open.add(reader)
            self._local.reader = reader
        return reader

    # -- end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish queued writes and running reads, fold the write-ahead log into the file, close all connections."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._writer.join()
        self._readers.shutdown(wait=True)
        with self._open_lock:
            self._no_more_reads = True
        for reader in list(self._open):
            with reader.lock:
                reader.close()
        with self._writer_engine.connect() as connection:
            driver_connection(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writer_engine.dispose()


def _reader_count() -> int:
    least, most = _READERS
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or least
    return max(least, min(most, cores))


def connect_raw(path: Path, *, key: bytes | None, encryptable: bool = False) -> sqlite3.Connection:
    """A connection of the driver: plain SQLite's, or with ``key`` (or ``encryptable``) SQLCipher's.

    Raises:
        ConfigurationError: the package for encryption is not installed.
    """
    driver = _cipher_driver() if key is not None or encryptable else sqlite3
    connection: sqlite3.Connection = driver.connect(
        str(path), timeout=30.0, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    if key is not None:
        connection.execute(f"PRAGMA key=\"x'{key.hex()}'\"").close()
    return connection


def _cipher_driver() -> ModuleType:
    try:
        return importlib.import_module("sqlcipher3.dbapi2")  # same interface, its own classes
    except ImportError as error:
        raise ConfigurationError(["encryption at rest needs the package: pip install 'ragsvc[encryption]'"]) from error


def _open_engine(path: Path, *, key: bytes | None, begin: str, query_only: bool) -> Engine:
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        module=sqlite3 if key is None else _cipher_driver(),
        creator=lambda: connect_raw(path, key=key),
    )

    @event.listens_for(engine, "connect")
    def _prepare(raw: sqlite3.Connection, _record: object) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
            "temp_store=MEMORY",
            "cache_size=-16000",
            "mmap_size=0",
            "journal_size_limit=67108864",
            *(("query_only=ON",) if query_only else ()),
        ):
            raw.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def driver_connection(connection: Connection) -> sqlite3.Connection:
    """The driver's connection behind it, in the same transaction."""
    return cast("sqlite3.Connection", connection.connection.driver_connection)  # or SQLCipher's, which is its twin


def _translate(error: Exception) -> Exception:
    if isinstance(error, RagsvcError):
        return error
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", "")  # of either driver's errors
    if name == "SQLITE_FULL":
        return StorageFull("the disk is full; nothing was changed")
    if name.startswith("SQLITE_IOERR"):
        return StorageFull("the database could not be written (disk error)")
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the disk is full; nothing was changed")
    return error
