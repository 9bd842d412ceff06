"""Copies of all rows between the engines: ids, names that the service gave, and texts that cannot be copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from ragsvc.core.errors import ConfigurationError
from ragsvc.store.database import Database
from ragsvc.store.engines import engine_of
from ragsvc.store.moved_rows import GONE, INCOMPLETE, require_all_rows, write_note
from ragsvc.store.postgres_database import PostgresDatabase
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.store.table_copy import (
    all_tables,
    copy_table,
    count_rows,
    digest,
    is_empty,
    remove_all_rows,
    require_known_tables,
)
from tests.support.postgres_server import PostgresServer
from tests.support.stored_documents import add, make_ready


@pytest.fixture
def both(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[tuple[Database, Database]]:
    """An empty SQLite database, and an empty one of PostgreSQL."""
    with ExitStack() as stack:
        databases = SqliteDatabase(tmp_path / "rows.sqlite"), PostgresDatabase(postgres_server.new_database())
        for database in databases:
            stack.callback(database.close)
        yield databases


def copy_all(source: Database, target: Database) -> dict[str, int]:
    copied = [copy_table(source, target, table, copied=lambda _: None) for table in all_tables()]
    return {table.name: table.rows for table in copied if table.rows}


def digests(database: Database) -> list[tuple[int, str]]:
    return [digest(database, table) for table in all_tables()]


def mark_deleted(connection: Connection) -> None:
    name = {"name": f"{engine_of(connection).mark}deleted:1"}
    connection.execute(text("UPDATE collections SET name = :name, deleted_at = 5"), name)


def names(connection: Connection) -> list[str]:
    return list(connection.execute(text("SELECT name FROM collections")).scalars())


def test_rows_that_are_copied_there_and_back_are_the_same(both, tmp_path: Path) -> None:
    own, server = both
    for name in ("a", "b", "c"):
        make_ready(own, add(own, name))
    own.write_sync(mark_deleted)
    own.write_sync(lambda connection: write_note(connection, "a state", 7))
    for database in both:
        require_known_tables(database)
    assert is_empty(server)
    assert copy_all(own, server) == copy_all(own, server) != {}
    assert server.read_sync(names) == ["\1deleted:1"]
    assert own.read_sync(names) == ["\0deleted:1"]
    assert digests(own) == digests(server)

    again = SqliteDatabase(tmp_path / "again.sqlite")
    copy_all(server, again)
    assert again.read_sync(names) == ["\0deleted:1"]
    assert digests(again) == digests(own)
    for database in (again, server):
        remove_all_rows(database)
        assert is_empty(database)
    again.close()


@pytest.mark.parametrize("way", ["there", "back"])
def test_ids_of_deleted_rows_are_not_given_again(both, way: str) -> None:
    source, target = both if way == "there" else reversed(both)
    documents = [add(source, name) for name in ("a", "b", "c")]
    last = documents[-1].id
    source.write_sync(lambda connection: connection.execute(text("DELETE FROM documents WHERE id = :id"), {"id": last}))
    copy_all(source, target)
    assert add(target, "d").id == last + 1


def test_a_copy_goes_on_after_the_last_row_and_notices_a_change(both) -> None:
    own, server = both
    add(own, "a")
    copy_all(own, server)
    add(own, "b")
    documents = next(table for table in all_tables() if table.name == "documents")
    assert copy_table(own, server, documents, copied=lambda _: None).rows == 2
    own.write_sync(lambda connection: connection.execute(text("UPDATE documents SET filename = 'other' WHERE id = 1")))
    with pytest.raises(ConfigurationError, match="documents differ"):
        copy_table(own, server, documents, copied=lambda _: None)
    for statement in ("DELETE FROM documents", "DELETE FROM files"):
        own.write_sync(lambda connection, each=statement: connection.execute(text(each)))
    add(own, "a")
    with pytest.raises(ConfigurationError, match="documents differ"):  # the server has another row with the hash
        copy_table(own, server, documents, copied=lambda _: None)


def test_a_text_that_the_server_cannot_hold_is_named_and_not_quoted(both) -> None:
    own, server = both
    add(own, "a")
    own.write_sync(lambda connection: connection.execute(text("UPDATE documents SET title = 'secret' || char(0)")))
    with pytest.raises(ConfigurationError, match=r"documents\.title: .* the row 1") as raised:
        copy_all(own, server)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("note", "message"), [(INCOMPLETE, "was interrupted"), (GONE, "moved to another one on 1970")])
def test_a_database_with_a_note_is_refused_and_the_note_is_not_copied(both, note: str, message: str) -> None:
    own, server = both
    own.write_sync(lambda connection: write_note(connection, note, 5))
    with pytest.raises(ConfigurationError, match=message):
        own.read_sync(require_all_rows)
    copy_all(own, server)
    server.read_sync(require_all_rows)
    assert [count_rows(database, table) for database in both for table in all_tables()] == [0] * (2 * len(all_tables()))
