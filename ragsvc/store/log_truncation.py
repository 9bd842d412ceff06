"""Empties SQLite's write-ahead log soon after changes: until then it holds the pages from before a deletion.

SQLite moves the log into the database by itself, but overwrites it only when it is full again. Text that was deleted
would stay in the log of a quiet service for days. From time to time it also lets the unallocated space of the database
be overwritten, in which SQLite leaves copies of rows that it moved.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

logger = logging.getLogger(__name__)

TRUNCATE_AFTER_S: Final = 20.0
"""Seconds from a commit to the first attempt, so that many commits share one; with its repetitions within a minute."""
_AGAIN_AFTER_S: Final = 5.0
_BUSY_MS: Final = 200
"""Longest time that one attempt makes writers wait for running readers."""
_CLEAR_AFTER_S: Final = 3600.0
_CLEAR_SHARE: Final = 0.005
"""Largest share of the time in which the file is read to overwrite its unallocated space."""


class LogTruncation:
    """A thread that empties the write-ahead log ``after_s`` seconds after the first commit since the last time.

    It calls ``clear`` when a commit is followed by ``clear_after_s`` seconds without a call, or after ``clear_soon``.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        errors: type[Exception],
        clear: Callable[[], bool],
        after_s: float = TRUNCATE_AFTER_S,
        clear_after_s: float = _CLEAR_AFTER_S,
    ) -> None:
        """``connect`` opens a connection; ``errors`` is the error class of its driver.

        ``clear`` overwrites the unallocated space of the database, and returns whether it did.
        """
        self._connect = connect
        self._errors = errors
        self._clear = clear
        self._after_s = after_s
        self._clear_after_s = clear_after_s
        self._clear_at = time.monotonic() + clear_after_s
        self._clear_again = False
        self._written = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sqlite-log", daemon=True)
        self._thread.start()

    def note_commit(self) -> None:
        """A change was committed."""
        self._written.set()

    def clear_soon(self) -> None:
        """Call ``clear`` after the log was emptied the next time."""
        self._clear_at = 0.0
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
            self._clear_if_due()

    def _clear_if_due(self) -> None:
        begun = time.monotonic()
        if begun >= self._clear_at:
            self._clear_again = not self._clear()
            ended = time.monotonic()
            pause_s = self._after_s if self._clear_again else self._clear_after_s
            self._clear_at = ended + max(pause_s, (ended - begun) / _CLEAR_SHARE)
        if self._clear_again:
            self._written.set()

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
