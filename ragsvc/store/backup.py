"""Copies of a SQLite file that are made before its schema is upgraded, and kept.

A copy of an encrypted file is encrypted with the same key. Plain copies are removed when a directory is encrypted.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from ragsvc.store.data_keys import is_plain_database
from ragsvc.store.durable_names import sync_folder

Connect = Callable[[Path], sqlite3.Connection]
"""Opens a database file with the driver and the key of the database that is copied."""
_PAGES_AT_ONCE: Final = 4096
_UNFINISHED: Final = ".new"


def backup_path(database: Path, revision: str) -> Path:
    """Where the copy from before ``revision`` is kept."""
    return database.with_name(f"{database.name}.before-{revision}")


def back_up(database: Path, target: Path, *, connect: Connect) -> None:
    """Copy the last committed state of ``database`` to ``target``, durably, readable only by this user.

    The copy is complete under its final name or does not exist there. It replaces an older copy of that name.
    """
    written = target.with_name(target.name + _UNFINISHED)
    remove_database(written)
    os.close(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(connect(database)) as source:
            _copy(source, written, connect)
        _sync(written)
    except BaseException:
        remove_database(written)
        raise
    written.rename(target)
    sync_folder(target.parent)


def copy_open_database(source: sqlite3.Connection, target: Path, *, connect: Connect) -> None:
    """Copy what ``source`` sees to ``target``, a temporary file, readable only by this user.

    An open read transaction of ``source`` decides which state is copied. Without one the copy begins again whenever
    another process writes.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    _copy(source, target, connect)


def _copy(source: sqlite3.Connection, target: Path, connect: Connect) -> None:
    with closing(connect(target)) as copy:
        copy.execute("PRAGMA synchronous=OFF").close()  # the caller syncs the whole file
        source.backup(copy, pages=_PAGES_AT_ONCE)
        copy.execute("PRAGMA journal_mode=DELETE").close()  # one self-contained file, without a write-ahead log


def list_backups(database: Path) -> list[Path]:
    """All copies of ``database``, unfinished ones included."""
    return sorted(database.parent.glob(f"{database.name}.before-*"))


def remove_plain_backups(database: Path) -> None:
    """Remove all copies of ``database`` that are not encrypted, unfinished ones included."""
    for path in list_backups(database):
        if path.name.endswith(_UNFINISHED) or is_plain_database(path):
            remove_database(path)


def remove_database(path: Path) -> None:
    """Remove a database file with its journals, if it exists."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
