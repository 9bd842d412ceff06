"""PostgreSQL: its own statements, parts of statements, and a dialect whose columns behave as those of SQLite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Insert, Table, text
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler, PGTypeCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from ragsvc.store.engines.constructs import BeginningOf, IsRequested, NumberedTexts, PartBefore, RowsAsJson, TextOfBytes
from ragsvc.store.text_integrity import is_readable

if TYPE_CHECKING:
    from psycopg import Connection as PsycopgConnection
    from psycopg import Cursor as PsycopgCursor

_TEXT_TYPE: Final = re.compile(r"^(\S+ )(VARCHAR(?:\(\d+\))?|TEXT)")
_SERIAL: Final = re.compile(r"^(\S+ )SERIAL\b")


class WideIntegers(PGTypeCompiler):
    """Integers of 64 bits, as SQLite's: times after 2038, and revisions in microseconds."""

    def visit_INTEGER(self, type_: Any, **options: Any) -> str:  # noqa: ANN401, N802 - SQLAlchemy's name
        return "BIGINT"


class PlainColumns(PGDDLCompiler):
    """Ids of 64 bits, and texts that are compared byte by byte, as SQLite does."""

    def get_column_specification(self, column: Any, **options: Any) -> str:  # noqa: ANN401 - SQLAlchemy's types
        specification = super().get_column_specification(column, **options)  # type: ignore[no-untyped-call]
        specification = _SERIAL.sub(r"\1BIGSERIAL", specification)
        return _TEXT_TYPE.sub(r'\1\2 COLLATE "C"', specification)


class PostgresDialect(PGDialect_psycopg):
    """PostgreSQL by psycopg, with these columns."""

    supports_statement_cache = True
    ddl_compiler = PlainColumns
    type_compiler_cls = WideIntegers


_DIALECT: Final[PGDialect_psycopg] = PostgresDialect()  # type: ignore[no-untyped-call]
DIALECT_NAME: Final = "postgresql+ragsvc"
registry.register("postgresql.ragsvc", __name__, PostgresDialect.__name__)


class PostgresStatement:
    """A statement for psycopg, prepared by the server."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None) -> None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=columns)
        self._query = str(compiled).encode()  # psycopg's types refuse text that is not a literal
        self._values: dict[str, Any] = {**(compiled.params or {})}

    def run(self, driver: PsycopgConnection[Any], values: Mapping[str, Any]) -> PsycopgCursor[Any]:
        return driver.execute(self._query, {**self._values, **values}, prepare=True)

    def insert(self, driver: PsycopgConnection[Any], values: Mapping[str, Any]) -> int:
        """SQLAlchemy lets inserts return the id that the server has given."""
        cursor = self.run(driver, values)
        row = cursor.fetchone()
        cursor.close()
        return int(row[0]) if row is not None else 0


class PostgresEngine:
    """The engine of a database server."""

    mark = "\1"  # a text of PostgreSQL cannot have the character U+0000

    def compile(self, statement: ClauseElement, columns: Sequence[str] | None) -> PostgresStatement:
        return PostgresStatement(statement, columns)

    def encode_ids(self, ids: Iterable[int]) -> str:
        return f"{{{','.join([str(int(each)) for each in ids])}}}"

    def insert_or_ignore(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def insert_or_replace(self, table: Table) -> Insert:
        statement = postgresql.insert(table)
        others = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=others)

    def upsert(self, table: Table, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Insert:
        statement = postgresql.insert(table).values(**values)
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(changes))

    def remove_all(self, connection: Connection, tables: Sequence[Table]) -> None:
        """At once: a statement that deletes row by row may take longer than the service allows."""
        connection.execute(text(f"TRUNCATE {', '.join(table.name for table in tables)}"))

    def can_hold(self, value: str) -> bool:
        return "\0" not in value and is_readable(value)

    def last_given_id(self, connection: Connection, table: Table) -> int:
        sequence = _sequence_of(table)
        if sequence is None:
            return 0
        last, is_called = connection.execute(text(f"SELECT last_value, is_called FROM {sequence}")).one()  # noqa: S608 - a name of ours
        return int(last) if is_called else 0

    def continue_ids(self, connection: Connection, table: Table, last: int) -> None:
        sequence = _sequence_of(table)
        if sequence is not None:
            values = {"sequence": sequence, "last": last}
            connection.execute(text("SELECT setval(CAST(:sequence AS regclass), :last)"), values)

    def has_given_ids(self, connection: Connection, tables: Sequence[str]) -> bool:
        return any(
            connection.execute(text(f"SELECT is_called FROM {table}_id_seq")).scalar_one()  # noqa: S608 - names of tables
            for table in tables
        )


def _sequence_of(table: Table) -> str | None:
    """The sequence of a table's ids, by the name that PostgreSQL gives it."""
    column = table.autoincrement_column
    return None if column is None else f"{table.name}_{column.name}_seq"


POSTGRES: Final = PostgresEngine()


@compiles(IsRequested, "postgresql")
def _is_requested(element: IsRequested, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    (column,) = element.clauses
    return f"{compiler.process(column, **options)} = ANY(%(ids)s::bigint[])"


@compiles(RowsAsJson, "postgresql")
def _rows_as_json(element: RowsAsJson, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    row = f"json_build_array({compiler.process(element.clauses, **options)})"
    return f"convert_to(coalesce(json_agg({row})::text, '[]'), 'UTF8')"


@compiles(NumberedTexts, "postgresql")
def _numbered_texts(element: NumberedTexts, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    number, content = (compiler.process(part, **options) for part in element.clauses)
    return f"string_agg(convert_to({number}::text || ' ' || {content}, 'UTF8'), '\\x00'::bytea)"


@compiles(TextOfBytes, "postgresql")
def _text_of_bytes(element: TextOfBytes, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"convert_from({compiler.process(element.clauses, **options)}, 'UTF8')"


@compiles(BeginningOf, "postgresql")
def _beginning_of(element: BeginningOf, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    content, characters = (compiler.process(part, **options) for part in element.clauses)
    return f"left({content}, {characters}::integer)"


@compiles(PartBefore, "postgresql")
def _part_before(element: PartBefore, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return f"split_part({compiler.process(element.clauses, **options)}, 1)"
