"""Deletes what has expired: files with their documents, and uploads in parts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio

from ragsvc.services.disk_faults import logging_disk_faults

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S: Final = 60.0
_SHORTEST_PAUSE_S: Final = 0.5


class Expiring(Protocol):
    """Objects with a time at which they expire."""

    async def sweep_expired(self) -> int:
        """Remove those whose time is over; returns their number."""
        ...

    async def next_expiry(self) -> int | None:
        """When the next one expires, in Unix seconds; ``None`` if none does."""
        ...


class ExpirySweep:
    """Removes expired objects within a second or so of their time. They are not found before that either."""

    def __init__(self, expiring: Sequence[Expiring], *, clock: Callable[[], float] = time.time) -> None:
        self._expiring = expiring
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled. A fault of the disk is logged, and the sweep is tried again."""
        while True:
            pause_s = _LONGEST_PAUSE_S
            with logging_disk_faults(logger, "expired objects could not be removed"):
                pause_s = await self.sweep()
            await anyio.sleep(pause_s)

    async def sweep(self) -> float:
        """Remove what has expired; returns the seconds until the next sweep.

        An object can be added while this waits: none expires sooner than an hour after its creation.
        """
        pause_s = _LONGEST_PAUSE_S
        for kind in self._expiring:
            await kind.sweep_expired()
            at = await kind.next_expiry()
            if at is not None:
                pause_s = min(pause_s, at - self._clock())
        return max(pause_s, _SHORTEST_PAUSE_S)
