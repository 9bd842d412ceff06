"""Brings a PostgreSQL database to the schema of this release when it is opened, or refuses it.

All pending migrations run in one transaction under an advisory lock: of several processes that start together, one
migrates and the others wait for it. After a crash the old state is still there. PostgreSQL's own tools make copies.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from ragsvc.core.errors import ConfigurationError
from ragsvc.store.migrations import FOLDER, revisions

logger = logging.getLogger(__name__)

_MIGRATION_LOCK: Final = 0x5241475356430000
"""The key of the advisory lock."""
OLDEST_SERVER: Final = 15


def prepare_postgres_schema(engine: Engine, *, folder: Path = FOLDER) -> None:
    """Create the schema in an empty database, or upgrade an older one.

    Raises:
        ConfigurationError: the database has a revision that this release does not know, or the server is too old.
    """
    newest = revisions(folder)[-1]
    with engine.begin() as connection:
        _refuse_old_server(connection)
        if find_revision(connection) == newest:
            return
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        found = find_revision(connection)  # again: another process may have migrated meanwhile
        if found == newest:
            return
        if found is not None:
            _refuse_unknown_revision(found, revisions(folder))
            logger.warning(
                "upgrading the database from schema %s to %s, which earlier releases cannot open", found, newest
            )
        from ragsvc.store.migrations.run import upgrade  # noqa: PLC0415 - imports Alembic, which most starts do not need

        upgrade(connection, folder=folder)


def find_revision(connection: Connection) -> str | None:
    """The revision of the schema, known to this release or not; ``None`` for a database without ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    stamped = connection.execute(text("SELECT version_num FROM alembic_version ORDER BY version_num")).scalars().all()
    return ", ".join(stamped) or None


def _refuse_unknown_revision(found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        problem = f"database_url: schema {found} is newer than {known[-1]}, or unknown; use a newer ragsvc"
        raise ConfigurationError([problem])


def _refuse_old_server(connection: Connection) -> None:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
    if version < OLDEST_SERVER:
        raise ConfigurationError([f"database_url: PostgreSQL {version} is too old; {OLDEST_SERVER} or later is needed"])
