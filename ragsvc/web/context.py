"""What one request carries from the edge inwards, under ``scope["ragsvc"]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Request

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import Unauthorized
from ragsvc.services.access_control import LiveKey

SCOPE_KEY = "ragsvc"


class RequestContext:
    """Identity of a request and, once the gate let it in, of its caller."""

    __slots__ = ("admitted", "body_limit", "encrypted", "headers", "live", "request_id", "started")

    def __init__(self, request_id: str, started: float, headers: dict[bytes, bytes]) -> None:
        """``started`` is monotonic seconds; ``headers`` are the last of each name."""
        self.request_id = request_id
        self.started = started
        self.headers = headers
        self.live: LiveKey | None = None
        self.admitted = False
        self.encrypted = False
        self.body_limit = float("inf")
        """Bytes that the route reads of a body."""

    @property
    def principal(self) -> Principal:
        """The caller.

        Raises:
            Unauthorized: the route is public and nobody was asked.
        """
        if self.live is None:
            raise Unauthorized("This route needs an API key.")
        return self.live.principal


def context_of(scope: Mapping[str, Any]) -> RequestContext:
    """The context of an ASGI scope (``request.scope``)."""
    context = scope[SCOPE_KEY]
    assert isinstance(context, RequestContext)  # noqa: S101 - the edge put it there; narrows the type
    return context


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Who sent a request, on a route that needs a key."""
    return context_of(request.scope).principal
