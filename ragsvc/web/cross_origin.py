"""Cross-origin resource sharing: which web pages may call the API from a browser (Fetch standard §3.3, CORS protocol).

Two ASGI layers. ``SharedResponses`` is outermost and adds headers to every response, so that a page can also read
errors, streams and encrypted responses. ``Preflights`` answers the question that a browser asks before a request; it is
inside ``RequestMiddleware``, so that these requests have an id and are counted too.

Listed origins may send credentials (cookies or client certificates of a proxy in front). The cookie of a session of the
web pages is none of them: requests of other origins are refused with it (``ragsvc.web.sessions``).
``*`` never allows them: the Fetch standard forbids the combination.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ragsvc.core.origins import AllowedOrigins
from ragsvc.web.public_address import HTTP

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

PREFLIGHT_MAX_AGE_S: Final = 7200
"""Seconds that browsers may remember a preflight; Chromium uses no more."""

_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADER_NAMES: Final = re.compile(rb"[\w!#$%&'*+.^`|~-]+(?:[ \t]*,[ \t]*[\w!#$%&'*+.^`|~-]+)*")
_REQUEST_METHOD: Final = b"access-control-request-method"
_REQUEST_HEADERS: Final = b"access-control-request-headers"
_ALWAYS_READABLE: Final = frozenset(
    {
        b"cache-control",
        b"content-language",
        b"content-length",
        b"content-type",
        b"expires",
        b"last-modified",
        b"pragma",
        b"set-cookie",
        b"vary",
        b"connection",
    }
)
"""CORS-safelisted response headers, and headers that no script can read or needs."""


def _is_preflight(scope: Scope) -> bool:
    if scope["type"] != HTTP or scope.get("method") != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return b"origin" in names and _REQUEST_METHOD in names


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)


def _sharing_headers(origins: AllowedOrigins, origin: bytes | None) -> list[Header]:
    """The headers that share a response with an origin; none if the origin is not allowed."""
    if origin is None or origin.decode("latin-1") not in origins:
        return []
    if origins.everything:
        return [(b"access-control-allow-origin", b"*")]
    return [(b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]


class SharedResponses:
    """Adds the CORS headers to all responses to allowed origins; a page may read every header that it gets.

    With listed origins every response varies by ``Origin``, also one without CORS headers: a cache that has stored it
    must not give it to a page of an allowed origin.
    """

    def __init__(self, app: ASGIApp, origins: AllowedOrigins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != HTTP:
            await self._app(scope, receive, send)
            return
        sharing = _sharing_headers(self._origins, _header(scope, b"origin"))
        preflight = _is_preflight(scope)

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not self._origins.everything:
                    headers = _varied(headers)
                exposed = _exposed(headers) if sharing and not preflight else b""
                headers += sharing
                if exposed:
                    headers.append((b"access-control-expose-headers", exposed))
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_shared)


def _varied(headers: list[Header]) -> list[Header]:
    """The headers with ``Origin`` in ``Vary``."""
    vary = [value for name, value in headers if name.lower() == b"vary"]
    names = {part.strip().lower() for value in vary for part in value.split(b",")}
    if names & {b"origin", b"*"}:
        return headers
    return [header for header in headers if header[0].lower() != b"vary"] + [(b"vary", b", ".join([*vary, b"Origin"]))]


def _exposed(headers: list[Header]) -> bytes:
    names = {name.lower() for name, _ in headers}
    names = {name for name in names - _ALWAYS_READABLE if not name.startswith(b"access-control-")}
    return b", ".join(sorted(names))


class Preflights:
    """Answers preflights of allowed origins; those of other origins get the answer of a service without CORS.

    Every method and header is allowed: access is decided by the API key of the request that follows, whose errors the
    page can then read. The names of headers are repeated because ``*`` does not include ``Authorization``.
    """

    def __init__(self, app: ASGIApp, origins: AllowedOrigins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_preflight(scope) or not _sharing_headers(self._origins, _header(scope, b"origin")):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": _permissions(scope)})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _permissions(scope: Scope) -> list[Header]:
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"%d" % PREFLIGHT_MAX_AGE_S),
        (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
    names = (_header(scope, _REQUEST_HEADERS) or b"").strip()
    if _HEADER_NAMES.fullmatch(names):
        headers.append((b"access-control-allow-headers", names))
    return headers
