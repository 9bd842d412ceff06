"""The address of the service as its clients see it, for absolute URLs, ``Location`` and the OpenAPI document.

It is the setting ``public_url``, else what a trusted proxy states (``X-Forwarded-Host``, ``X-Forwarded-Prefix``; the
server reads them, see ``ForwardedAddresses``), else the host of the request. A path prefix is only written, never read:
the proxy has removed it from the path. Paths with a prefix that a client could choose would pass the proxy's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from ragsvc.core.network import HOST_AND_PORT, PATH_PREFIX

if TYPE_CHECKING:
    from litestar.enums import ScopeType
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

HTTP: Final = cast("ScopeType", "http")
"""The type of scopes of requests; Litestar declares an enumeration, which is not imported before the port opens."""


FORWARDED_KEY = "ragsvc.forwarded"
"""Key of the ``ForwardedAddress`` in an ASGI scope."""
_ADDRESS_KEY = "ragsvc.public_address"


class ForwardedAddress(msgspec.Struct, frozen=True):
    """Host and path prefix of a request as a trusted proxy received it; empty where the proxy states none."""

    host: str = ""
    prefix: str = ""


_NOT_FORWARDED: Final = ForwardedAddress()


class ForwardedAddresses:
    """ASGI layer of the server: reads the headers of trusted proxies, and of nobody else.

    Outside of uvicorn's layer for ``X-Forwarded-For``, which replaces the address of the proxy by that of the client.
    """

    def __init__(self, app: ASGIApp, is_trusted: Callable[[str], bool]) -> None:
        self._app = app
        self._is_trusted = is_trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == HTTP:
            client = scope.get("client")
            if self._is_trusted(client[0] if client else ""):
                scope[FORWARDED_KEY] = _forwarded(scope)  # type: ignore[literal-required]  # our own key
        await self._app(scope, receive, send)


def _forwarded(scope: Scope) -> ForwardedAddress:
    """The last value of each header: earlier ones may be the client's. Malformed values count as absent."""
    last = {name: value for name, value in scope["headers"] if name.startswith(b"x-forwarded-")}
    host = last.get(b"x-forwarded-host", b"").decode("latin-1").rpartition(",")[2].strip()
    prefix = last.get(b"x-forwarded-prefix", b"").decode("latin-1").rpartition(",")[2].strip().rstrip("/")
    return ForwardedAddress(
        host if HOST_AND_PORT.fullmatch(host) else "", prefix if PATH_PREFIX.fullmatch(prefix) else ""
    )


class PublicAddress:
    """ASGI layer that knows the public address: it completes ``Location`` and serves ``service_url``."""

    def __init__(self, app: ASGIApp, public_url: str | None) -> None:
        self._app = app
        self._url = None if public_url is None else public_url.rstrip("/")
        self._prefix = "" if self._url is None else urlsplit(self._url).path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != HTTP:
            await self._app(scope, receive, send)
            return
        host = b""  # of the request as it arrived: encrypted requests replace the headers of the scope
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                break
        scope[_ADDRESS_KEY] = (self, host)  # type: ignore[literal-required]  # our own key
        prefix = self.prefix(scope)
        if not prefix:
            await self._app(scope, receive, send)
            return

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, prefix.encode() + value if name == b"location" and value.startswith(b"/") else value)
                    for name, value in message.get("headers", ())
                ]
            await send(message)

        await self._app(scope, receive, send_with_prefix)

    def prefix(self, scope: Mapping[str, Any]) -> str:
        """The path prefix that the client's URL has."""
        if self._url is not None:
            return self._prefix
        forwarded: ForwardedAddress | None = scope.get(FORWARDED_KEY)
        return "" if forwarded is None else forwarded.prefix

    def url(self, scope: Mapping[str, Any], host: bytes) -> str:
        """The absolute URL of the service for a request with this header ``Host``; few requests need it."""
        if self._url is not None:
            return self._url
        forwarded: ForwardedAddress = scope.get(FORWARDED_KEY) or _NOT_FORWARDED
        return f"{scope['scheme']}://{forwarded.host or _host_of(scope, host)}{forwarded.prefix}"

    def server(self, scope: Mapping[str, Any]) -> str:
        """The configured URL, or else the path of the service."""
        return self._url or self.prefix(scope) or "/"


def _host_of(scope: Mapping[str, Any], host: bytes) -> str:
    if host:
        return host.decode("latin-1")
    name, port = scope.get("server") or ("localhost", None)  # HTTP/1.0 may leave 'Host' out
    return name if port is None else f"{name}:{port}"


def service_url(scope: Mapping[str, Any]) -> str:
    """Scheme, host and path prefix of the service, without a slash at the end."""
    address, host = _address_of(scope)
    return address.url(scope, host)


def server_url(scope: Mapping[str, Any]) -> str:
    """The service in an OpenAPI document, as a path if no absolute URL is configured: relative to the document."""
    address, _ = _address_of(scope)
    return address.server(scope)


def _address_of(scope: Mapping[str, Any]) -> tuple[PublicAddress, bytes]:
    found: tuple[PublicAddress, bytes] = scope[_ADDRESS_KEY]
    return found
