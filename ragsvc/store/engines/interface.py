"""The interface of an engine's module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Insert, Table
from sqlalchemy.sql.expression import ClauseElement


class DriverCursor(Protocol):
    """A cursor of ``sqlite3`` or psycopg."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...  # noqa: ANN401 - a tuple of what the engine has

    def fetchall(self) -> list[Any]: ...

    def close(self) -> object: ...


class DriverConnection(Protocol):
    """What the connections of ``sqlite3`` and psycopg have in common."""

    def execute(self, sql: Any, parameters: Any = ..., /) -> DriverCursor: ...  # noqa: ANN401 - each driver's own types


class CompiledStatement(Protocol):
    """A statement that was compiled for one engine."""

    def run(self, driver: Any, values: Mapping[str, Any]) -> DriverCursor:  # noqa: ANN401 - the engine's driver
        """The caller reads the rows or closes the cursor."""
        ...

    def insert(self, driver: Any, values: Mapping[str, Any]) -> int:  # noqa: ANN401 - the engine's driver
        """Run an insert of one row; returns the row's id."""
        ...


class StatementEngine(Protocol):
    """Statements that an engine has in its own way."""

    mark: str
    """A control character that begins the names that the service itself gives."""

    def compile(self, statement: ClauseElement, columns: Sequence[str] | None) -> CompiledStatement:
        """Compile a statement for its driver; ``columns`` are those that an insert fills."""
        ...

    def encode_ids(self, ids: Iterable[int]) -> str:
        """The parameter of ``constructs.is_requested``."""
        ...

    def insert_or_ignore(self, table: Table) -> Insert:
        """An insert that leaves out rows that the table has already."""
        ...

    def insert_or_replace(self, table: Table) -> Insert:
        """An insert that replaces rows with the same primary key."""
        ...

    def upsert(self, table: Table, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Insert:
        """An insert that makes ``changes`` instead if the table has a row with this primary key."""
        ...

    def remove_all(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Delete all rows of the tables, each of which stands before those that it refers to."""
        ...

    def can_hold(self, value: str) -> bool:
        """Whether a column of texts can hold a text."""
        ...

    def last_given_id(self, connection: Connection, table: Table) -> int:
        """The highest id that was given to a row, also to one that was deleted; 0 if the engine counts no ids."""
        ...

    def continue_ids(self, connection: Connection, table: Table, last: int) -> None:
        """Give higher ids than ``last`` from now on."""
        ...

    def has_given_ids(self, connection: Connection, tables: Sequence[str]) -> bool:
        """Whether one of the tables ever had a row."""
        ...
