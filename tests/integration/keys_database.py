"""A small database of the real one's interface, and a service over it: for tests of keys and of the web foundation."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from ragsvc.core.readiness import Readiness
from ragsvc.services.access import Access
from ragsvc.services.keys import KeyAdministration
from ragsvc.store import key_tables  # noqa: F401 - registers the tables


class SmallDatabase:
    """One writer thread and ``BEGIN IMMEDIATE`` over a file."""

    def __init__(self, path: Path) -> None:
        self._engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._thread = ThreadPoolExecutor(1)
        self.writes = 0
        SQLModel.metadata.create_all(self._engine)

    @staticmethod
    def _prepare(connection, _record):
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")

    def _run(self, operation):
        with self._engine.begin() as connection:
            return operation(connection)

    def write_sync(self, operation):
        self.writes += 1
        return self._thread.submit(self._run, operation).result()

    async def write(self, operation):
        self.writes += 1
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, operation)

    async def read(self, operation):
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, operation)

    def close(self) -> None:
        self._thread.shutdown()
        self._engine.dispose()


class Services(NamedTuple):
    access: Access
    keys: KeyAdministration
    readiness: Readiness
    registry: CollectorRegistry


def compose(database: SmallDatabase, **options) -> Services:
    access = Access(database, **options)
    return Services(access, KeyAdministration(access), Readiness(), CollectorRegistry())
