"""Statements that are compiled once and run on the driver's connection, for paths that every request takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.sql.expression import ClauseElement

from ragsvc.store.database import driver_connection
from ragsvc.store.engines import SQLITE, engine_of
from ragsvc.store.engines.interface import CompiledStatement, DriverCursor


class DriverStatement:
    """A statement whose parameters have values that drivers take as they are: text, bytes, numbers and ``None``.

    Without SQLAlchemy's own steps an insert of 6 kB into SQLite takes .08 ms instead of .32, and a lookup of a row .003
    ms instead of .09.
    """

    def __init__(self, statement: ClauseElement, *, columns: Sequence[str] | None = None) -> None:
        """``columns`` are those that an insert fills."""
        self._statement = statement
        self._columns = columns
        self._of_sqlite = SQLITE.compile(statement, columns)
        self._of_postgres: CompiledStatement | None = None

    def run(self, connection: Connection, **values: Any) -> DriverCursor:  # noqa: ANN401 - what drivers take
        """The caller reads the rows or closes the cursor."""
        return self.of_engine(connection).run(driver_connection(connection), values)

    def insert(self, connection: Connection, **values: Any) -> int:  # noqa: ANN401 - what drivers take
        """Insert a row; returns its id."""
        return self.of_engine(connection).insert(driver_connection(connection), values)

    def of_engine(self, connection: Connection) -> CompiledStatement:
        """The statement as the engine of the connection runs it."""
        if connection.dialect.name == "sqlite":
            return self._of_sqlite
        if self._of_postgres is None:
            self._of_postgres = engine_of(connection).compile(self._statement, self._columns)
        return self._of_postgres
