"""Records which sealed requests were accepted, so that a replayed request is refused.

A separate SQLite file: a claim never waits behind the transaction of an ingest, and the file holds nothing but digests.
Claims for keys that outlive the process are synced to disk before they count. Claims for keys that are kept in memory
end with the process and need no sync: measured for one request, 0.1 ms instead of 4 ms.

The numbered migrations do not cover this file: it is one table of three columns, and it is opened without the main
database. A change of its columns must keep the rows, because claims for fixed keys are valid for ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

from ragsvc.core.errors import StorageFull
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.crypto.replay import ReplayClaim
from ragsvc.store.write_thread import WriteThread

CLAIMS_FILE_NAME: Final = "claims.sqlite"
PRUNE_AFTER_S: Final = 600
"""How long claims are kept after their key was retired: longer than any request opened with it takes to claim."""
_GROUP_LIMIT: Final = 256
_QUEUE_LIMIT: Final = 8192
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS claims (key_id TEXT, digest BLOB, expires_at REAL, PRIMARY KEY (key_id, digest)) "
    "WITHOUT ROWID"
)


class _ClaimsFile:
    """Implements ``WritableConnection`` for the file of claims."""

    savepoint_for_one = True

    def __init__(self, path: Path, *, is_durable: bool) -> None:
        try:
            self._connection = self._connect(path, is_durable=is_durable)
            path.chmod(0o600)
        except sqlite3.Error as error:
            if is_durable or not is_storage_fault(error):
                raise
            self._connection = self._connect(":memory:", is_durable=False)  # claims that end with the process anyway

    @staticmethod
    def _connect(path: Path | str, *, is_durable: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for statement in (
            "PRAGMA journal_mode=WAL",
            f"PRAGMA synchronous={'FULL' if is_durable else 'OFF'}",
            _SCHEMA,
        ):
            connection.execute(statement).close()
        return connection

    def open(self) -> AbstractContextManager[sqlite3.Connection]:
        return closing(self._connection)

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Generator[None]:
        connection.execute("BEGIN IMMEDIATE").close()
        try:
            yield
            connection.execute("COMMIT").close()
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK").close()
            raise

    def driver(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        return connection

    def has_lost(self, connection: sqlite3.Connection, error: Exception) -> bool:
        return not connection.in_transaction

    def may_repeat(self, error: Exception, *, times: int) -> bool:
        return False

    def translate(self, error: Exception) -> Exception:
        failure = StorageFull("The request could not be recorded and was not accepted.")
        failure.__cause__ = error
        return failure


class SqliteClaims:
    """Records claims from any thread; they outlast the process if ``outlives_process``."""

    def __init__(self, path: Path, *, outlives_process: bool) -> None:
        if not outlives_process:
            _remove(path)
        self._writer = WriteThread(
            _ClaimsFile(path, is_durable=outlives_process),
            name="claims-write",
            group_limit=_GROUP_LIMIT,
            queue_limit=_QUEUE_LIMIT,
            overloaded="Too many encrypted requests are waiting.",
        )

    async def claim(self, claim: ReplayClaim) -> bool:
        """Insert or fail: ``True`` for exactly one caller per key and digest, once the claim is as durable as the key.

        Raises:
            StorageFull: the claim could not be written, so the request must not be acted on.
        """
        return await asyncio.wrap_future(self.submit(claim))

    def submit(self, claim: ReplayClaim) -> Future[bool]:
        """As ``claim``, for callers outside an event loop. Raises ``Overloaded``, ``ShuttingDown``."""
        row = (claim.key_id, claim.digest, claim.expires_at)

        def insert(connection: sqlite3.Connection) -> bool:
            return connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", row).rowcount == 1

        return self._writer.submit(insert)

    def prune(self, now: float) -> None:
        """Soon remove the claims of keys that retired ``PRUNE_AFTER_S`` before ``now`` (Unix seconds) or earlier.

        A failure, a full disk say, is ignored: old claims do no harm, and the next call tries again.
        """

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM claims WHERE expires_at < ?", (now - PRUNE_AFTER_S,)).close()

        self._writer.submit(delete)

    def close(self) -> None:
        """Write the waiting claims and close the file."""
        self._writer.close()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
