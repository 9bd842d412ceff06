"""How many exchanges one provider serves at a time, and how many more may wait."""

from __future__ import annotations

import asyncio

from ragsvc.core.errors import Overloaded


class ConcurrencySlots:
    """A semaphore whose queue is bounded in length and in time."""

    def __init__(self, limit: int, *, max_waiting: int, timeout_s: float) -> None:
        self._semaphore = asyncio.Semaphore(limit)
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._waiting = 0
        self.in_use = 0

    async def acquire(self) -> None:
        """Take a slot. Raises ``Overloaded`` when the queue is full or the wait too long."""
        if self._semaphore.locked():
            await self._wait()
        else:
            await self._semaphore.acquire()
        self.in_use += 1

    def release(self) -> None:
        """Give a slot back."""
        self.in_use -= 1
        self._semaphore.release()

    async def _wait(self) -> None:
        if self._waiting >= self._max_waiting:
            raise Overloaded("too many requests wait for this model's provider", retry_after_s=1)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._semaphore.acquire()
        except TimeoutError as error:
            raise Overloaded("the model's provider is busy", retry_after_s=self._timeout_s) from error
        finally:
            self._waiting -= 1
