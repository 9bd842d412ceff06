"""What differs between the database engines: one module for each, with one interface.

Statements are SQLAlchemy's. Where the engines have no common SQL, a statement uses a construct of ``constructs``, which
each engine compiles, or asks ``engine_of`` its connection.
"""

from __future__ import annotations

from sqlalchemy import Connection

from ragsvc.store.engines.interface import StatementEngine
from ragsvc.store.engines.postgres import POSTGRES
from ragsvc.store.engines.sqlite import SQLITE

__all__ = ["POSTGRES", "SQLITE", "StatementEngine", "engine_of"]


def engine_of(connection: Connection) -> StatementEngine:
    """The engine that a connection belongs to."""
    return SQLITE if connection.dialect.name == "sqlite" else POSTGRES
