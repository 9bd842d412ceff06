"""A PostgreSQL database. Owns connections and transactions, and no statements.

Of all processes that write, one does so at a time, as with SQLite: a transaction that reads rows and then writes sees
every change that was committed before it. Writes that wait share a commit, so the lock is held for few milliseconds.
Commits wait for the server's log (``synchronous_commit``). Reads see one snapshot each. A connection that the server
closed is replaced at its next use; while the server cannot be reached, all work fails with ``DatabaseUnavailable``.
"""

from __future__ import annotations

import importlib
import logging
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ragsvc.core.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    DataDirectoryLocked,
    InvalidRequest,
    ShuttingDown,
    StorageFull,
)
from ragsvc.store.database import Database, driver_connection
from ragsvc.store.engines.postgres import DIALECT_NAME
from ragsvc.store.postgres_schema import find_revision, prepare_postgres_schema

if TYPE_CHECKING:
    from psycopg import Connection as PsycopgConnection

logger = logging.getLogger(__name__)

T = TypeVar("T")
_READERS: Final = 8
"""Threads that read. They wait for the server most of the time."""
_MORE_CONNECTIONS: Final = 16
"""Read connections of other threads, such as those that build indexes, at most."""
_CONNECT_TIMEOUT_S: Final = 5
_POOL_TIMEOUT_S: Final = 30
_STATEMENT_TIMEOUT_S: Final = 60
_LOCK_TIMEOUT_S: Final = 30
_IDLE_TIMEOUT_S: Final = 15
"""After so long without a statement, the server ends a transaction that writes: its process may have been stopped."""
_TIMEOUTS: Final = {"statement_timeout": _STATEMENT_TIMEOUT_S, "lock_timeout": _LOCK_TIMEOUT_S}
_RETRY_AFTER_S: Final = 5.0
_REPEATS: Final = 3
"""How often writes are repeated that met a deadlock with those of another process."""
_PREPARE_AFTER: Final = 1
"""A statement is prepared by the server when it runs for the second time on a connection."""
_PREPARED_STATEMENTS: Final = 500

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNREACHABLE_CLASSES: Final = ("08", "57P")
_SERVICE_LOCK: Final = 0x5241475356430001
"""The key of the advisory lock that the connection of a service's writer holds."""
_WRITE_LOCK: Final = 0x5241475356430002
"""The key of the advisory lock of a transaction that writes."""
_CLAIM_WAIT_S: Final = 3.0
"""How long a start waits for the server to notice that a service has ended."""
_CLAIM_POLL_S: Final = 0.05
_LOCK_WRITES: Final = f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})"
_READ_ONLY_SERVER: Final = "25006"
_TOO_MANY_CONNECTIONS: Final = "53300"
_ENDED_WHILE_IDLE: Final = "25P03"
_UNREACHABLE: Final = frozenset({_TOO_MANY_CONNECTIONS, _ENDED_WHILE_IDLE})
_DISK_FULL: Final = "53100"
_CONFLICTS: Final = frozenset({"40001", "40P01"})
_TOO_SLOW: Final = frozenset({"57014", "55P03"})
_GONE: Final = "The database cannot be reached at the moment."
_KEEP_ALIVE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class _PostgresWriter:
    """Implements ``WritableConnection``."""

    savepoint_for_one = False

    def __init__(self, engine: Engine) -> None:
        self._serves = False
        event.listen(engine, "connect", self._connected)
        self._connection = engine.connect()
        self._commits = False

    def _connected(self, raw: PsycopgConnection[Any], _record: object) -> None:
        if self._serves:
            try:
                _lock_service(raw)
            except DataDirectoryLocked as error:  # by the lost connection, of which the server does not know yet
                raw.close()
                raise DatabaseUnavailable(_GONE, retry_after_s=_RETRY_AFTER_S) from error
            raw.commit()

    def claim_service(self, connection: Connection) -> None:
        """Hold the lock with this connection, and with each that replaces it."""
        _lock_service(driver_connection(connection))
        self._serves = True

    def open(self) -> AbstractContextManager[Connection]:
        return closing(self._connection)

    @contextmanager
    def transaction(self, connection: Connection) -> Generator[None]:
        _replace_if_lost(connection)
        self._commits = False
        with connection.begin():
            connection.exec_driver_sql(_LOCK_WRITES)
            yield
            self._commits = True

    def driver(self, connection: Connection) -> Any:  # noqa: ANN401 - psycopg's connection
        return driver_connection(connection)

    def has_lost(self, connection: Connection, error: Exception) -> bool:
        return _is_lost(connection) or _sqlstate(error) in _CONFLICTS

    def may_repeat(self, error: Exception, *, times: int) -> bool:
        """A deadlock undoes the writes, and so does the loss of a connection before they were to be committed."""
        if self._commits and _sqlstate(error) != _ENDED_WHILE_IDLE:  # whether they were committed is not known
            return False
        return (_sqlstate(error) in _CONFLICTS and times < _REPEATS) or (_cannot_write(error) and not times)

    def translate(self, error: Exception) -> Exception:
        if self._commits and _is_unreachable(error):
            message = "The connection to the database was lost. The change may have been made or not."
            return DatabaseUnavailable(message, retry_after_s=_RETRY_AFTER_S)
        if _cannot_write(error):
            return DatabaseUnavailable(_GONE, retry_after_s=_RETRY_AFTER_S)
        return _translate(error)


def _lock_service(raw: PsycopgConnection[Any]) -> None:
    row = raw.execute("SELECT pg_try_advisory_lock(%s)", (_SERVICE_LOCK,)).fetchone()
    if row is None or not row[0]:
        message = "Another ragsvc service uses this database. Stop it, or set RAGSVC_DATABASE_URL to another database."
        raise DataDirectoryLocked(message)


class PostgresDatabase(Database):
    """A PostgreSQL database at a URL of libpq (``postgresql://…``), which may name several servers.

    The schema is created or upgraded first.

    Raises:
        ConfigurationError: psycopg is not installed, or the database is not one that this release can use.
        DatabaseUnavailable: the server cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        _import_psycopg()
        self._closed = False
        self._write_engine = _open_engine(url, read_only=False)
        self._read_engine = _open_engine(url, read_only=True)
        try:
            prepare_postgres_schema(self._write_engine)
            self._claimable = writer = _PostgresWriter(self._write_engine)
        except DBAPIError as error:
            _raise_translated(error)
        self._start(writer, name="postgres", readers=_READERS)

    def claim_service(self) -> None:
        deadline = time.monotonic() + _CLAIM_WAIT_S
        while True:
            try:
                return self.write_sync(self._claimable.claim_service)
            except DataDirectoryLocked:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_CLAIM_POLL_S)

    def read_sync(self, function: Callable[[Connection], T]) -> T:
        """As ``read``, in the calling thread. A read whose connection was lost is repeated once."""
        if self._closed:
            raise ShuttingDown("The database is closed.")
        try:
            return self._read(function)
        except Exception as error:  # noqa: BLE001 - each is translated or raised again
            if not _is_unreachable(error):
                _raise_translated(error)
        self._read_engine.dispose()  # after a restart of the server, all connections are lost
        try:
            return self._read(function)
        except Exception as error:  # noqa: BLE001 - as above
            _raise_translated(error)

    def _read(self, function: Callable[[Connection], T]) -> T:
        with self._read_engine.connect() as connection:
            try:
                return function(connection)
            except Exception:
                _replace_if_lost(connection)
                raise

    def erase_deleted(self, *, timeout_s: float = 5.0) -> bool:
        """``False``: the server keeps deleted rows until ``VACUUM``, and its log for a time."""
        return False

    def size_bytes(self) -> int:
        size = "SELECT pg_database_size(current_database())"
        return self.read_sync(lambda connection: int(connection.exec_driver_sql(size).scalar_one()))

    def older_copies(self) -> Sequence[Path]:
        return ()

    def connect_copy(self, path: Path) -> sqlite3.Connection:
        raise ConfigurationError([f"{path.name} is not a copy of this database"])

    def close(self) -> None:
        if not self._writer.close():
            return
        self._closed = True
        self._readers.shutdown(wait=True)
        self._read_engine.dispose()
        self._write_engine.dispose()


def describe_postgres(url: str) -> tuple[str, str | None]:
    """The version of the server, and the revision of the schema. Raises as ``PostgresDatabase``."""
    engine = _open_engine(url, read_only=True)
    try:
        with engine.connect() as connection:
            version = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
            return version.partition(" ")[0], find_revision(connection)
    except DBAPIError as error:
        _raise_translated(error)
    finally:
        engine.dispose()


def _import_psycopg() -> Any:  # noqa: ANN401 - an optional package
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise ConfigurationError(["database_url needs psycopg: pip install 'ragsvc[postgres]'"]) from error


def _open_engine(url: str, *, read_only: bool) -> Engine:
    """An engine with a connection for each thread that reads, or with one at a time."""
    psycopg = _import_psycopg()

    def connect() -> PsycopgConnection[Any]:
        raw: PsycopgConnection[Any] = psycopg.connect(
            url,
            **_missing_options(psycopg, url),
            prepare_threshold=_PREPARE_AFTER,
        )
        raw.prepared_max = _PREPARED_STATEMENTS
        raw.adapters.register_loader("numeric", _sum_loader(psycopg))
        timeouts = _TIMEOUTS if read_only else {**_TIMEOUTS, "idle_in_transaction_session_timeout": _IDLE_TIMEOUT_S}
        for name, seconds in timeouts.items():
            raw.execute("SELECT set_config(%s, %s, false)", (name, f"{seconds}s"))
        raw.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
        raw.commit()
        if read_only:
            raw.read_only = True
            raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return raw

    pool: dict[str, Any] = {"poolclass": NullPool}
    if read_only:
        pool = {
            "poolclass": QueuePool,
            "pool_size": _READERS,
            "max_overflow": _MORE_CONNECTIONS,
            "pool_timeout": _POOL_TIMEOUT_S,
            "pool_use_lifo": True,
        }
    engine = create_engine(f"{DIALECT_NAME}://", creator=connect, hide_parameters=True, use_native_hstore=False, **pool)

    @event.listens_for(engine, "handle_error")
    def _note_disconnect(context: Any) -> None:  # noqa: ANN401 - SQLAlchemy's ExceptionContext
        error = context.original_exception
        if _is_unreachable(error) or (not read_only and _cannot_write(error)):
            context.is_disconnect = True

    return engine


def _missing_options(psycopg: Any, url: str) -> dict[str, Any]:  # noqa: ANN401 - an optional package
    """Timeouts for servers that do not answer, where the URL has none."""
    named = psycopg.conninfo.conninfo_to_dict(url)
    options = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "ragsvc", **_KEEP_ALIVE}
    return {name: value for name, value in options.items() if name not in named}


def _sum_loader(psycopg: Any) -> Any:  # noqa: ANN401 - an optional package
    """Loads sums of integers, which PostgreSQL returns as ``numeric``, as integers. No column is ``numeric``."""

    class SumLoader(psycopg.adapt.Loader):  # type: ignore[misc]
        def load(self, data: bytes) -> int:
            return int(bytes(data))

    return SumLoader


def _is_lost(connection: Connection) -> bool:
    if connection.invalidated:
        return True
    raw = driver_connection(connection)
    return bool(raw.closed or raw.broken)


def _replace_if_lost(connection: Connection) -> None:
    """Let the next use of a connection open a new one."""
    if not connection.invalidated and _is_lost(connection):
        connection.invalidate()


def _cause(error: Exception) -> BaseException:
    return error.orig or error if isinstance(error, DBAPIError) else error


def _is_of_psycopg(error: BaseException) -> bool:
    return type(error).__module__.startswith("psycopg")


def _sqlstate(error: Exception) -> str:
    cause = _cause(error)
    return str(getattr(cause, "sqlstate", None) or "") if _is_of_psycopg(cause) else ""


def _is_unreachable(error: Exception) -> bool:
    """Whether the server did not answer, or ended the connection."""
    if isinstance(error, PendingRollbackError):
        return True
    cause = _cause(error)
    if not _is_of_psycopg(cause):
        return False
    state = _sqlstate(error)
    if not state:
        return type(cause).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")
    return state.startswith(_UNREACHABLE_CLASSES) or state in _UNREACHABLE


def _cannot_write(error: Exception) -> bool:
    """Whether a write met no server, or a standby that was the primary."""
    return _is_unreachable(error) or _sqlstate(error) == _READ_ONLY_SERVER


def _raise_translated(error: Exception) -> NoReturn:
    translated = _translate(error)
    if translated is error:
        raise error
    raise translated from None  # the messages of the server may quote rows


def _translate(error: Exception) -> Exception:
    """The error that callers see; without the values of rows, which the messages of the server may have."""
    cause, state = _cause(error), _sqlstate(error)
    unavailable: str | None = None
    if isinstance(error, PoolTimeout):
        unavailable = "Too many reads are waiting for the database."
    elif _is_unreachable(error):
        unavailable = _GONE
    elif state in _CONFLICTS or state in _TOO_SLOW:
        unavailable = "The database did not answer in time. Nothing was changed."
    if unavailable is not None:
        return DatabaseUnavailable(unavailable, retry_after_s=_RETRY_AFTER_S)
    if not _is_of_psycopg(cause):
        return error
    if state == _DISK_FULL:
        return StorageFull("The disk of the database is full. Nothing was changed.")
    if type(cause).__name__ == "DataError" and "NUL" in str(cause):
        return InvalidRequest("Texts must not contain the character U+0000.")
    return _without_values(error, cause, state)


def _without_values(error: Exception, cause: BaseException, state: str) -> Exception:
    constraint = getattr(getattr(cause, "diag", None), "constraint_name", None)
    plain = type(cause)(" ".join(filter(None, ("error of the database", state, constraint))))
    if isinstance(error, DBAPIError):
        return type(error)(None, None, plain, hide_parameters=True)
    return plain  # type: ignore[return-value]
