"""A SQLite file as the database. Owns connections, transactions and pragmas, and no statements.

Commits use ``synchronous=FULL``: they survive a crash of the process and of the machine.
"""

from __future__ import annotations

import importlib
import logging
import os
import sqlite3
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar, cast

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError

from ragsvc.core.errors import ConfigurationError, RagsvcError, ShuttingDown, StorageFull
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.store.backup import list_backups
from ragsvc.store.database import Database, driver_connection
from ragsvc.store.disk_space import can_write
from ragsvc.store.log_truncation import TRUNCATE_AFTER_S, LogTruncation
from ragsvc.store.schema import prepare_schema
from ragsvc.store.unallocated_space import clear_unallocated_space

logger = logging.getLogger(__name__)

T = TypeVar("T")
_SHARE_AGAIN_S: Final = 5.0
_BUSY_TIMEOUT_S: Final = 30.0
_BUSY_POLL_S: Final = 0.02
TEXT_FACTORY: Final = partial(str, encoding="utf-8", errors="surrogateescape")
"""Reads texts that are not valid UTF-8 as strings that cannot be encoded (see ``text_integrity.is_readable``): a
damaged row must not make statements about other rows fail."""
_READERS: Final = 2, 4
"""Least and most threads that read; in between, one per core. With twice as many, concurrent searches switched the
interpreter lock so often that the 99th percentile of their latency was a seventh higher."""


_kept_in_fork: Final[list[Connection]] = []


class _Reader:
    """The read connection of a thread, locked while it reads; closed when its thread or the database ends."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.RLock()
        self.close = weakref.finalize(self, _close, connection, os.getpid())
        self.close.atexit = False


def _close(connection: Connection, opened_by: int) -> None:
    """Close a connection in the process that opened it.

    A fork keeps it: the fork's other threads are gone, and SQLite would wait for ever for a lock that one of them held.
    """
    if os.getpid() != opened_by:
        _kept_in_fork.append(connection)
        return
    connection.close()
    connection.engine.dispose()


class _Writer:
    """Implements ``WritableConnection``: the engine's connection, with its pragmas."""

    savepoint_for_one = True

    def __init__(
        self,
        engine: Engine,
        *,
        make_room: Callable[[], bool],
        begun: Callable[[Connection], None],
        committed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._make_room = make_room
        self._begun = begun
        self._committed = committed

    def open(self) -> AbstractContextManager[Connection]:
        return self._engine.connect()

    @contextmanager
    def transaction(self, connection: Connection) -> Generator[None]:
        self._begun(connection)
        driver = driver_connection(connection)
        before = driver.total_changes
        with connection.begin():
            yield
        if driver.total_changes != before:
            self._committed()

    def driver(self, connection: Connection) -> sqlite3.Connection:
        return cast("sqlite3.Connection", driver_connection(connection))  # or SQLCipher's class of the same interface

    def has_lost(self, connection: Connection, error: Exception) -> bool:
        """SQLite ends the whole transaction by itself: full disk, I/O error, no memory."""
        return not driver_connection(connection).in_transaction

    def may_repeat(self, error: Exception, *, times: int) -> bool:
        """Once, if the disk is full and the reserve makes room."""
        return not times and isinstance(_translate(error), StorageFull) and self._make_room()

    def translate(self, error: Exception) -> Exception:
        return _translate(error)


class SqliteDatabase(Database):
    """A SQLite database. ``close`` finishes queued writes first.

    With ``key`` (32 bytes), the file is encrypted by SQLCipher. ``make_room`` is called when a commit failed because
    the disk is full; if it returns ``True``, the commit is tried once more.

    SQLite needs some space to share a write-ahead log between connections. If the disk is full when the database is
    opened, the writer's connection reads as well, without sharing, until there is room.

    The write-ahead log is emptied ``truncate_after_s`` seconds after changes, so that deleted text does not stay in it.
    Copies that SQLite leaves in unallocated space are overwritten once an hour, and by ``erase_deleted``.
    """

    def __init__(
        self,
        path: Path,
        *,
        key: bytes | None = None,
        make_room: Callable[[], bool] = lambda: False,
        truncate_after_s: float = TRUNCATE_AFTER_S,
    ) -> None:
        self.path = path
        self._key = key
        self._driver = sqlite3 if key is None else _cipher_driver()
        self._is_exclusive = _lacks_room_to_share(path, key)
        self._share_again_at = 0.0
        self._writer_engine = _open_engine(
            path, key=key, begin="BEGIN IMMEDIATE", query_only=False, exclusive=self._is_exclusive
        )
        self._local = threading.local()
        self._open_lock = threading.Lock()
        self._open: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._no_more_reads = False
        self._prepare_schema()
        self._connect_writer()
        self._closing = threading.Event()
        self._log = LogTruncation(
            lambda: connect_raw(path, key=key),
            errors=self._driver.Error,
            clear=self._clear_unallocated_space,
            after_s=truncate_after_s,
        )
        self._log.note_commit()  # the log of a process that was killed
        writer = _Writer(
            self._writer_engine,
            make_room=make_room,
            begun=self._share_if_possible,
            committed=self._log.note_commit,
        )
        self._start(writer, name="sqlite", readers=_reader_count())

    def _prepare_schema(self) -> None:
        with self._translated():
            prepare_schema(
                self._writer_engine,
                self.path,
                connect=lambda path: connect_raw(path, key=self._key, exclusive=self._is_exclusive),
            )

    def _connect_writer(self) -> None:
        """Open the writer's connection before any other, because it may have to change the file's journal mode."""
        with self._translated():
            self._writer_engine.connect().close()

    @contextmanager
    def _translated(self) -> Generator[None]:
        """Translate SQLAlchemy's errors and the driver's own, of statements run on its connection."""
        try:
            yield
        except (DatabaseError, self._driver.Error, OSError) as error:
            if (translated := _translate(error)) is error:
                raise
            raise translated from error

    def claim_service(self) -> None:
        """The lock of the data directory refuses a second service."""

    # -- reads -------------------------------------------------------------------------------------------------

    def read_sync(self, function: Callable[[Connection], T]) -> T:
        if self._is_exclusive:
            return self.write_sync(function)
        reader = self._reader()
        with reader.lock:
            if not reader.close.alive:
                raise ShuttingDown("The database is closed.")
            with self._translated(), reader.connection.begin():
                return function(reader.connection)

    def _reader(self) -> _Reader:
        """This thread's connection, kept open: taking a connection from a pool costs as much as a small statement."""
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            with self._open_lock:
                if self._no_more_reads:
                    raise ShuttingDown("The database is closed.")
                engine = _open_engine(self.path, key=self._key, begin="BEGIN", query_only=True)
                reader = _Reader(engine.connect())
                self._open.add(reader)
            self._local.reader = reader
        return reader

    def empty_log(self, *, timeout_s: float = 5.0) -> bool:
        """Move the write-ahead log into the file and truncate it, so that no deleted content stays in it. Blocking.

        ``False`` if readers or writers held the log for ``timeout_s``, or if the disk is full. What the log holds is
        committed in any case, and the log is emptied in the background as after every commit.
        """
        deadline = time.monotonic() + timeout_s
        try:
            with closing(connect_raw(self.path, key=self._key)) as connection:
                connection.execute("PRAGMA busy_timeout=1000").close()
                while True:
                    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    if not busy or time.monotonic() > deadline:
                        return not busy
                    time.sleep(0.05)
        except self._driver.Error as error:  # a full disk; or the writer does not share the log, for the same reason
            logger.warning("the write-ahead log was not emptied: %s", error)
            return False

    def erase_deleted(self, *, timeout_s: float = 5.0) -> bool:
        """Empty the write-ahead log and overwrite the file's unallocated space: no deleted content stays. Blocking.

        ``False`` as for ``empty_log``; both are then tried again in the background.
        """
        erased = self.empty_log(timeout_s=timeout_s) and self._clear_unallocated_space(timeout_s=timeout_s)
        if not erased:
            self._log.clear_soon()
        return erased

    def _clear_unallocated_space(self, *, timeout_s: float = 5.0) -> bool:
        """In an encrypted file no space is readable."""
        if self._key is not None:
            return True
        return clear_unallocated_space(self.path, timeout_s=timeout_s, stopped=self._closing)

    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def older_copies(self) -> Sequence[Path]:
        return list_backups(self.path)

    def connect_copy(self, path: Path) -> sqlite3.Connection:
        return connect_raw(path, key=self._key)

    def _share_if_possible(self, connection: Connection) -> None:
        """Let other connections read again once there is room; called in the write thread between transactions."""
        if not self._is_exclusive or time.monotonic() < self._share_again_at:
            return
        self._share_again_at = time.monotonic() + _SHARE_AGAIN_S
        if not can_write(self.path.parent):
            return
        driver = driver_connection(connection)
        try:  # a connection that opened the log in exclusive mode leaves this mode only with another journal
            for pragma in ("journal_mode=DELETE", "locking_mode=NORMAL", "journal_mode=WAL"):
                (state,) = driver.execute(f"PRAGMA {pragma}").fetchone()
        except self._driver.Error as error:
            if not is_storage_fault(error):
                raise
            return
        self._is_exclusive = state != "wal"

    # -- end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish queued writes and running reads, checkpoint the write-ahead log, close all connections."""
        if not self._writer.close():
            return
        self._closing.set()  # large files are read for half a minute
        self._log.close()
        self._readers.shutdown(wait=True)
        with self._open_lock:
            self._no_more_reads = True
        for reader in list(self._open):
            with reader.lock:
                reader.close()
        with self._writer_engine.connect() as connection:
            try:
                driver_connection(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except self._driver.Error as error:
                if not is_storage_fault(error):
                    raise
                logger.warning("the write-ahead log was not moved into the database: %s", error)
        self._writer_engine.dispose()


def _reader_count() -> int:
    least, most = _READERS
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or least
    return max(least, min(most, cores))


def _lacks_room_to_share(path: Path, key: bytes | None) -> bool:
    """Whether the write-ahead log cannot be opened for several connections, because the disk is full."""
    if not path.exists() or not path.stat().st_size:
        return False
    driver = sqlite3 if key is None else _cipher_driver()
    try:
        with closing(connect_raw(path, key=key)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except driver.Error as error:
        return is_storage_fault(error)
    return False


def connect_raw(
    path: Path, *, key: bytes | None, encryptable: bool = False, exclusive: bool = False
) -> sqlite3.Connection:
    """Open a connection of the ``sqlite3`` driver, or of SQLCipher's with ``key`` or ``encryptable``.

    With ``exclusive`` no other connection can read the file meanwhile, and no file is needed to share the log.

    Raises:
        ConfigurationError: SQLCipher is needed and its package is not installed.
    """
    driver = _cipher_driver() if key is not None or encryptable else sqlite3
    connection: sqlite3.Connection = driver.connect(
        str(path), timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    if key is not None:
        connection.execute(f"PRAGMA key=\"x'{key.hex()}'\"").close()
    connection.text_factory = TEXT_FACTORY
    if exclusive:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").close()
    return connection


def _cipher_driver() -> ModuleType:
    try:
        return importlib.import_module("sqlcipher3.dbapi2")  # the same interface with other classes
    except ImportError as error:
        raise ConfigurationError(["encryption at rest needs SQLCipher: pip install 'ragsvc[encryption]'"]) from error


def _open_engine(path: Path, *, key: bytes | None, begin: str, query_only: bool, exclusive: bool = False) -> Engine:
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        module=sqlite3 if key is None else _cipher_driver(),
        creator=lambda: connect_raw(path, key=key, exclusive=exclusive),
    )

    @event.listens_for(engine, "connect")
    def _prepare(raw: sqlite3.Connection, _record: object) -> None:
        if not query_only:
            _use_write_ahead_log(raw)
        for pragma in (
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
        driver_connection(connection).execute(begin).close()

    return engine


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Set the journal mode, which the file keeps. A backup and a file that was just encrypted have another.

    The change needs the file for itself. SQLite fails at once if another connection changes it at the same time
    (https://sqlite.org/c3ref/busy_handler.html: the busy handler is not called where waiting could be a deadlock).
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except Exception as error:
            if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_S)
        else:
            return


def _translate(error: Exception) -> Exception:
    if isinstance(error, RagsvcError):
        return error
    cause = error.orig or error if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", "")  # set by both drivers
    if name == "SQLITE_FULL":
        return StorageFull("The disk is full. Nothing was changed.")
    if is_storage_fault(cause) and not name:
        return StorageFull("The disk is full. Nothing was changed.")
    if name.startswith("SQLITE_IOERR"):
        return StorageFull("The database could not be written (disk error).")
    return error
