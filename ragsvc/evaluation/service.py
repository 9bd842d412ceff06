"""The service under evaluation, as the evaluation uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

Json = dict[str, Any]


class EvaluatedService(Protocol):
    """A client of the service's HTTP API. Paths begin with ``/v1``; the client's own errors pass through."""

    on_pause: Callable[[float, str], None] | None
    """Called with the seconds and the reason before the client waits because of a rate limit."""

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json: ...

    async def post(self, path: str, document: object | None = None, *, timeout_s: float = 300.0) -> Json: ...

    def pages(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[Json]:
        """All entries of a paginated list."""
        ...
