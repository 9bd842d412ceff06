"""What sealed requests were accepted, in a small SQLite file of their own: inserted or refused, atomically.

A file of its own, so that a claim never waits behind an ingest's transaction, and because it holds nothing but
digests. Claims of keys that outlive the process are synced to disk before they count; claims of keys that live in
memory die with those, and need no sync: measured, 4 ms against 0.1 ms for one request.

The numbered migrations do not cover this file: it is one table of three columns, and it is opened without the main
database. A change of its columns must carry the rows over, since claims of fixed keys count for ever.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from ragsvc.core.errors import Overloaded, ShuttingDown, StorageFull
from ragsvc.crypto.replay import ReplayClaim

FILE_NAME: Final = "claims.sqlite"
PRUNE_AFTER_S: Final = 600
"""How long claims stay after their key was retired: longer than any request that was opened with it takes to claim."""
_GROUP_LIMIT: Final = 256
_QUEUE_LIMIT: Final = 8192
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS claims (key_id TEXT, digest BLOB, expires_at REAL, PRIMARY KEY (key_id, digest)) "
    "WITHOUT ROWID"
)

_Job = tuple[ReplayClaim, Future[bool]]


class SqliteClaims:
    """Remembers claims across threads, and across restarts when ``outlives_process``; one writing thread."""

    def __init__(self, path: Path, *, outlives_process: bool) -> None:
        if not outlives_process:
            _remove(path)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        self._connection.execute("PRAGMA journal_mode=WAL").close()
        self._connection.execute(f"PRAGMA synchronous={'FULL' if outlives_process else 'OFF'}").close()
        self._connection.execute(_SCHEMA)
        self._queue: queue.Queue[_Job | float | None] = queue.Queue(maxsize=_QUEUE_LIMIT)
        self._closed = False
        self._close_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="claims-write", daemon=True)
        self._thread.start()

    async def claim(self, claim: ReplayClaim) -> bool:
        """Insert or fail: ``True`` for exactly one caller per key and digest, ever, once that is as durable as its key.

        Raises:
            StorageFull: it could not be written, so the request must not be acted on.
        """
        return await asyncio.wrap_future(self.submit(claim))

    def submit(self, claim: ReplayClaim) -> Future[bool]:
        """Do what ``claim`` does, for callers outside an event loop. Raises ``Overloaded``, ``ShuttingDown``."""
        future: Future[bool] = Future()
        self._put((claim, future))
        return future

    def prune(self, now: float) -> None:
        """Forget, soon, the claims of keys that retired ``PRUNE_AFTER_S`` before ``now`` (Unix seconds) or earlier."""
        self._put(now)

    def close(self) -> None:
        """Write what waits and close the file."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _put(self, job: _Job | float) -> None:
        with self._close_lock:
            if self._closed:
                raise ShuttingDown("the service is shutting down")
            try:
                self._queue.put_nowait(job)
            except queue.Full as error:
                raise Overloaded("too many encrypted requests are waiting", retry_after_s=1) from error

    def _run(self) -> None:
        while True:
            jobs: list[_Job] = []
            waiting: _Job | float | None = self._queue.get()
            while isinstance(waiting, tuple):
                jobs.append(waiting)
                if len(jobs) == _GROUP_LIMIT or self._queue.empty():
                    waiting = 0.0
                    break
                waiting = self._queue.get()
            self._commit(jobs)
            if waiting is None:
                return
            if waiting:
                self._prune(waiting)

    def _commit(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            fresh = [self._insert(claim) for claim, _ in jobs]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            failure = StorageFull("The request could not be recorded and was not accepted.")
            failure.__cause__ = error
            for _, future in jobs:
                _settle(future, failure)
            return
        for (_, future), is_fresh in zip(jobs, fresh, strict=True):
            _settle(future, is_fresh)

    def _insert(self, claim: ReplayClaim) -> bool:
        row = (claim.key_id, claim.digest, claim.expires_at)
        return self._connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", row).rowcount == 1

    def _prune(self, now: float) -> None:
        try:
            self._connection.execute("DELETE FROM claims WHERE expires_at < ?", (now - PRUNE_AFTER_S,))
        except sqlite3.Error:  # a full disk: old claims do no harm, and the next round tries again
            return


def _settle(future: Future[bool], outcome: bool | StorageFull) -> None:  # noqa: FBT001 - a result, not a flag
    if not future.set_running_or_notify_cancel():
        return  # nobody waits any more; the claim stands
    if isinstance(outcome, bool):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
