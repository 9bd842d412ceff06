"""Overwrites the unallocated space of a SQLite file's pages with zeros.

``PRAGMA secure_delete`` overwrites deleted cells. But when SQLite moves rows between the pages of a tree to balance it,
it leaves copies of the moved cells in the space between a page's cell pointers and its first cell. If such a row is
deleted later, only its present cell is overwritten, and the copy stays in the file.

Page layout: https://sqlite.org/fileformat2.html#b_tree_pages. Nothing reads this space, so it can be overwritten while
other connections read the file. But a writer could write an old copy of a page from its cache or from the write-ahead
log. Therefore pages are overwritten while the log is empty and the write lock is held, and a commit follows, after
which all connections read pages again.

The work is done by a child process (this module as a program): closing a file releases all locks of the process on it,
SQLite's included (https://sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

_TREE_PAGES: Final = {2: 12, 5: 12, 10: 8, 13: 8}
"""Type of a page of a tree to the size of its header in bytes."""
_MOST_PAGES: Final = 1 << 25
"""Beyond this number, the first byte of an overflow page, part of a page number, could be the type of a tree page."""
_BYTES_AT_ONCE: Final = 1 << 20
_PAGES_PER_LOCK: Final = 512
"""Pages that are overwritten while writers wait: a few milliseconds."""
_PAGES_LOCKED: Final = 1 << 16
"""Files of at most this many pages (256 MB) are read once more while writers wait, a fraction of a second."""
_BUSY_POLL_S: Final = 0.02
_PROGRAM_GRACE_S: Final = 30.0
_LEAST_BYTES_PER_S: Final = 20e6
_STOP_POLL_S: Final = 0.05


class LogInUse(Exception):
    """Readers or writers held the write-ahead log until the time was over."""


def clear_unallocated_space(path: Path, *, timeout_s: float, stopped: threading.Event | None = None) -> bool:
    """Overwrite the unallocated space of all pages of the SQLite file ``path``. Blocking, until ``stopped`` is set.

    Writers are never held up for longer than a fraction of a second. ``False`` if the log was in use for ``timeout_s``
    seconds, if the disk is full, if the file is not of the layout that this module knows, or if it was stopped.
    """
    reading_s = path.stat().st_size / _LEAST_BYTES_PER_S if path.exists() else 0.0
    deadline = time.monotonic() + timeout_s + _PROGRAM_GRACE_S + reading_s
    command = [sys.executable, "-P", "-m", __name__, str(path), str(timeout_s)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    quiet = subprocess.DEVNULL
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, env=environment) as child:  # noqa: S603 - this module
            while time.monotonic() < deadline and not (stopped is not None and stopped.is_set()):
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(_STOP_POLL_S) == 0
            child.kill()
            return False
    except OSError:
        return False


def unallocated_space(page: bytes | memoryview, *, usable: int) -> tuple[int, int] | None:
    """First and last offset (exclusive) of the unallocated space of a page of a tree; ``None`` for other pages."""
    header = _TREE_PAGES.get(page[0])
    if header is None:
        return None
    begin = header + 2 * int.from_bytes(page[3:5], "big")
    end = int.from_bytes(page[5:7], "big") or 1 << 16
    return (begin, end) if begin <= end <= usable else None


class _File:
    """The pages of a file, except the first, which holds the schema and no values."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR)
        header = os.pread(self._descriptor, 100, 0)
        page_bytes = int.from_bytes(header[16:18], "big")
        self._page_bytes = 1 << 16 if page_bytes == 1 else page_bytes
        self._usable = self._page_bytes - header[20]
        self._zeros = bytes(self._page_bytes)
        self.is_known = header.startswith(b"SQLite format 3\0") and not any(header[52:56])  # without pointer maps
        self.is_known = self.is_known and self.pages < _MOST_PAGES

    @property
    def pages(self) -> int:
        return os.fstat(self._descriptor).st_size // self._page_bytes

    def unclear(self) -> list[int]:
        """Indexes of the pages whose unallocated space is not zero."""
        found: list[int] = []
        first, at_once = 1, max(1, _BYTES_AT_ONCE // self._page_bytes)
        while content := os.pread(self._descriptor, at_once * self._page_bytes, first * self._page_bytes):
            view = memoryview(content)
            found += [
                first + number
                for number in range(len(content) // self._page_bytes)
                if self._unclear_space(view[number * self._page_bytes : (number + 1) * self._page_bytes])
            ]
            first += at_once
        return found

    def clear(self, pages: list[int]) -> None:
        for index in pages:
            position = index * self._page_bytes
            if space := self._unclear_space(memoryview(os.pread(self._descriptor, self._page_bytes, position))):
                begin, end = space
                os.pwrite(self._descriptor, self._zeros[: end - begin], position + begin)
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _unclear_space(self, page: memoryview) -> tuple[int, int] | None:
        if len(page) < self._page_bytes:
            return None
        space = unallocated_space(page, usable=self._usable)
        if space is None or page[space[0] : space[1]].tobytes() == self._zeros[: space[1] - space[0]]:
            return None
        return space


def _clear(path: Path, timeout_s: float) -> bool:
    with closing(_File(path)) as file, closing(sqlite3.connect(str(path), isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout=1000").close()
        if not file.is_known:
            return False
        pages = file.unclear()
        for begin in range(0, len(pages), _PAGES_PER_LOCK):
            with _empty_log(connection, path, timeout_s):
                file.clear(pages[begin : begin + _PAGES_PER_LOCK])
        if file.pages <= _PAGES_LOCKED:  # rows that were moved meanwhile
            with _empty_log(connection, path, timeout_s):
                file.clear(file.unclear())
    return True


@contextmanager
def _empty_log(connection: sqlite3.Connection, path: Path, timeout_s: float) -> Generator[None]:
    """Hold the write lock while the write-ahead log is empty; then commit a change, so that caches are read again."""
    log = path.with_name(f"{path.name}-wal")
    deadline = time.monotonic() + timeout_s
    while True:
        ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not busy:
            connection.execute("BEGIN IMMEDIATE").close()
            if not log.exists() or not log.stat().st_size:
                break
            connection.execute("ROLLBACK").close()
        if time.monotonic() > deadline:
            raise LogInUse
        time.sleep(_BUSY_POLL_S)
    try:
        yield
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        connection.execute(f"PRAGMA user_version={version}").close()
        connection.execute("COMMIT").close()
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK").close()


def _end_with_parent() -> None:
    """End as soon as the parent does, which has the other end of the standard input."""
    sys.stdin.buffer.read()
    os._exit(1)


def _main(path: str, timeout_s: str) -> int:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        return 0 if _clear(Path(path), float(timeout_s)) else 1
    except (LogInUse, OSError, sqlite3.Error):
        return 1


if __name__ == "__main__":
    os._exit(_main(*sys.argv[1:]))  # the thread that reads holds the lock of the standard input
