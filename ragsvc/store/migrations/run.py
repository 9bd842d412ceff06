"""Runs migrations with Alembic on a connection of any dialect. Imported only when there is something to migrate."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from ragsvc.store.migrations import FOLDER


def upgrade(connection: Connection, *, folder: Path = FOLDER, to: str = "head") -> None:
    """Apply all pending migrations up to ``to`` in the transaction that ``connection`` is in; the caller commits."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))  # the value is interpolated
    config.attributes["connection"] = connection
    command.upgrade(config, to)
