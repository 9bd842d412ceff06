"""The gate before every route: who calls, may they, and do their limits leave room.

A handler says what it needs in ``opt["scope"]``: a ``Scope``, ``AccessRequirement.ANY_KEY`` or
``AccessRequirement.PUBLIC``. Saying nothing
keeps the application from starting, so a route can never be open by oversight.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum
from typing import Any

from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Send
from litestar.types import Scope as ASGIScope

from ragsvc.core.access.principal import Scope, require_scope
from ragsvc.core.errors import ConfigurationError, InvalidRequest, TooLarge
from ragsvc.services.access_control import Access, LiveKey
from ragsvc.web.context import SCOPE_KEY, RequestContext


class AccessRequirement(Enum):
    """What a route asks for when it is not one scope."""

    PUBLIC = "public"
    ANY_KEY = "any key"


Requirement = Scope | AccessRequirement


class AccessGate:
    """Litestar middleware (inside routing, so that ``scope["route_handler"]`` is known); pure ASGI."""

    def __init__(self, app: ASGIApp, *, access: Access, body_limit_bytes: int) -> None:
        self._app = app
        self._body_limit_bytes = body_limit_bytes
        self._access = access
        self._needs: dict[int, tuple[Requirement, float]] = {}

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Let the request in or raise; what was taken is given back by the edge when the answer is out."""
        context: RequestContext = scope[SCOPE_KEY]  # type: ignore[literal-required]  # our own key
        handler = scope["route_handler"]
        known = self._needs.get(id(handler))
        if known is None:
            limit: int | None = self._body_limit_bytes  # that of plain ASGI handlers, which cannot set their own
            if isinstance(handler, HTTPRouteHandler):
                limit = handler.resolve_request_max_body_size()
            # Litestar answers OPTIONS itself, with the methods there are and nothing else: browsers ask without a key
            need = AccessRequirement.PUBLIC if scope.get("method") == "OPTIONS" else requirement_of(handler.opt)
            known = self._needs[id(handler)] = (need, limit or float("inf"))
        need, body_limit = known
        await let_in(self._access, context, need, body_limit)
        if context.live is not None:
            scope["user"] = context.live.principal
        await self._app(scope, receive, send)


async def let_in(access: Access, context: RequestContext, need: Requirement, body_limit: float) -> None:
    """Let a request in or raise; what was taken is given back by the edge when the answer is out.

    Raises:
        Unauthorized, KeyInactive, PolicyDenied, RateLimited, TooLarge, InvalidRequest: see the parts.
    """
    context.body_limit = body_limit
    if need is not AccessRequirement.PUBLIC:
        live = context.live
        if live is None:
            live = context.live = await access.authenticate(credential_of(context.headers))
        if isinstance(need, Scope):
            require_scope(live.principal, need)
        admit(context, live)
    length = context.headers.get(b"content-length")
    if length is not None:
        check_length(length, body_limit)


def admit(context: RequestContext, live: LiveKey) -> None:
    """Count a request against its key's limits, once, however many layers ask. Raises ``RateLimited``."""
    if not context.admitted:
        live.gate.enter(time.monotonic())
        context.admitted = True


def requirement_of(opt: Mapping[str, Any]) -> Requirement:
    """Read what a handler needs.

    Raises:
        ConfigurationError: it does not say.
    """
    need = opt.get("scope")
    if isinstance(need, Scope | AccessRequirement):
        return need
    raise ConfigurationError(["a route handler declares no 'scope' in its opt"])


def credential_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key a client sent: ``Authorization`` (with or without ``Bearer``), else ``x-api-key``, else ``api-key``."""
    return headers.get(b"authorization") or headers.get(b"x-api-key") or headers.get(b"api-key")


def check_length(content_length: bytes, limit: float) -> None:
    """Refuse a body by its announced length, before a byte of it is read.

    Raises:
        TooLarge: over the limit of the route.
        InvalidRequest: not a number.
    """
    if not content_length.isdigit():
        raise InvalidRequest("Content-Length must be a number.")
    if int(content_length) > limit:
        raise TooLarge(f"The request body may have {int(limit)} bytes.", limit_bytes=int(limit))
