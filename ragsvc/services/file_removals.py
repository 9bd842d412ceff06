"""Removes stored files whose last document was deleted.

The deletion is committed with a row for the file. The row stays until the file is removed, so a file that cannot be
removed now, or that a killed process left, is removed later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from sqlalchemy import Connection

from ragsvc.core.errors import Overloaded, ShuttingDown, StorageUnavailable
from ragsvc.core.ids import TenantId
from ragsvc.services.file_locks import FileLocks
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.file_removal_rows import add_removal, forget_removal, is_used, list_removals

logger = logging.getLogger(__name__)


class FileRemovals:
    """Removes files that no document has; a file that is being stored again stays."""

    def __init__(self, database: Database, blobs: BlobStore, locks: FileLocks) -> None:
        self._database = database
        self._blobs = blobs
        self._locks = locks

    def locked(self, tenant: TenantId, sha256: str) -> asyncio.Lock:
        """The lock of a file; a file is stored and removed under it."""
        return self._locks.of(tenant, sha256)

    @asynccontextmanager
    async def storing(self, tenant: TenantId, sha256: str) -> AsyncGenerator[None]:
        """Run a block that stores a file and the document that has it, under the lock of the file.

        If the block raises or is cancelled, the file is removed, unless a document has it. A write in the block must
        not be cancelled while it waits (``write_to_the_end``): it could be committed after the file was removed.
        """
        try:
            yield
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.finish_locked(tenant, sha256)
            raise

    async def finish(self, tenant: TenantId, sha256: str, *, ignore_doomed: bool = False) -> bool:
        """Remove a file unless a document has it; returns whether it was removed.

        ``ignore_doomed``: a document that is being deleted with its collection does not keep its file. A failure is
        logged and noted, and ``finish_all`` tries again.
        """
        async with self._locks.of(tenant, sha256):
            return await self.finish_locked(tenant, sha256, ignore_doomed=ignore_doomed)

    async def finish_locked(self, tenant: TenantId, sha256: str, *, ignore_doomed: bool = False) -> bool:
        """As ``finish``, for a caller that holds the lock of the file."""
        if await self._database.read(
            lambda connection: is_used(connection, tenant, sha256, ignore_doomed=ignore_doomed)
        ):
            return False
        try:
            existed = await anyio.to_thread.run_sync(self._blobs.exists, tenant, sha256)
            await anyio.to_thread.run_sync(self._blobs.remove, tenant, sha256)
        except (OSError, StorageUnavailable) as error:
            reason = error.strerror if isinstance(error, OSError) else error.code
            logger.warning("the file %s could not be removed (%s); this is tried again", sha256[:12], reason)
            now = int(time.time())
            self._note(lambda connection: add_removal(connection, tenant, sha256, now=now))
            return False
        self._note(lambda connection: forget_removal(connection, tenant, sha256))
        return existed

    def _note(self, change: Callable[[Connection], object]) -> None:
        with contextlib.suppress(Overloaded, ShuttingDown):  # the next start compares the files with the database
            self._database.post(change)

    async def finish_all(self) -> None:
        """Remove every file whose removal is pending."""
        for removal in await self._database.read(list_removals):
            await self.finish(removal.tenant, removal.sha256)
