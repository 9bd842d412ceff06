"""Opens the database that the settings name: a file in the data directory, or PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ragsvc.config import Settings
from ragsvc.store.data_keys import DATABASE_FILE_NAME, DataKeys
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)


def open_database(
    settings: Settings, keys: DataKeys | None, *, make_room: Callable[[], bool] = lambda: False
) -> Database:
    """Open the database; ``make_room`` is called when the disk of the file is full.

    Raises:
        ConfigurationError: the database cannot be used by this release.
        DatabaseUnavailable: the server cannot be reached.
    """
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
