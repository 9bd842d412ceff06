"""The schema that migrations make: equal to the models, to the older releases' schema, and made in one order."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine
from sqlmodel import SQLModel

import ragsvc.store
from ragsvc.store.migrations import FOLDER, revisions
from ragsvc.store.migrations.newest import FILE_NAME, newest_statements, write_statements
from ragsvc.store.migrations.run import upgrade
from ragsvc.store.postgres_database import _open_engine
from ragsvc.store.schema import prepare_schema, read_revision
from ragsvc.store.sqlite_database import SqliteDatabase, connect_raw
from ragsvc.store.sqlite_database import _open_engine as open_sqlite_engine
from tests.support.old_data_directories import OldDirectory
from tests.support.postgres_server import PostgresServer

for module in pkgutil.iter_modules(ragsvc.store.__path__, "ragsvc.store."):
    importlib.import_module(module.name)  # every module that may define a table


def schema(path: Path) -> dict[str, str]:
    """Statements that made the tables and indexes, with single spaces."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name != 'alembic_version'").fetchall()
    return {
        name: " ".join((sql or "").split()) for name, sql in rows if not name.startswith("sqlite_autoindex_alembic")
    }


def everything(path: Path) -> tuple[object, ...]:
    """The schema to the letter and in its order, and the rows of the tables that are not ours."""
    with closing(sqlite3.connect(path)) as connection:
        parts = [connection.execute(statement).fetchall() for statement in EVERYTHING]
        filled = [name for (name,) in parts[0] if connection.execute(f"SELECT 1 FROM {name}").fetchone()]  # noqa: S608
    return (*parts, filled)


EVERYTHING = (
    "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid",
    "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid",
    "SELECT name, seq FROM sqlite_sequence ORDER BY name",
    "SELECT version_num FROM alembic_version",
)


def migrate(path: Path, *, to: str = "head") -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, to=to)
    engine.dispose()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    SqliteDatabase(tmp_path / "fresh.sqlite").close()
    return tmp_path / "fresh.sqlite"


def test_a_fresh_file_has_the_schema_of_the_models(fresh: Path, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'models.sqlite'}")
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    assert len(schema(fresh)) > 20
    assert schema(fresh) == schema(tmp_path / "models.sqlite")


def test_a_fresh_file_equals_an_empty_one_that_all_migrations_changed(fresh: Path, tmp_path: Path) -> None:
    migrate(tmp_path / "migrated.sqlite")
    assert sorted(map(str, everything(fresh)[1])) == sorted(map(str, everything(tmp_path / "migrated.sqlite")[1]))
    assert everything(fresh)[2:] == everything(tmp_path / "migrated.sqlite")[2:]
    assert everything(fresh)[4] == ["alembic_version", "sqlite_sequence"]


def test_the_recorded_statements_are_those_of_the_migrations(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "migrations"))
    write_statements(folder)
    assert newest_statements(folder) == newest_statements(), "run: python -m ragsvc.store.migrations.newest"
    assert newest_statements()[-1].endswith(f"('{revisions()[-1]}')")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_new_file_gets_migrations_that_are_not_recorded(tmp_path: Path, recorded: bool) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "migrations"))
    text = f"revision = '9000'\ndown_revision = '{revisions()[-1]}'\n\n\ndef upgrade():\n"
    text += "    from alembic import op\n    op.execute('CREATE TABLE added (id INTEGER)')\n"
    (folder / "versions" / "9000_of_a_test.py").write_text(text)
    if not recorded:
        (folder / FILE_NAME).unlink()
    path = tmp_path / "new.sqlite"
    engine = open_sqlite_engine(path, key=None, begin="BEGIN IMMEDIATE", query_only=False)
    prepare_schema(engine, path, connect=lambda path: connect_raw(path, key=None), folder=folder)
    engine.dispose()
    assert "added" in schema(path)
    with closing(sqlite3.connect(path)) as connection:
        assert read_revision(connection) == "9000"
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_autogenerate_finds_nothing_to_migrate(fresh: Path) -> None:
    engine = create_engine(f"sqlite:///{fresh}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_the_first_revision_is_the_schema_before_migrations(tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    migrate(tmp_path / "first.sqlite", to="0001")
    assert schema(tmp_path / "first.sqlite") == schema(old.database)


def test_an_upgraded_file_has_the_schema_of_a_fresh_one(fresh: Path, tmp_path: Path) -> None:
    old = OldDirectory("plain", tmp_path / "data")
    before = schema(old.database)
    SqliteDatabase(old.database).close()
    assert schema(old.database) == schema(fresh) != before


def test_migrations_form_one_line_in_the_order_of_their_file_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    newest_first = list(ScriptDirectory.from_config(config).walk_revisions())
    assert tuple(script.revision for script in reversed(newest_first)) == revisions()
    assert [script.down_revision for script in newest_first] == [*reversed(revisions()[:-1]), None]
    for script in newest_first:
        assert Path(script.path).name.startswith(f"{script.revision}_")


def schema_of_server(url: str) -> list[tuple[str, ...]]:
    """Columns, indexes and constraints of a PostgreSQL database, without Alembic's own."""
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name "
        "FROM information_schema.columns WHERE table_schema = 'public'"
    )
    indexes = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    constraints = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace"
    )
    engine = _open_engine(url, read_only=True)
    with engine.connect() as connection:
        rows = [tuple(row) for part in (columns, indexes, constraints) for row in connection.exec_driver_sql(part)]
    engine.dispose()
    return sorted(tuple(map(str, row)) for row in rows if row[0] != "alembic_version")


def test_a_migrated_postgresql_database_has_the_schema_of_the_models(postgres_server: PostgresServer) -> None:
    of_models = postgres_server.new_database(empty=True)
    engine = _open_engine(of_models, read_only=False)
    metadata = MetaData()
    for table in SQLModel.metadata.tables.values():
        for index in table.to_metadata(metadata).indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    metadata.create_all(engine)
    engine.dispose()
    migrated = schema_of_server(postgres_server.new_database())
    assert len(migrated) > 200
    assert migrated == schema_of_server(of_models)


def test_integers_have_64_bits_and_texts_are_compared_byte_by_byte(postgres_server: PostgresServer) -> None:
    columns = [row for row in schema_of_server(postgres_server.new_database()) if len(row) == 6]
    assert {row[2] for row in columns} == {"bigint", "boolean", "bytea", "character varying", "text"}
    assert {row[5] for row in columns if row[2] in ("character varying", "text")} == {"C"}
