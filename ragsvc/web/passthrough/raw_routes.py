"""Routes that answer without the framework's layers: for the paths that carry the traffic of a gateway.

A handler that declares ``opt["raw"]`` is described, checked and (for unusual spellings of its path) served by Litestar;
requests for exactly its path and method go straight to the raw answer, through the same gate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from ragsvc.services.access_control import Access
from ragsvc.web.auth import Requirement, let_in, requirement_of
from ragsvc.web.context import context_of
from ragsvc.web.errors import is_unexpected, log_unexpected
from ragsvc.web.passthrough.raw_responses import send_error

RawAnswer = Callable[[Scope, Receive], Awaitable[ASGIResponse]]
"""Answers a request that the gate let in. What it raises is rendered like all errors; then the response is sent."""


class RawRoutes:
    """Wraps an ASGI application; takes the requests that have a raw answer."""

    def __init__(self, inner: ASGIApp, app: Litestar, *, access: Access) -> None:
        """``app`` has the handlers, ``inner`` serves all other requests."""
        self._inner = inner
        self._access = access
        self._routes = _raw_routes(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._routes.get((scope.get("method"), scope["path"])) if scope["type"] == ScopeType.HTTP else None
        if found is None:
            await self._inner(scope, receive, send)
            return
        answer, need, body_limit = found
        context = context_of(scope)
        scope["path_template"] = scope["path"]
        try:
            await let_in(self._access, context, need, body_limit)
            response = await answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - as in Litestar, every error of a handler becomes an answer
            if is_unexpected(error):
                log_unexpected(error, request_id=context.request_id, encrypted=context.encrypted)
            await send_error(error, context.request_id, send)
            return
        await response(scope, receive, send)


def _raw_routes(app: Litestar) -> dict[tuple[object, str], tuple[RawAnswer, Requirement, float]]:
    routes: dict[tuple[object, str], tuple[RawAnswer, Requirement, float]] = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or (answer := handler.opt.get("raw")) is None:
                continue
            limit = handler.resolve_request_max_body_size() or float("inf")
            for method in handler.http_methods:
                routes[(str(method), route.path)] = (answer, requirement_of(handler.opt), limit)
    return routes
