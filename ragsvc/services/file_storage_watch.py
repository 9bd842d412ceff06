"""Notices when the storage of the files can be used again, and lets the work go on that waits for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.to_thread

from ragsvc.core.ports.file_storage import FileStorage

logger = logging.getLogger(__name__)

_EVERY_S: Final = 2.0


class FileStorageWatch:
    """Asks a storage that failed every few seconds. ``resume`` is called when it answers again."""

    def __init__(
        self, files: FileStorage, resume: Sequence[Callable[[], Awaitable[None]]], *, every_s: float = _EVERY_S
    ) -> None:
        self._files = files
        self._resume = resume
        self._every_s = every_s
        self._failed = False

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await anyio.sleep(self._every_s)
            await self.check()

    async def check(self) -> None:
        """Look once: a request may have found the fault, or that it is over."""
        self._failed = self._failed or self._files.fault is not None
        if not self._failed or not await anyio.to_thread.run_sync(self._files.probe):
            return
        self._failed = False
        for resume in self._resume:
            try:
                await resume()
            except Exception:
                self._failed = True
                logger.exception(
                    "The work that waited for the store of the files could not go on; this is tried again."
                )
