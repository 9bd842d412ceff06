"""Wakes the requests that wait for documents. Carries no states: a woken waiter reads the rows of the documents."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from ragsvc.core.documents import Document
from ragsvc.core.ids import TenantId

MAX_REMEMBERED: Final = 1000
"""Changed documents that a feed remembers until they are read, and deletions that the hub remembers for each tenant."""


class DocumentDeletion(NamedTuple):
    """A deleted document, and the Unix time of the deletion; many documents if ``public_id`` is empty."""

    public_id: str
    collection: str
    deleted_at: int


class ProgressHub:
    """Signals per document and per tenant. Belongs to one event loop."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._feeds: defaultdict[TenantId, set[TenantFeed]] = defaultdict(set)
        self._deletions: dict[TenantId, deque[DocumentDeletion]] = {}
        self._began_at = int(clock()) + 1
        self.closed = False

    def close(self) -> None:
        """Wake all watchers, because the service stops; nobody waits afterwards."""
        self.closed = True
        for events in self._watchers.values():
            for event in events:
                event.set()
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.wake()

    def notify(self, document: Document) -> None:
        """Wake the watchers of a document, and of its tenant, because its row has changed."""
        self.wake(document.public_id)
        for feed in self._feeds.get(document.tenant, ()):
            feed.put(document)

    def is_watched(self, public_id: str) -> bool:
        """Whether a request waits for a document."""
        return public_id in self._watchers

    def wake(self, public_id: str) -> None:
        """Wake the watchers of a document only."""
        for event in self._watchers.get(public_id, ()):
            event.set()

    def notify_deletion(self, document: Document) -> None:
        """Wake the same watchers, because the document was deleted, and remember the deletion for feeds that resume."""
        self._remember(document.tenant, document.public_id, document.collection)
        self.notify(document)

    def notify_many(self, tenant: TenantId) -> None:
        """Wake the watchers of a tenant, because many of its documents changed or were deleted at once."""
        self._remember(tenant, "", "")
        for feed in self._feeds.get(tenant, ()):
            feed.overflow()

    def _remember(self, tenant: TenantId, public_id: str, collection: str) -> None:
        now = int(self._clock())
        if tenant not in self._deletions:
            while len(self._deletions) >= MAX_REMEMBERED:  # the tenant whose first deletion is the oldest
                self._deletions.pop(next(iter(self._deletions)))
                self._began_at = now + 1
            self._deletions[tenant] = deque(maxlen=MAX_REMEMBERED)
        self._deletions[tenant].append(DocumentDeletion(public_id, collection, now))

    def deletions_since(self, tenant: TenantId, begin: int) -> list[DocumentDeletion] | None:
        """The deletions of a tenant's documents from a Unix time on; ``None`` if not all of them are remembered."""
        remembered = list(self._deletions.get(tenant, ()))
        known_from = remembered[0].deleted_at + 1 if len(remembered) == MAX_REMEMBERED else self._began_at
        found = [deletion for deletion in remembered if deletion.deleted_at >= begin]
        return None if begin < known_from or not all(deletion.public_id for deletion in found) else found

    @contextmanager
    def watch(self, public_id: str) -> Generator[DocumentWatch]:
        """Watch a document; begin before reading its row, so that no change is missed."""
        event = asyncio.Event()
        self._watchers[public_id].add(event)
        try:
            yield DocumentWatch(event)
        finally:
            self._watchers[public_id].discard(event)
            if not self._watchers[public_id]:
                del self._watchers[public_id]

    @contextmanager
    def watch_tenant(self, tenant: TenantId) -> Generator[TenantFeed]:
        """Watch all documents of a tenant; begin before reading their rows, so that no change is missed."""
        feed = TenantFeed()
        self._feeds[tenant].add(feed)
        try:
            yield feed
        finally:
            self._feeds[tenant].discard(feed)
            if not self._feeds[tenant]:
                del self._feeds[tenant]


class DocumentWatch:
    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def changed(self, *, timeout_s: float) -> bool:
        """Wait for a change since the last call; ``False`` after ``timeout_s`` without a change."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class TenantFeed:
    """The documents of a tenant that changed since they were last taken: each once, at most ``MAX_REMEMBERED``."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._changed: dict[str, str] | None = {}

    def put(self, document: Document) -> None:
        if self._changed is not None:
            self._changed[document.public_id] = document.collection
            if len(self._changed) > MAX_REMEMBERED:
                self._changed = None
        self._event.set()

    def overflow(self) -> None:
        self._changed = None
        self._event.set()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, *, timeout_s: float) -> bool:
        """Wait for a change; ``False`` after ``timeout_s`` without a change."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> dict[str, str] | None:
        """Collections of the changed documents by public id; ``None`` if more changed than the feed remembers."""
        changed, self._changed = self._changed, {}
        self._event.clear()
        return changed
