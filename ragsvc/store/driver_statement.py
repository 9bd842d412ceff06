"""Statements that are compiled once and run on the driver's connection, for paths that every request takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import ClauseElement

from ragsvc.store.database import driver_connection


class DriverStatement:
    """A statement whose parameters have values that SQLite takes as they are: text, bytes, numbers and ``None``.

    Without SQLAlchemy's own steps an insert of 6 kB takes .08 ms instead of .32, and a lookup of a row .003 ms instead
    of .09.
    """

    def __init__(self, statement: ClauseElement, *, columns: Sequence[str] | None = None) -> None:
        """``columns`` are those that an insert fills."""
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"), column_keys=columns)
        self._sql = str(compiled)
        self._values: dict[str, Any] = {**(compiled.params or {})}

    def run(self, connection: Connection, **values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - what SQLite takes
        """The caller reads the rows or closes the cursor."""
        return driver_connection(connection).execute(self._sql, {**self._values, **values})
