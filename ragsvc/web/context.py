"""The context of a request, which ``RequestMiddleware`` puts into ``scope["ragsvc"]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Request

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import Unauthorized
from ragsvc.services.access_control import LiveKey

SCOPE_KEY = "ragsvc"


class RequestContext:
    """Id and headers of a request and, after authentication, its key."""

    __slots__ = (
        "address",
        "admitted",
        "body_limit",
        "encrypted",
        "error_code",
        "headers",
        "live",
        "may_wait",
        "request_id",
        "session_token",
        "started",
        "stream_failed",
    )

    def __init__(
        self, request_id: str, started: float, headers: dict[bytes, bytes], *, address: str | None = None
    ) -> None:
        """``started`` is monotonic seconds; ``headers`` has the last value of each name."""
        self.request_id = request_id
        self.started = started
        self.headers = headers
        self.address = address
        """The client's address, or its IPv6 network; ``None`` if unknown, as behind a Unix socket."""
        self.live: LiveKey | None = None
        self.admitted = False
        self.session_token: bytes | None = None
        """The token of the session whose cookie authenticated the request."""
        self.encrypted = False
        self.error_code: str | None = None
        self.stream_failed = False
        """Whether a streamed answer ended with an error, after a status of success."""
        self.may_wait = False
        """Whether the response begins when the client wants it: an upload waits until its document is ready."""
        self.body_limit = float("inf")
        """Maximum bytes of a body that the route accepts."""

    def note_stream_failure(self, code: str) -> None:
        """Record that a streamed answer ended with the error of this code."""
        self.stream_failed = True
        self.error_code = code

    @property
    def principal(self) -> Principal:
        """The caller. Raises ``Unauthorized`` on a public route, where nobody is authenticated."""
        if self.live is None:
            raise Unauthorized("This route needs an API key.")
        return self.live.principal


def context_of(scope: Mapping[str, Any]) -> RequestContext:
    """The context of an ASGI scope (``request.scope``)."""
    context = scope[SCOPE_KEY]
    assert isinstance(context, RequestContext)  # noqa: S101 - set by RequestMiddleware; narrows the type
    return context


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """The caller of a request, on a route that requires a key."""
    return context_of(request.scope).principal
