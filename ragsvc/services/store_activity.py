"""When vector stores were last used, in memory: a search must not cost a write to the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ragsvc.core.ids import CollectionId


class StoreActivity:
    """Times of uses that are not written yet. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._used: dict[CollectionId, int] = {}

    def note(self, collection_id: CollectionId) -> None:
        """A collection is used now."""
        self._used[collection_id] = int(self._clock())

    def latest(self, collection_id: CollectionId, stored: int) -> int:
        """When a collection was last used, if the database says ``stored``."""
        return max(stored, self._used.get(collection_id, 0))

    def pending(self) -> Mapping[CollectionId, int]:
        """The times to write, in Unix seconds."""
        return dict(self._used)

    def written(self, times: Mapping[CollectionId, int]) -> None:
        """Forget times that were written, unless there was a later use."""
        for collection_id, used in times.items():
            if self._used.get(collection_id) == used:
                del self._used[collection_id]
