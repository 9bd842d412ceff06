"""Moves the rows of a data directory to another database, and its files to another place, and back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, Table

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.ports.file_storage import FileStorage
from ragsvc.store.data_keys import DATABASE_FILE_NAME, KEY_FILE_NAME, DataKeys
from ragsvc.store.database import Database
from ragsvc.store.directory_identity import directory_id
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.file_copy import CopiedFiles, copy_files, stored_files
from ragsvc.store.file_location import (
    complete_place,
    note_location,
    own_place,
    read_file_location,
    require_local_files,
    require_own_place,
)
from ragsvc.store.local_files import LocalFiles
from ragsvc.store.moved_rows import GONE, INCOMPLETE, LEFT_BY, read_note, remove_note, write_note
from ragsvc.store.sealing_key import FORMER_SEALING_KEY_FILE_NAME, SEALING_KEY_FILE_NAME
from ragsvc.store.table_copy import (
    CopiedTable,
    all_tables,
    copy_table,
    count_rows,
    is_empty,
    remove_all_rows,
    require_known_tables,
    require_same,
)
from ragsvc.wiring.file_storage import CACHE_FOLDER_NAME, connect_file_storage
from ragsvc.wiring.open_database import connect_database

_IDENTITY_DIGITS: Final = 15
"""Hexadecimal digits of a directory's id that fit into an integer column."""

_SECOND_CACHE: Final = f"{CACHE_FOLDER_NAME}.move"
_LARGE: Final = ("pages", "passages", "embeddings")

Show = Callable[[str, int, int], None]
"""Called with what is copied, and how much of how much."""


class MoveResult(msgspec.Struct, frozen=True):
    """What was moved; ``files`` is ``None`` if they stay where they are, ``tables`` if the rows do."""

    tables: list[CopiedTable] | None
    files: CopiedFiles | None


def move(present: Settings, future: Settings, *, from_scratch: bool, show: Show) -> MoveResult:
    """Move what ``future`` has elsewhere than ``present``. Blocking.

    Files are copied first. The former database and files keep what they have; the former database is marked, so that no
    service uses it. What was interrupted goes on where it stopped; ``from_scratch`` copies all rows again.

    Raises:
        ConfigurationError: a database or place cannot be used, holds the data of another directory, or cannot hold the
            rows.
        DataDirectoryLocked: a service uses the directory or one of the databases.
    """
    _require_used(present)
    lock = DataDirectoryLock(present.data_dir)
    lock.acquire()
    try:
        keys = present.open_data_keys()
        files = _move_files(present, future, show) if future.files_url != present.files_url else None
        tables = None
        if future.database_url != present.database_url:
            tables = _move_rows(present, future, keys, from_scratch=from_scratch, show=show)
        return MoveResult(tables, files)
    finally:
        lock.release()


def _require_used(settings: Settings) -> None:
    """Refuse a directory that no service has used: a name typed wrong would move the rows of a database into it."""
    names = [DATABASE_FILE_NAME]
    if settings.database_url is not None:
        names = [SEALING_KEY_FILE_NAME, FORMER_SEALING_KEY_FILE_NAME, KEY_FILE_NAME]
    if not any((settings.data_dir / name).is_file() for name in names):
        raise ConfigurationError(
            [f"{settings.data_dir} is not the data directory of a service: name it with --data-dir"]
        )


def _identity(data_dir: Path) -> str:
    identity = directory_id(data_dir)
    if identity is None:
        raise ConfigurationError([f"{data_dir} cannot be written"])
    return identity


# -- rows ------------------------------------------------------------------------------------------------------


def _move_rows(
    present: Settings, future: Settings, keys: DataKeys | None, *, from_scratch: bool, show: Show
) -> list[CopiedTable]:
    number = int(_identity(present.data_dir)[:_IDENTITY_DIGITS], 16)
    with _claimed(present, keys) as source, _claimed(future, keys) as target:
        require_known_tables(source)
        _prepare(source, target, number, from_scratch=from_scratch)
        copied = [_copy(source, target, table, show) for table in all_tables()]
        source.write_sync(lambda connection: _write_gone(connection, number))
        try:
            _require_unchanged(source, copied)
        except ConfigurationError:
            source.write_sync(_remove_gone)
            raise
        target.write_sync(lambda connection: remove_note(connection, INCOMPLETE))
    return copied


def _write_gone(connection: Connection, number: int) -> None:
    write_note(connection, GONE, int(time.time()))
    write_note(connection, LEFT_BY, number)


def _remove_gone(connection: Connection) -> None:
    for name in (GONE, LEFT_BY):
        remove_note(connection, name)


def _require_unchanged(source: Database, copied: Sequence[CopiedTable]) -> None:
    """Compare again what ``ragsvc keys`` may have changed during the move: it works beside a service."""
    tables = {table.name: table for table in all_tables()}
    for each in copied:
        if each.name not in _LARGE:
            require_same(source, tables[each.name], each)


@contextmanager
def _claimed(settings: Settings, keys: DataKeys | None) -> Generator[Database]:
    with ExitStack() as stack:
        database = connect_database(settings, keys)
        stack.callback(database.close)
        database.claim_service()
        yield database


def _prepare(source: Database, target: Database, number: int, *, from_scratch: bool) -> None:
    """Mark the target as incomplete, or refuse it."""
    begun = target.read_sync(lambda connection: read_note(connection, INCOMPLETE))
    if source.read_sync(lambda connection: read_note(connection, INCOMPLETE)) is not None:
        raise ConfigurationError(["the present database holds a part of the rows only: a move to it was interrupted"])
    if begun is None and source.read_sync(lambda connection: read_note(connection, GONE)) is not None:
        raise ConfigurationError(["the rows of the present database were moved to another one already"])
    if begun not in (None, number):
        raise ConfigurationError(["the other database holds a part of the rows of another data directory"])
    was_left = target.read_sync(lambda connection: read_note(connection, LEFT_BY)) == number
    if begun is None and not was_left and not is_empty(target):
        raise ConfigurationError(["the other database has rows already: name an empty one"])
    target.write_sync(lambda connection: write_note(connection, INCOMPLETE, number))
    if was_left or from_scratch:
        remove_all_rows(target)
        target.write_sync(_remove_gone)


def _copy(source: Database, target: Database, table: Table, show: Show) -> CopiedTable:
    total = count_rows(source, table)
    return copy_table(source, target, table, copied=lambda done: show(table.name, done, total))


# -- files -----------------------------------------------------------------------------------------------------


def _move_files(present: Settings, future: Settings, show: Show) -> CopiedFiles:
    data_dir, identity = present.data_dir, _identity(present.data_dir)
    with _place(present, CACHE_FOLDER_NAME) as source, _place(future, _SECOND_CACHE) as target:
        if not source.is_elsewhere:
            if read_file_location(data_dir) == target.location:  # an earlier call has moved them
                return CopiedFiles()
            require_local_files(data_dir)
        else:
            require_own_place(source, identity)
        if target.is_elsewhere:
            own_place(target, data_dir, identity, is_complete=False)
        total = len(stored_files(source))
        copied = copy_files(
            source, target, work_folder=data_dir / "uploads", copied=lambda done: show("files", done, total)
        )
        if target.is_elsewhere:
            complete_place(target, data_dir, identity)
        note_location(data_dir, target)
    return copied


@contextmanager
def _place(settings: Settings, cache: str) -> Generator[FileStorage]:
    if settings.files_url is None:
        yield LocalFiles(settings.data_dir)  # also if its files are elsewhere at the moment
        return
    folder = settings.data_dir / cache
    try:
        yield connect_file_storage(settings, cache_folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
