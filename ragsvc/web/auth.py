"""Access control for all routes: authentication, scopes, request limits, body limits.

A handler declares in ``opt["scope"]`` what it requires: a ``Scope`` or an ``AccessRequirement``. Without this
declaration the application does not start, so no route is public by mistake.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, RouteHandlerType, Send
from litestar.types import Scope as ASGIScope

from ragsvc.core.access.principal import Scope, require_scope
from ragsvc.core.errors import ConfigurationError, RouteNotFound, TooLarge
from ragsvc.core.validation import invalid_value
from ragsvc.services.access_control import Access, LiveKey
from ragsvc.web.context import SCOPE_KEY, RequestContext
from ragsvc.web.query_parameters import check_parameters, known_parameters
from ragsvc.web.sessions import key_of_cookie

SMALL_BODY_BYTES: Final = 1 << 20
"""The largest JSON body of a route that does not declare ``opt["large_body"]``: it is decoded on the event loop."""


class AccessRequirement(Enum):
    """Requirements of a route other than a scope."""

    PUBLIC = "public"
    ANY_KEY = "any key"
    CHAT_OR_PROXY = "chat.plain or proxy"


Requirement = Scope | AccessRequirement


class _RouteRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler declares, computed at its first request.

    ``lists_methods``: the handler is the framework's answer to OPTIONS.
    """

    requirement: Requirement
    body_limit: float
    query_parameters: frozenset[str] | None
    may_wait: bool
    takes_paths: bool
    lists_methods: bool


class AccessGate:
    """Litestar middleware in pure ASGI; it runs after routing, so that ``scope["route_handler"]`` is set."""

    def __init__(self, app: ASGIApp, *, access: Access, body_limit_bytes: int, files_limit_bytes: int) -> None:
        """``files_limit_bytes`` is the limit of routes whose bodies may have files in base64."""
        self._app = app
        self._files_limit_bytes = files_limit_bytes
        self._body_limit_bytes = body_limit_bytes
        self._access = access
        self._rules: dict[int, _RouteRules] = {}

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Admit the request or raise; ``RequestMiddleware`` ends the count of parallel requests."""
        context: RequestContext = scope[SCOPE_KEY]  # type: ignore[literal-required]  # our own key
        handler = scope["route_handler"]
        rules = self._rules.get(id(handler))
        if rules is None:
            rules = self._rules[id(handler)] = self._rules_of(handler)
        context.may_wait = rules.may_wait
        if rules.lists_methods:
            await _send_methods(self._methods_of(scope), send)
            return
        refuse_encoded_slash(scope, takes_paths=rules.takes_paths)
        await let_in(self._access, context, scope, rules.requirement, rules.body_limit)
        if query := scope.get("query_string"):
            check_parameters(query, rules.query_parameters)
        if context.live is not None:
            scope["user"] = context.live.principal
        await self._app(scope, receive, send)

    def _rules_of(self, handler: RouteHandlerType) -> _RouteRules:
        limit: float = self._body_limit_bytes  # of plain ASGI handlers, which cannot set a limit
        parameters: frozenset[str] | None = None
        if isinstance(handler, HTTPRouteHandler):
            limit = body_limit_of_handler(handler, files_limit_bytes=self._files_limit_bytes)
            parameters = known_parameters(handler)
        # Litestar answers OPTIONS itself, only with the list of methods; browsers send it without a key. A plain ASGI
        # handler gets all methods, so the method of its first request must not decide what later ones require.
        lists_methods = getattr(handler, "http_methods", None) == {"OPTIONS"}
        requirement = AccessRequirement.PUBLIC if lists_methods else requirement_of(handler.opt)
        if requirement is AccessRequirement.PUBLIC:
            parameters = None  # probes and browsers add parameters against caches
        return _RouteRules(
            requirement=requirement,
            body_limit=limit,
            query_parameters=parameters,
            may_wait=bool(handler.opt.get("streams_body")),
            takes_paths=any(":path}" in path for path in handler.paths),
            lists_methods=lists_methods,
        )

    def _methods_of(self, scope: ASGIScope) -> list[str]:
        """The methods of all handlers of a path; the framework's answer to OPTIONS names those of one of them."""
        template = scope["path_template"]
        return next(
            sorted({method for handler in route.route_handlers for method in map(str, handler.http_methods)})
            for route in scope["litestar_app"].routes
            if isinstance(route, HTTPRoute) and route.path_format == template
        )


async def _send_methods(methods: list[str], send: Send) -> None:
    headers = [(b"allow", ", ".join(methods).encode())]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def let_in(
    access: Access, context: RequestContext, scope: ASGIScope, requirement: Requirement, body_limit: float
) -> None:
    """Authenticate a request, by a key in its headers or else by the cookie of a session, and check what it may do.

    Checked are its scope, its limits and its ``Content-Length``.

    Raises:
        Unauthorized, KeyInactive, ForeignRequest, PolicyDenied, RateLimited, TooLarge, InvalidRequest.
    """
    context.body_limit = body_limit
    if requirement is not AccessRequirement.PUBLIC:
        live = context.live
        if live is None:
            credential = credential_of(context.headers)
            if not credential and access.sessions is not None and not context.encrypted:
                live = await key_of_cookie(access.sessions, context, scope)
            if live is None:
                live = await access.authenticate(credential, address=context.address)
            context.live = live
        if isinstance(requirement, Scope):
            require_scope(live.principal, requirement)
        elif requirement is AccessRequirement.CHAT_OR_PROXY and Scope.PROXY not in live.principal.scopes:
            require_scope(live.principal, Scope.CHAT_PLAIN)
        admit(context, live)
    length = context.headers.get(b"content-length")
    if length is not None:
        check_length(length, body_limit)


def refuse_encoded_slash(scope: ASGIScope, *, takes_paths: bool) -> None:
    """Refuse ``%2F`` in the path of a route, unless a parameter takes whole paths. Raises ``RouteNotFound``.

    The server decodes paths before they are routed, and an encoded slash is a part of a name and not a border (RFC 3986
    §2.2): ``DELETE /v1/providers/a%2Fkey`` would delete a key and not the provider ``a/key``.
    """
    raw: bytes = scope.get("raw_path") or b""
    if b"%2" in raw and b"%2f" in raw.lower() and not takes_paths:
        raise RouteNotFound("Unknown request URL: a name in it contains an encoded slash, which no name has.")


def admit(context: RequestContext, live: LiveKey) -> None:
    """Count a request against the limits of its key; further calls change nothing. Raises ``RateLimited``."""
    if not context.admitted:
        live.gate.enter(time.monotonic())
        context.admitted = True


def body_limit_of_handler(handler: HTTPRouteHandler, *, files_limit_bytes: int) -> float:
    """The largest body of a route in bytes: a decoder that takes larger ones would block the event loop."""
    if handler.opt.get("takes_files"):
        return files_limit_bytes
    limit = handler.resolve_request_max_body_size()
    if limit is None:
        return float("inf")
    return limit if handler.opt.get("large_body") else min(limit, SMALL_BODY_BYTES)


def requirement_of(opt: Mapping[str, Any]) -> Requirement:
    """The requirement that a handler declares. Raises ``ConfigurationError`` if it declares none."""
    requirement = opt.get("scope")
    if isinstance(requirement, Scope | AccessRequirement):
        return requirement
    raise ConfigurationError(["a route handler declares no 'scope' in its opt"])


def credential_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key in ``Authorization`` (with or without ``Bearer``), else in ``x-api-key``, else in ``api-key``."""
    return headers.get(b"authorization") or headers.get(b"x-api-key") or headers.get(b"api-key")


def check_length(content_length: bytes, limit: float) -> None:
    """Refuse a body by its ``Content-Length``, before it is read.

    Raises:
        TooLarge: more than the route accepts.
        InvalidRequest: not a number.
    """
    if not content_length.isdigit():
        raise invalid_value("Content-Length", "Expected a number of bytes")
    if int(content_length) > limit:
        raise body_too_large(limit)


def body_too_large(limit: float) -> TooLarge:
    """The error for a request body of more than ``limit`` bytes."""
    return TooLarge(f"The request body is too large: at most {int(limit)} bytes are accepted.", limit_bytes=int(limit))
