"""Cancels the work for a client that disconnects."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from litestar.types import Receive

_WATCH_AFTER_S = 0.05


class DisconnectWatcher:
    """Context manager: if the client disconnects, the block is cancelled and left, and ``left`` is set.

    Watching begins after 50 ms; most answers are complete before, so short requests only pay for a timer. For use after
    the body of the request was read: the next message from ``receive`` can then only be the disconnect.
    """

    __slots__ = ("_receive", "_task", "_timer", "_watcher", "left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.left = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.left or kind is not asyncio.CancelledError or self._task is None:
            return False
        return self._task.uncancel() == 0

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.left = True
        if self._task is not None:
            self._task.cancel()
