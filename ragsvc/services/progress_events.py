"""Wakes whoever waits for a document. Carries no state: a woken waiter reads the row, which is the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager


class ProgressHub:
    """Signals per document; lives on one event loop."""

    def __init__(self) -> None:
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False

    def close(self) -> None:
        """Wake everyone for good: the service stops, and nobody is to wait for a document any longer."""
        self.closed = True
        for events in self._watchers.values():
            for event in events:
                event.set()

    def notify(self, public_id: str) -> None:
        """Say that a document's row has changed."""
        for event in self._watchers.get(public_id, ()):
            event.set()

    @contextmanager
    def watch(self, public_id: str) -> Generator[DocumentWatch]:
        """Watch a document; begin before reading the row, so that no change slips between."""
        event = asyncio.Event()
        self._watchers[public_id].add(event)
        try:
            yield DocumentWatch(event)
        finally:
            self._watchers[public_id].discard(event)
            if not self._watchers[public_id]:
                del self._watchers[public_id]


class DocumentWatch:
    """One watcher's signal."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def changed(self, *, timeout_s: float) -> bool:
        """Wait for a change since the last call; False after ``timeout_s`` without one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
