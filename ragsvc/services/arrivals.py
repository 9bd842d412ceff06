"""Lets callers that do the same at the same time go on together, so that what follows is done once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

import anyio


class Arrival:
    """A caller on its way to the point where it waits for the others. Made by ``Arrivals.expected``."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._is_coming = True

    async def together(self) -> None:
        """Wait for the callers on their way, but not longer than a moment."""
        if self._is_coming:
            self.give_up()
            await self._arrivals.wait()

    def give_up(self) -> None:
        """The caller is not on its way any more."""
        if self._is_coming:
            self._is_coming = False
            self._arrivals.leave()


class Arrivals:
    """Callers that are expected at one point. A caller that is alone never waits. Belongs to one event loop.

    The write thread commits the writes that wait at the same time together; 32 small uploads that arrive within a
    moment write a quarter of the pages that they write if four share each commit.
    """

    def __init__(self, *, wait_s: float) -> None:
        """``wait_s``: the longest time that a caller waits for others."""
        self._wait_s = wait_s
        self._coming = 0
        self._held: asyncio.Event | None = None
        self._release_at = 0.0

    @contextmanager
    def expected(self) -> Generator[Arrival]:
        """Expect a caller during the block, until it arrives."""
        arrival = Arrival(self)
        self._coming += 1
        try:
            yield arrival
        finally:
            arrival.give_up()

    def leave(self) -> None:
        self._coming -= 1
        if self._coming == 0:
            self._release()

    async def wait(self) -> None:
        if self._coming == 0:
            return
        if self._held is None:
            self._held = asyncio.Event()
            self._release_at = anyio.current_time() + self._wait_s
        held = self._held
        with anyio.move_on_after(self._release_at - anyio.current_time()):
            await held.wait()
        if self._held is held:
            self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._held.set()
            self._held = None
