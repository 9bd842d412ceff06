"""Limits of the requests that a provider serves at the same time, and of those that wait."""

from __future__ import annotations

import asyncio

from ragsvc.core.errors import Overloaded


class ConcurrencySlots:
    """A semaphore whose queue is limited in length and waiting time."""

    def __init__(self, limit: int, *, max_waiting: int, timeout_s: float) -> None:
        self._semaphore = asyncio.Semaphore(limit)
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._waiting = 0
        self.in_use = 0

    async def acquire(self) -> None:
        """Take a slot. Raises ``Overloaded`` if the queue is full or the wait takes too long."""
        if self._semaphore.locked():
            await self._wait()
        else:
            await self._semaphore.acquire()
        self.in_use += 1

    def release(self) -> None:
        self.in_use -= 1
        self._semaphore.release()

    async def _wait(self) -> None:
        if self._waiting >= self._max_waiting:
            raise Overloaded("Too many requests are waiting for the provider of this model.", retry_after_s=1)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._semaphore.acquire()
        except TimeoutError as error:
            raise Overloaded("The provider of this model is busy.", retry_after_s=self._timeout_s) from error
        finally:
            self._waiting -= 1
