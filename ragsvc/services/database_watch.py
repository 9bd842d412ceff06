"""Notices when a database server cannot be reached, so that a load balancer sends requests elsewhere."""

from __future__ import annotations

import logging
from typing import Final

import anyio
from sqlalchemy import Connection, text

from ragsvc.core.errors import DatabaseUnavailable
from ragsvc.core.readiness import Readiness
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)

DATABASE: Final = "database"
"""The name of this part in ``/readyz``."""
_AWAY: Final = "The database cannot be reached."
_EVERY_S: Final = 2.0


class DatabaseWatch:
    """Asks the database every few seconds."""

    def __init__(self, database: Database, readiness: Readiness, *, every_s: float = _EVERY_S) -> None:
        self._database = database
        self._readiness = readiness
        self._every_s = every_s

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await anyio.sleep(self._every_s)
            await self.check()

    async def check(self) -> None:
        """Ask once. Another failure than that of the connection is logged, and the next call asks again."""
        try:
            await self._database.read(_ask)
            self._readiness.clear(DATABASE)
        except DatabaseUnavailable:
            self._readiness.block(DATABASE, _AWAY)
        except Exception:
            logger.exception("The database could not be asked; this is tried again.")


def _ask(connection: Connection) -> None:
    connection.execute(text("SELECT 1")).close()
