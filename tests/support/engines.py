"""The database engine that tests run on: ``--database`` of pytest, and marks for tests about one engine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, NullPool, create_engine, inspect

from ragsvc.store.data_keys import DATABASE_FILE_NAME
from ragsvc.store.database import Database
from ragsvc.store.postgres_database import PostgresDatabase
from ragsvc.store.sqlite_database import SqliteDatabase
from tests.support.postgres_server import PostgresServer, server_binaries

SQLITE, POSTGRES = "sqlite", "postgres"
ONLY_SQLITE = pytest.mark.parametrize("any_database", [SQLITE], indirect=True)
"""For tests about the plans and the file of SQLite."""
ONLY_POSTGRES = pytest.mark.parametrize("any_database", [POSTGRES], indirect=True)
_SCHEME = "postgresql://"


class TestEngine:
    """The engine of this run, and the server of this process, which starts when a test needs it first."""

    __test__ = False

    def __init__(self) -> None:
        self.name = SQLITE
        self._server: PostgresServer | None = None
        self._urls: dict[Path, str] = {}

    @property
    def server(self) -> PostgresServer:
        """Skips the test if no server is installed."""
        if self._server is None:
            pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
            binaries = server_binaries()
            if binaries is None:
                pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
            self._server = PostgresServer(binaries)
        return self._server

    @property
    def erases_at_once(self) -> bool:
        """Whether the service overwrites deleted rows itself; a server keeps them until it cleans up."""
        return self.name == SQLITE

    def url_of(self, path: Path) -> str:
        """The URL of the database that stands for a data directory or another file: a new one for a new path."""
        place = path.parent if path.name == DATABASE_FILE_NAME else path
        if place not in self._urls:
            self._urls[place] = self.server.new_database()
        return self._urls[place]

    def settings_of(self, data_dir: Path) -> dict[str, str]:
        """Variables of the services and commands that use a data directory."""
        return {} if self.name == SQLITE else {"RAGSVC_DATABASE_URL": self.url_of(data_dir)}

    def close(self) -> None:
        if self._server is not None:
            self._server.remove()


engine = TestEngine()


def address_of(path: Path) -> str:
    """The file, or the URL of the database that stands for it; child processes open it with ``open_address``."""
    return str(path) if engine.name == SQLITE else engine.url_of(path)


def open_address(address: str) -> Database:
    """Open the database at a path or URL."""
    return PostgresDatabase(address) if address.startswith(_SCHEME) else SqliteDatabase(Path(address))


def open_database(path: Path) -> Database:
    """Open a database of the engine of this run: the file, or the PostgreSQL database that stands for it."""
    return open_address(address_of(path))


@contextmanager
def stored_rows(place: Path) -> Generator[Connection]:
    """A transaction on the rows of a data directory or file, which others may use meanwhile; committed at the end."""
    address = address_of(place / DATABASE_FILE_NAME if place.is_dir() else place)
    if address.startswith(_SCHEME):
        url = address.replace(_SCHEME, "postgresql+psycopg://", 1)
    else:
        url = f"sqlite:///{address}"
    opened = create_engine(url, poolclass=NullPool)
    with opened.begin() as connection:
        yield connection


def let_writes_fail(connection: Connection, table: str, *, event: str) -> None:
    """From now on each ``INSERT`` into, or ``UPDATE`` of, a table is refused."""
    if connection.dialect.name == SQLITE:
        raising = "BEGIN SELECT RAISE(ABORT, 'fault'); END"
    else:
        raising = "FOR EACH ROW EXECUTE FUNCTION fault()"
        connection.exec_driver_sql(
            "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fault'; END $$"
        )
    connection.exec_driver_sql(f"CREATE TRIGGER fault BEFORE {event} ON {table} {raising}")


def texts_of_rows(connection: Connection) -> dict[str, list[bytes]]:
    """For each table its rows, each as one text of all values."""
    found: dict[str, list[bytes]] = {}
    for table in inspect(connection).get_table_names():
        rows = connection.exec_driver_sql(f'SELECT * FROM "{table}"').all()  # noqa: S608 - names of the schema
        found[table] = [b" ".join(_text(value) for value in row) for row in rows]
    return found


def bytes_of_rows(place: Path) -> bytes:
    """What is stored of the rows of a data directory or file: SQLite's file and its log, or all values."""
    if engine.name == SQLITE:
        path = place / DATABASE_FILE_NAME if place.is_dir() else place
        return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    with stored_rows(place) as connection:
        return b"\n".join(row for rows in texts_of_rows(connection).values() for row in rows)


def _text(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode(errors="surrogateescape")
