"""Watches the disk: reports a full one, and lets the work go on when there is room."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread

from ragsvc.core.readiness import Readiness
from ragsvc.store.disk_space import DiskSpace

logger = logging.getLogger(__name__)

STORAGE: Final = "storage"
"""The name of this part in ``/readyz``."""
_FULL: Final = "The disk is full: uploads are refused, and ingest waits; documents can be searched, read and deleted."
_WITHOUT_RESERVE: Final = (
    "The disk is full, and its reserve is used up: documents can be searched and read, but not deleted. Stop what "
    "fills the disk, and free some space outside of the data directory."
)
_EVERY_S: Final = 1.0


class StorageWatch:
    """Measures the disk every second. ``resume`` is called when there is room again, and after the start."""

    def __init__(
        self,
        space: DiskSpace,
        readiness: Readiness,
        resume: Sequence[Callable[[], Awaitable[None]]],
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._space = space
        self._readiness = readiness
        self._resume = resume
        self._every_s = every_s
        self._was_full = True

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; started after the first measurement."""
        await self.check()
        task_status.started()
        while True:
            await anyio.sleep(self._every_s)
            await self.check()

    async def check(self) -> None:
        """Measure once. A failure is logged, and the next call measures again."""
        try:
            full = await anyio.to_thread.run_sync(self._space.measure)
            if full:
                self._readiness.block(STORAGE, _FULL if self._space.has_room_to_delete() else _WITHOUT_RESERVE)
            else:
                self._readiness.clear(STORAGE)
                if self._was_full:
                    for resume in self._resume:
                        await resume()
            self._was_full = full
        except Exception:
            logger.exception("The disk could not be measured; this is tried again.")
