"""Wakes the requests that wait for a document. Carries no state: a woken waiter reads the document's row."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager


class ProgressHub:
    """Signals per document. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False

    def close(self) -> None:
        """Wake all watchers, because the service stops; nobody waits afterwards."""
        self.closed = True
        for events in self._watchers.values():
            for event in events:
                event.set()

    def notify(self, public_id: str) -> None:
        """Wake the watchers of a document whose row has changed."""
        for event in self._watchers.get(public_id, ()):
            event.set()

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
