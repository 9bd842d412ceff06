"""What differs between the database engines: one module for each, with one interface.

Statements are SQLAlchemy's. Where the engines have no common SQL, a statement uses a construct of ``constructs``, which
each engine compiles, or asks ``engine_of`` its connection.
"""

from __future__ import annotations

from sqlalchemy import Connection

from ragsvc.store.engines.interface import StatementEngine
from ragsvc.store.engines.sqlite import SQLITE

__all__ = ["SQLITE", "StatementEngine", "engine_of"]


def engine_of(connection: Connection) -> StatementEngine:
    """The engine that a connection belongs to."""
    if connection.dialect.name == "sqlite":
        return SQLITE
    from ragsvc.store.engines.postgres import POSTGRES  # noqa: PLC0415 - SQLAlchemy's dialect, 2 MB

    return POSTGRES
