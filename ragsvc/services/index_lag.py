"""Read-your-writes for searches: tracks the collections whose indexes lag behind committed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread

from ragsvc.core.ids import CollectionId


class IndexLag:
    """The collections whose indexes may lag behind commits. Belongs to one event loop."""

    def __init__(self, catch_up: Callable[[CollectionId], None]) -> None:
        """``catch_up`` makes all commits of a collection searchable; it blocks."""
        self._catch_up = catch_up
        self._committing: Counter[CollectionId] = Counter()
        self._stale: set[CollectionId] = set()

    @asynccontextmanager
    async def committing(self, collection_id: CollectionId) -> AsyncGenerator[None]:
        """Commit inside the block; the index is updated at its end. If that fails, the next search updates it first."""
        self._committing[collection_id] += 1
        try:
            yield
            self._stale.add(collection_id)
            await self._follow(collection_id)
        finally:
            self._committing[collection_id] -= 1

    async def settled(self, collection_id: CollectionId) -> None:
        """Return when every commit that a client may have seen is searchable."""
        if self._committing[collection_id] > 0 or collection_id in self._stale:
            await self._follow(collection_id)

    async def _follow(self, collection_id: CollectionId) -> None:
        await anyio.to_thread.run_sync(self._catch_up, collection_id)
        self._stale.discard(collection_id)
