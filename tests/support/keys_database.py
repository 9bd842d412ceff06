"""A database that contains only keys, and the services over it, for tests of keys and of the web layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.key_administration import KeyAdministration
from tests.support.engines import address_of, open_address


class SmallDatabase:
    """The real database of the engine of this run. ``writes`` counts its writes."""

    def __init__(self, place: Path | str) -> None:
        """``place``: a path, or in another process its ``address``."""
        self.writes = 0
        self.address = address_of(place) if isinstance(place, Path) else place
        self._opened = open_address(self.address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    async def write(self, function):
        self.writes += 1
        return await self._opened.write(function)

    def write_sync(self, function):
        self.writes += 1
        return self._opened.write_sync(function)


class Services(NamedTuple):
    access: Access
    keys: KeyAdministration
    readiness: Readiness
    registry: CollectorRegistry


def compose(database: SmallDatabase, **options) -> Services:
    access = Access(database, **options)
    return Services(access, KeyAdministration(access), Readiness(), CollectorRegistry())
