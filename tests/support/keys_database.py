"""A database that contains only keys, and the services over it, for tests of keys and of the web layer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import KeyAdministration
from ragsvc.store.sqlite_database import SqliteDatabase


class SmallDatabase(SqliteDatabase):
    """The real database over a separate file. ``writes`` counts its writes."""

    def __init__(self, path: Path) -> None:
        self.writes = 0
        super().__init__(path)

    async def write(self, function):
        self.writes += 1
        return await super().write(function)

    def write_sync(self, function):
        self.writes += 1
        return super().write_sync(function)


class Services(NamedTuple):
    access: Access
    keys: KeyAdministration
    readiness: Readiness
    registry: CollectorRegistry


def compose(database: SmallDatabase, **options) -> Services:
    access = Access(database, **options)
    return Services(access, KeyAdministration(access), Readiness(), CollectorRegistry())
