"""Empties SQLite's write-ahead log soon after changes: until then it holds the pages from before a deletion.

SQLite moves the log into the database by itself, but overwrites it only when it is full again. Text that was deleted
would stay in the log of a quiet service for days.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Final

logger = logging.getLogger(__name__)

TRUNCATE_AFTER_S: Final = 20.0
"""Seconds from a commit to the first attempt, so that many commits share one; with its repetitions within a minute."""
_AGAIN_AFTER_S: Final = 5.0
_BUSY_MS: Final = 200
"""Longest time that one attempt makes writers wait for running readers."""


class LogTruncation:
    """A thread that empties the write-ahead log ``after_s`` seconds after the first commit since the last time."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], *, errors: type[Exception], after_s: float = TRUNCATE_AFTER_S
    ) -> None:
        """``connect`` opens a connection; ``errors`` is the error class of its driver."""
        self._connect = connect
        self._errors = errors
        self._after_s = after_s
        self._written = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sqlite-log", daemon=True)
        self._thread.start()

    def note_commit(self) -> None:
        """A change was committed."""
        self._written.set()

    def close(self) -> None:
        """End the thread. The log is not emptied."""
        self._closed.set()
        self._written.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._written.wait()
            if self._closed.wait(self._after_s):
                return
            self._written.clear()
            while not self._truncate():
                if self._closed.wait(min(_AGAIN_AFTER_S, self._after_s)):
                    return

    def _truncate(self) -> bool:
        """Empty the log; ``False`` if a reader or a full disk prevented it."""
        try:
            with closing(self._connect()) as connection:
                connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}").fetchall()
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # the bulk, without blocking anybody
                ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except self._errors as error:
            logger.debug("the write-ahead log was not emptied: %s", error)
            return False
        return not busy
