"""Remembers which endpoints a provider does not offer, so that it is not asked for them again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_KEEP_S: Final = 60.0
_MOST_PATHS: Final = 64
"""Paths come from the routes of the service; the bound holds if that changes."""


class MissingEndpoints:
    """Paths that a provider does not offer, each for a minute.

    A path that the provider has served once is never remembered as missing: a later 404 is about the request. So no
    request can make the provider unavailable to others.

    >>> now = [0.0]
    >>> missing = MissingEndpoints(clock=lambda: now[0])
    >>> missing.note("/ocr"); missing.served("/rerank"); missing.note("/rerank")
    >>> "/ocr" in missing, "/rerank" in missing
    (True, False)
    >>> now[0] = 61.0; "/ocr" in missing
    False
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._served: set[str] = set()

    def __contains__(self, path: str) -> bool:
        if not self._until:
            return False
        until = self._until.get(path)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._until[path]
        return False

    def note(self, path: str) -> None:
        """Record that the provider has answered that it does not offer the path."""
        if path not in self._served and (path in self._until or len(self._until) < _MOST_PATHS):
            self._until[path] = self._clock() + _KEEP_S

    def served(self, path: str) -> None:
        """Record a success of the path."""
        if path not in self._served and len(self._served) < _MOST_PATHS:
            self._served.add(path)
            self._until.pop(path, None)
