"""The database engine that tests run on: ``--database`` of pytest, and marks for tests about one engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragsvc.store.database import Database
from ragsvc.store.postgres_database import PostgresDatabase
from ragsvc.store.sqlite_database import SqliteDatabase
from tests.support.postgres_server import PostgresServer, server_binaries

SQLITE, POSTGRES = "sqlite", "postgres"
ONLY_SQLITE = pytest.mark.parametrize("any_database", [SQLITE], indirect=True)
"""For tests about the plans and the file of SQLite."""
ONLY_POSTGRES = pytest.mark.parametrize("any_database", [POSTGRES], indirect=True)


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

    def url_of(self, path: Path) -> str:
        """The URL of the database that stands for a file: a new one for a new path."""
        if path not in self._urls:
            self._urls[path] = self.server.new_database()
        return self._urls[path]

    def close(self) -> None:
        if self._server is not None:
            self._server.remove()


engine = TestEngine()


def open_database(path: Path) -> Database:
    """Open a database of the engine of this run: the file, or the PostgreSQL database that stands for it."""
    return SqliteDatabase(path) if engine.name == SQLITE else PostgresDatabase(engine.url_of(path))
