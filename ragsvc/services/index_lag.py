"""Keeps what clients were told and what search sees in step: an index that has to follow its rows is known by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread

from ragsvc.core.ids import CollectionId


class IndexLag:
    """Which collections have commits that their indexes may not hold yet; lives on one event loop."""

    def __init__(self, catch_up: Callable[[CollectionId], None]) -> None:
        """``catch_up`` blocks; it makes all commits of a collection searchable."""
        self._catch_up = catch_up
        self._committing: Counter[CollectionId] = Counter()
        self._stale: set[CollectionId] = set()

    @asynccontextmanager
    async def committing(self, collection_id: CollectionId) -> AsyncGenerator[None]:
        """Commit inside; afterwards the index follows. Should it fail to, the next search has it follow first."""
        self._committing[collection_id] += 1
        try:
            yield
            self._stale.add(collection_id)
            await self._follow(collection_id)
        finally:
            self._committing[collection_id] -= 1

    async def settled(self, collection_id: CollectionId) -> None:
        """Return when every commit that a client may know of is searchable."""
        if self._committing[collection_id] > 0 or collection_id in self._stale:
            await self._follow(collection_id)

    async def _follow(self, collection_id: CollectionId) -> None:
        await anyio.to_thread.run_sync(self._catch_up, collection_id)
        self._stale.discard(collection_id)
