"""Copies all rows of a database into another one, of the same or of another engine, and compares both.

The rows of a table are copied in the order of their primary keys, in small transactions, so that a copy that was
interrupted goes on where it stopped. Nothing may write to either database meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Column, Connection, Table, delete, func, insert, inspect, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from ragsvc.core.errors import ConfigurationError
from ragsvc.store import (
    conversation_rows,
    feedback_rows,
    key_tables,
    provider_rows,
    response_rows,
    session_rows,
    tables,
)
from ragsvc.store.database import Database
from ragsvc.store.engines import SQLITE, engine_of
from ragsvc.store.moved_rows import MOVE_NOTES

_DEFINED_BY: Final = (conversation_rows, feedback_rows, key_tables, provider_rows, response_rows, session_rows, tables)
"""The modules that define tables."""
_ROWS: Final = 200
"""Rows of a transaction: those of the largest pages fit into memory."""
_VERSION_TABLE: Final = "alembic_version"
_MARKED: Final = ("collections", "name")
"""The column with names that the service itself gives. They begin with the engine's mark, here with SQLite's."""

_Row = dict[str, Any]
_state = tables.table_of(tables.ServiceStateRow)


class CopiedTable(msgspec.Struct, frozen=True):
    """A table whose rows are the same in both databases."""

    name: str
    rows: int
    sha256: str


def all_tables() -> list[Table]:
    """Every table, each after those that it refers to."""
    return list(SQLModel.metadata.sorted_tables)


def require_known_tables(database: Database) -> None:
    """Raise ``ConfigurationError`` if the database has other tables than those that are copied."""
    found = set(database.read_sync(lambda connection: inspect(connection).get_table_names())) - {_VERSION_TABLE}
    known = {table.name for table in all_tables()}
    if found != known:
        raise ConfigurationError([f"tables that are not known, or are missing: {', '.join(sorted(found ^ known))}"])


def count_rows(database: Database, table: Table) -> int:
    """The number of rows without notes about a move."""
    return database.read_sync(lambda connection: _count(connection, table))


def is_empty(database: Database) -> bool:
    """Whether a database has no rows."""
    return not any(count_rows(database, table) for table in all_tables())


def remove_all_rows(database: Database) -> None:
    """Delete all rows in one transaction, except the notes about a move."""

    def remove(connection: Connection) -> None:
        others = [table for table in reversed(all_tables()) if table is not _state]
        engine_of(connection).remove_all(connection, others)
        connection.execute(_without_notes(delete(_state), _state))

    database.write_sync(remove)


def copy_table(source: Database, target: Database, table: Table, *, copied: Callable[[int], None]) -> CopiedTable:
    """Copy the rows that the target lacks, compare all, and continue the table's ids where the source's are.

    ``copied`` is called with the number of rows in the target.

    Raises:
        ConfigurationError: the target cannot hold a value, or the tables differ afterwards because the source's was
            changed since the copy began.
    """
    done = count_rows(target, table)
    last = target.read_sync(lambda connection: _last_key(connection, table))
    copied(done)
    while rows := source.read_sync(partial(_rows_after, table=table, last=last)):
        last = _key(table, rows[-1])
        try:
            target.write_sync(partial(_insert, table=table, rows=rows))
        except IntegrityError as error:  # a row that was copied before is gone, and another has its place
            raise _changed(table) from error
        done += len(rows)
        copied(done)
    last_id = source.read_sync(lambda connection: engine_of(connection).last_given_id(connection, table))
    if last_id:
        target.write_sync(lambda connection: engine_of(connection).continue_ids(connection, table, last_id))
    found = CopiedTable(table.name, *digest(target, table))
    require_same(source, table, found)
    return found


def require_same(database: Database, table: Table, copied: CopiedTable) -> None:
    """Raise ``ConfigurationError`` if a table has other rows than its copy."""
    if digest(database, table) != (copied.rows, copied.sha256):
        raise _changed(table)


def _changed(table: Table) -> ConfigurationError:
    problem = f"the rows of {table.name} differ: they were changed since the move began"
    return ConfigurationError([f"{problem}; run it with --from-scratch"])


def digest(database: Database, table: Table) -> tuple[int, str]:
    """The number of rows, and a SHA-256 of all values in the order of the primary key, equal in all engines."""
    hashed, count = hashlib.sha256(), 0
    last: tuple[Any, ...] | None = None
    encoder = msgspec.msgpack.Encoder()
    while rows := database.read_sync(partial(_rows_after, table=table, last=last)):
        for row in rows:
            hashed.update(encoder.encode([_comparable(value) for value in row.values()]))
        count += len(rows)
        last = _key(table, rows[-1])
    return count, hashed.hexdigest()


def _comparable(value: object) -> object:
    """Text in bytes: text that is not valid UTF-8 has a hash, too."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return int(value) if isinstance(value, bool) else value


def _keys(table: Table) -> Sequence[Column[Any]]:
    return list(table.primary_key)


def _key(table: Table, row: _Row) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in _keys(table))


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(_without_notes(select(func.count()).select_from(table), table)).scalar_one())


def _last_key(connection: Connection, table: Table) -> tuple[Any, ...] | None:
    keys = _keys(table)
    statement = _without_notes(select(*keys), table).order_by(*(key.desc() for key in keys)).limit(1)
    row = connection.execute(statement).one_or_none()
    return None if row is None else tuple(row)


def _rows_after(connection: Connection, table: Table, last: tuple[Any, ...] | None) -> list[_Row]:
    keys = _keys(table)
    statement = _without_notes(select(*table.c), table).order_by(*keys).limit(_ROWS)
    if last is not None:
        statement = statement.where(tuple_(*keys) > tuple_(*last))
    names = [column.name for column in table.c]
    rows = [dict(zip(names, row, strict=True)) for row in connection.execute(statement)]
    _change_marks(table, rows, engine_of(connection).mark, SQLITE.mark)
    return rows


def _insert(connection: Connection, table: Table, rows: list[_Row]) -> None:
    engine = engine_of(connection)
    _change_marks(table, rows, SQLITE.mark, engine.mark)
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str) and not engine.can_hold(value):
                key = ", ".join(map(repr, _key(table, row)))
                problem = f"{table.name}.{name}: the other database cannot hold the text of the row {key}"
                raise ConfigurationError([f"{problem}; 'ragsvc doctor --deep' says what is damaged"])
    connection.execute(insert(table), rows)


def _change_marks(table: Table, rows: list[_Row], former: str, new: str) -> None:
    name, column = _MARKED
    if table.name == name and former != new:
        for row in rows:
            if row[column].startswith(former):
                row[column] = new + row[column].removeprefix(former)


def _without_notes(statement: Any, table: Table) -> Any:  # noqa: ANN401 - a select or delete
    """A statement about all rows but the notes about a move."""
    return statement.where(table.c.name.not_in(MOVE_NOTES)) if table is _state else statement
