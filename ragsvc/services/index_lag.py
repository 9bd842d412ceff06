"""Read-your-writes for searches: tracks the collections whose indexes lag behind committed rows."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread

from ragsvc.core.errors import StorageFull
from ragsvc.core.ids import CollectionId

logger = logging.getLogger(__name__)

_PAUSE_S: Final = 5.0


class IndexLag:
    """The collections whose indexes may lag behind commits. Belongs to one event loop.

    An index that cannot follow is no failure of the change that was committed: it is tried again by the next search and
    by ``retry``. While the disk is full, searches answer from the state that the index has. Passages that were deleted
    from the rows are never returned.
    """

    def __init__(self, catch_up: Callable[[CollectionId], None], *, pause_s: float = _PAUSE_S) -> None:
        """``catch_up`` makes all commits of a collection searchable; it blocks.

        After it raised ``StorageFull``, searches do not call it for ``pause_s`` seconds.
        """
        self._catch_up = catch_up
        self._pause_s = pause_s
        self._committing: Counter[CollectionId] = Counter()
        self._marks = itertools.count(1)
        self._stale: dict[CollectionId, int] = {}  # the number of the last mark
        self._not_before: dict[CollectionId, float] = {}

    @asynccontextmanager
    async def committing(self, collection_id: CollectionId) -> AsyncGenerator[None]:
        """Commit inside the block; the index is updated at its end. If that fails, the next search updates it first.

        The same applies if the block is cancelled or raises: it may have committed before.
        """
        self._committing[collection_id] += 1
        try:
            try:
                yield
            finally:
                self._stale[collection_id] = next(self._marks)
            await self._try_to_follow(collection_id)
        finally:
            self._committing[collection_id] -= 1

    async def follow(self, collection_id: CollectionId) -> None:
        """Update the indexes for commits that no search has to wait for; a later commit tries again after a failure."""
        await self._try_to_follow(collection_id)

    async def settled(self, collection_id: CollectionId) -> None:
        """Return when every commit that a client may have seen is searchable, or cannot be for lack of disk space."""
        if self._committing[collection_id] > 0 or collection_id in self._stale:
            await self._follow(collection_id)

    async def retry(self) -> None:
        """Update the indexes of all collections that lag; called when the disk has room again."""
        self._not_before.clear()
        for collection_id in list(self._stale):
            await self._try_to_follow(collection_id)

    async def _try_to_follow(self, collection_id: CollectionId) -> None:
        """Follow, or log the failure: the change is committed, and the collection stays marked."""
        try:
            await self._follow(collection_id)
        except Exception:
            logger.exception("collection %d: the indexes do not have the latest change yet", collection_id)

    async def _follow(self, collection_id: CollectionId) -> None:
        if time.monotonic() < self._not_before.get(collection_id, 0.0):
            return
        mark = self._stale.get(collection_id)  # a commit during the call may not be in what the call reads
        try:
            await anyio.to_thread.run_sync(self._catch_up, collection_id)
        except StorageFull as error:
            self._not_before[collection_id] = time.monotonic() + self._pause_s
            logger.warning("collection %d: %s", collection_id, error.message)
            return
        self._not_before.pop(collection_id, None)
        if self._stale.get(collection_id) == mark:
            self._stale.pop(collection_id, None)
