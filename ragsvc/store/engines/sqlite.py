"""SQLite: its own statements, and parts of statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Insert, Table, delete, func, insert, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from ragsvc.store.engines.constructs import BeginningOf, IsRequested, NumberedTexts, PartBefore, RowsAsJson, TextOfBytes
from ragsvc.store.text_integrity import is_readable


class SqliteStatement:
    """A statement for the ``sqlite3`` driver."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None) -> None:
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"), column_keys=columns)
        self._query = str(compiled)
        self._values: dict[str, Any] = {**(compiled.params or {})}

    def run(self, driver: sqlite3.Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        return driver.execute(self._query, {**self._values, **values})

    def insert(self, driver: sqlite3.Connection, values: Mapping[str, Any]) -> int:
        cursor = self.run(driver, values)
        row_id = cursor.lastrowid
        cursor.close()
        return row_id or 0


class SqliteEngine:
    """The engine of a data directory's own file."""

    mark = "\0"

    def compile(self, statement: ClauseElement, columns: Sequence[str] | None) -> SqliteStatement:
        return SqliteStatement(statement, columns)

    def encode_ids(self, ids: Iterable[int]) -> str:
        return msgspec.json.encode([int(each) for each in ids]).decode()

    def insert_or_ignore(self, table: Table) -> Insert:
        return insert(table).prefix_with("OR IGNORE")

    def insert_or_replace(self, table: Table) -> Insert:
        return insert(table).prefix_with("OR REPLACE")

    def upsert(self, table: Table, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Insert:
        statement = sqlite.insert(table).values(**values)
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(changes))

    def remove_all(self, connection: Connection, tables: Sequence[Table]) -> None:
        for table in tables:
            connection.execute(delete(table))

    def can_hold(self, value: str) -> bool:
        return is_readable(value)

    def last_given_id(self, connection: Connection, table: Table) -> int:
        column = table.autoincrement_column
        if column is None:
            return 0
        highest = connection.execute(select(func.max(column))).scalar_one() or 0
        counted = connection.execute(_LAST_ID, {"name": table.name}).scalar_one_or_none() or 0
        return max(highest, counted)

    def continue_ids(self, connection: Connection, table: Table, last: int) -> None:
        """Without AUTOINCREMENT, SQLite takes the number after the highest id there is."""
        if table.dialect_options["sqlite"]["autoincrement"]:
            connection.execute(_FORGET_IDS, {"name": table.name})
            connection.execute(_CONTINUE_IDS, {"name": table.name, "last": last})

    def has_given_ids(self, connection: Connection, tables: Sequence[str]) -> bool:
        return has_given_ids(connection.connection.driver_connection, tables)


SQLITE: Final = SqliteEngine()
_LAST_ID: Final = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
_FORGET_IDS: Final = text("DELETE FROM sqlite_sequence WHERE name = :name")
_CONTINUE_IDS: Final = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)")


def has_given_ids(driver: Any, tables: Sequence[str]) -> bool:  # noqa: ANN401 - a connection of sqlite3 or SQLCipher
    """Whether one of the tables of a file ever had a row."""
    names = ", ".join(f"'{table}'" for table in tables)
    statement = f"SELECT count(*) FROM sqlite_sequence WHERE name IN ({names}) AND seq > 0"  # noqa: S608 - constants
    return bool(driver.execute(statement).fetchone()[0])


@compiles(IsRequested, "sqlite")
def _is_requested(element: IsRequested, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    (column,) = element.clauses
    return f"{compiler.process(column, **options)} IN (SELECT value FROM json_each(:ids))"  # noqa: S608 - a column


@compiles(RowsAsJson, "sqlite")
def _rows_as_json(element: RowsAsJson, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"json_group_array(json_array({compiler.process(element.clauses, **options)}))"


@compiles(NumberedTexts, "sqlite")
def _numbered_texts(element: NumberedTexts, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    number, content = (compiler.process(part, **options) for part in element.clauses)
    return f"CAST(group_concat(CAST({number} AS TEXT) || ' ' || {content}, char(0)) AS BLOB)"


@compiles(TextOfBytes, "sqlite")
def _text_of_bytes(element: TextOfBytes, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"CAST({compiler.process(element.clauses, **options)} AS TEXT)"


@compiles(BeginningOf, "sqlite")
def _beginning_of(element: BeginningOf, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    content, characters = (compiler.process(part, **options) for part in element.clauses)
    return f"substr({content}, 1, {characters})"


@compiles(PartBefore, "sqlite")
def _part_before(element: PartBefore, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    content, separator = (compiler.process(part, **options) for part in element.clauses)
    return f"substr({content}, 1, instr({content} || {separator}, {separator}) - 1)"
