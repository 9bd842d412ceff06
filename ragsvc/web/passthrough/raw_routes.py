"""Routes that bypass the layers of Litestar, for the paths with most of the traffic.

A handler that declares ``opt["raw"]`` is a normal route for Litestar, which documents it and serves other spellings of
its path. Requests for exactly its path and method are answered by the raw function, with the same access control.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from ragsvc.services.access_control import Access
from ragsvc.web.auth import Requirement, body_limit_of_handler, let_in, refuse_encoded_slash, requirement_of
from ragsvc.web.context import context_of
from ragsvc.web.passthrough.raw_responses import answer_error
from ragsvc.web.query_parameters import check_parameters, known_parameters

RawAnswer = Callable[[Scope, Receive], Awaitable[ASGIResponse]]
"""Answers an admitted request. Its exceptions are rendered like those of all routes."""

_RawRoute = tuple[RawAnswer, Requirement, float, frozenset[str] | None]
"""The answer of a route, what it requires, its limit of a body in bytes, and the query parameters it knows."""


class RawRoutes:
    """ASGI middleware that answers the requests of raw routes and passes on all others."""

    def __init__(self, inner: ASGIApp, app: Litestar, *, access: Access, files_limit_bytes: int) -> None:
        """``app`` has the handlers; ``inner`` serves all other requests."""
        self._inner = inner
        self._access = access
        self._routes = _raw_routes(app, files_limit_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope.get("method"), scope["path"])) if scope["type"] == ScopeType.HTTP else None
        if route is None:
            await self._inner(scope, receive, send)
            return
        answer, requirement, body_limit, query_parameters = route
        context = context_of(scope)
        scope["path_template"] = scope["path"]
        try:
            refuse_encoded_slash(scope, takes_paths=False)
            await let_in(self._access, context, scope, requirement, body_limit)
            if query := scope["query_string"]:
                check_parameters(query, query_parameters)
            response = await answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - as in Litestar, every exception of a handler becomes a response
            await answer_error(error, context, send)
            return
        await response(scope, receive, send)


def _raw_routes(app: Litestar, files_limit_bytes: int) -> dict[tuple[object, str], _RawRoute]:
    routes: dict[tuple[object, str], _RawRoute] = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or (answer := handler.opt.get("raw")) is None:
                continue
            limit = body_limit_of_handler(handler, files_limit_bytes=files_limit_bytes)
            for method in handler.http_methods:
                requirement = requirement_of(handler.opt)
                routes[(str(method), route.path)] = (answer, requirement, limit, known_parameters(handler))
    return routes
