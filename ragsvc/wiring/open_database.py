"""Opens the database that the settings name: a file in the data directory, or PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ragsvc.config import Settings
from ragsvc.store.data_keys import DATABASE_FILE_NAME, DataKeys
from ragsvc.store.database import Database
from ragsvc.store.moved_rows import require_all_rows

logger = logging.getLogger(__name__)


def open_database(
    settings: Settings, keys: DataKeys | None, *, make_room: Callable[[], bool] = lambda: False
) -> Database:
    """Open the database; ``make_room`` is called when the disk of the file is full.

    Raises:
        ConfigurationError: the database cannot be used by this release, or its rows are in another one.
        DatabaseUnavailable: the server cannot be reached.
    """
    database = connect_database(settings, keys, make_room=make_room)
    try:
        database.read_sync(require_all_rows)
    except BaseException:
        database.close()
        raise
    return database


def connect_database(
    settings: Settings, keys: DataKeys | None, *, make_room: Callable[[], bool] = lambda: False
) -> Database:
    """As ``open_database``, also a database whose rows are being moved or were."""
    if settings.database_url is None:
        from ragsvc.store.sqlite_database import SqliteDatabase  # noqa: PLC0415 - one of the two is needed

        file = settings.data_dir / DATABASE_FILE_NAME
        return SqliteDatabase(file, key=None if keys is None else keys.database_key, make_room=make_room)
    from ragsvc.store.postgres_database import PostgresDatabase  # noqa: PLC0415 - one of the two is needed

    if keys is not None:
        logger.warning(
            "the master key encrypts the files of %s, and not the rows in PostgreSQL, which hold the text of the "
            "documents: encrypt the disk of the database server",
            settings.data_dir,
        )
    return PostgresDatabase(settings.database_url)
