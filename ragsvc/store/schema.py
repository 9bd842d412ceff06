"""Brings a SQLite file to the schema of this release when it is opened, or refuses it.

The revision is in Alembic's table ``alembic_version``. Releases before numbered migrations wrote
``PRAGMA user_version=1`` instead; such a file is at revision 0001. Migrated files carry ``user_version=2``, which
makes those releases refuse them.

A file that is up to date costs one small query here, and Alembic is not imported (80 ms). A new file gets the newest
schema from recorded statements (see ``migrations.newest``), also without Alembic. An upgrade holds SQLite's write lock
from the check of the revision to the commit. Under this lock the file is copied, and then all pending migrations run
in one transaction: after a crash the old state is still there.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine

from ragsvc.core.errors import ConfigurationError, DataDirectoryLocked
from ragsvc.store.backup import Connect, back_up, backup_path
from ragsvc.store.database import driver_connection
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.migrations import FOLDER, revisions
from ragsvc.store.migrations.newest import newest_statements

logger = logging.getLogger(__name__)

_BEFORE_MIGRATIONS: Final = 1
_MIGRATED: Final = 2
_FIRST_REVISION: Final = "0001"
LOCK_WAIT_S: Final = 10.0
_LOCK_POLL_S: Final = 0.1


def read_revision(connection: sqlite3.Connection) -> str | None:
    """The revision of a file's schema, known to this release or not; ``None`` for an empty file."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    if "alembic_version" in tables:
        stamped = connection.execute("SELECT version_num FROM alembic_version ORDER BY version_num").fetchall()
        return ", ".join(str(revision) for (revision,) in stamped) or "none"
    ((user_version,),) = connection.execute("PRAGMA user_version").fetchall()
    if user_version == _BEFORE_MIGRATIONS:
        return _FIRST_REVISION
    return None if not tables and not user_version else f"user_version {user_version}"


def prepare_schema(
    engine: Engine, path: Path, *, connect: Connect, folder: Path = FOLDER, lock_wait_s: float = LOCK_WAIT_S
) -> None:
    """Create the schema in an empty file, or upgrade an older one after copying the file.

    ``engine`` begins its transactions with ``BEGIN IMMEDIATE``. An upgrade waits ``lock_wait_s`` for the lock of the
    data directory: a running service of an older release would fail on the new schema.

    Raises:
        ConfigurationError: the file has a revision that this release does not know.
        DataDirectoryLocked: the file is older than this release, and another process serves it.
    """
    found = _revision_of(path, connect)
    if found == revisions(folder)[-1]:
        return
    if found is None:
        _migrate(engine, path, connect, folder)
        return
    _refuse_unknown(path, found, revisions(folder))
    with _directory_lock(path, connect, folder, lock_wait_s):
        _migrate(engine, path, connect, folder)


def _refuse_unknown(path: Path, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise ConfigurationError(
            [f"{path.name}: schema {found} is newer than {known[-1]}, or unknown; use a newer ragsvc"]
        )


def _revision_of(path: Path, connect: Connect) -> str | None:
    """The committed revision, also while a transaction of another connection is open."""
    with closing(connect(path)) as connection:
        connection.execute("BEGIN").close()  # one snapshot: another process may commit an upgrade between two queries
        return read_revision(connection)


@contextmanager
def _directory_lock(path: Path, connect: Connect, folder: Path, wait_s: float) -> Generator[None]:
    """Hold the lock of the data directory, unless this process has it or another one has upgraded meanwhile."""
    lock = DataDirectoryLock(path.parent)
    if lock.is_held_by_this_process:
        yield
        return
    deadline = time.monotonic() + wait_s
    while True:
        try:
            lock.acquire()
            break
        except DataDirectoryLocked:
            if _revision_of(path, connect) == revisions(folder)[-1]:
                break
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_POLL_S)
    try:
        yield
    finally:
        lock.release()


def _migrate(engine: Engine, path: Path, connect: Connect, folder: Path) -> None:
    known = revisions(folder)
    with _foreign_keys_off(engine), engine.begin() as connection:
        found = _revision_of(path, connect)  # again: from here on no other process can write
        if found == known[-1]:
            return
        if found is None:
            _create(connection, path, folder)
        else:
            _refuse_unknown(path, found, known)
            backup = backup_path(path, known[known.index(found) + 1])
            back_up(path, backup, connect=connect)
            logger.warning(
                "upgrading %s from schema %s to %s, which earlier releases cannot open; copy of the old state: %s",
                path.name,
                found,
                known[-1],
                backup.name,
            )
            _apply(connection, path, folder)


def _create(connection: Connection, path: Path, folder: Path) -> None:
    """Make the newest schema in an empty file: the recorded statements, then the migrations that are newer."""
    driver = driver_connection(connection)
    recorded = newest_statements(folder)
    for statement in recorded:
        driver.execute(statement).close()
    if recorded and read_revision(driver) == revisions(folder)[-1]:
        driver.execute(f"PRAGMA user_version={_MIGRATED}").close()
    else:
        _apply(connection, path, folder)


def _apply(connection: Connection, path: Path, folder: Path) -> None:
    from ragsvc.store.migrations.run import upgrade  # noqa: PLC0415 - imports Alembic, which most starts do not need

    counters = _id_counters(connection)
    before = _count_dangling_rows(connection)
    for (table, parent), count in before.items():
        logger.warning(
            "%s: before the upgrade, %d rows of %s referred to missing rows of %s", path.name, count, table, parent
        )
    upgrade(connection, folder=folder)
    _restore_id_counters(connection, counters)
    added = _count_dangling_rows(connection) - before
    if added:
        (table, parent), count = next(iter(added.items()))
        problem = (
            f"{path.name}: not upgraded: a migration made {count} rows of {table} refer to missing rows of {parent}; "
            "use the earlier release and report this error"
        )
        raise ConfigurationError([problem])
    connection.exec_driver_sql(f"PRAGMA user_version={_MIGRATED}")


def _count_dangling_rows(connection: Connection) -> Counter[tuple[str, str]]:
    """How many rows refer to missing rows, by (table, table referred to); a migration may change their row ids."""
    found = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return Counter((str(table), str(parent)) for table, _, parent, _ in found)


@contextmanager
def _foreign_keys_off(engine: Engine) -> Generator[None]:
    """Let migrations recreate tables: with foreign keys on, dropping the old table deletes the rows that refer to it.

    The pragma has no effect inside a transaction, so it is set outside (https://sqlite.org/lang_altertable.html).
    """
    _execute(engine, "PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        _execute(engine, "PRAGMA foreign_keys=ON")


def _execute(engine: Engine, statement: str) -> None:
    with closing(engine.raw_connection()) as raw, closing(raw.cursor()) as cursor:
        cursor.execute(statement)


def _id_counters(connection: Connection) -> dict[str, int]:
    """The highest id that each AUTOINCREMENT table has given out."""
    exists = "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"
    if connection.exec_driver_sql(exists).first() is None:
        return {}
    rows = connection.exec_driver_sql("SELECT name, seq FROM sqlite_sequence")
    return {str(name): int(seq) for name, seq in rows}


def _restore_id_counters(connection: Connection, counters: dict[str, int]) -> None:
    """Keep ids of deleted rows unused: a table that is recreated would continue after its highest existing id."""
    for name, seq in counters.items():
        connection.exec_driver_sql("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (seq, name))
        connection.exec_driver_sql(
            "INSERT INTO sqlite_sequence (name, seq) SELECT name, ? FROM sqlite_master "
            "WHERE type = 'table' AND name = ? AND name NOT IN (SELECT name FROM sqlite_sequence)",
            (seq, name),
        )
