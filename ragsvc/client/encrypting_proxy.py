"""A local OpenAI-compatible endpoint that encrypts: an ASGI application over the encrypting transport.

It has no API key; callers send theirs. It never passes on a plaintext response as if it had been encrypted: only errors
may arrive in plaintext, and they are marked with ``x-ragsvc-encrypted: false``.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

from ragsvc.client.encryption_mode import bearer_of
from ragsvc.client.transport import ENCRYPTED
from ragsvc.core.defaults import DEFAULT_PROXY_BODY_BYTES
from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.core.gateway.event_stream import write_event
from ragsvc.core.network import is_loopback

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
MakeTransport = Callable[[], httpx.AsyncBaseTransport]

MAX_CLIENTS: Final = 64
_EVENTS = "text/event-stream"
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"host",
    }
)


class _CachedClient:
    """The HTTP client of one API key, and the number of requests that use it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.users = 0


class _ClientCache:
    """HTTP clients by API key, so that API keys share neither connections nor encapsulated secrets.

    Idle clients are closed when there are more than ``MAX_CLIENTS``.
    """

    def __init__(self, make_transport: MakeTransport) -> None:
        self._make_transport = make_transport
        self._clients: OrderedDict[bytes, _CachedClient] = OrderedDict()

    @asynccontextmanager
    async def use(self, api_key: str) -> AsyncGenerator[httpx.AsyncClient, None]:
        """The API key's client; it stays open for the block."""
        name = hashlib.sha256(api_key.encode()).digest()
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self._open()
        self._clients.move_to_end(name)
        client.users += 1
        try:
            yield client.http
        finally:
            client.users -= 1
            await self._shrink()

    def _open(self) -> _CachedClient:
        return _CachedClient(httpx.AsyncClient(transport=self._make_transport(), timeout=None))  # noqa: S113 - the transport has the limit

    async def _shrink(self) -> None:
        idle = [name for name, client in self._clients.items() if not client.users]
        for name in idle[: max(0, len(self._clients) - MAX_CLIENTS)]:
            await self._clients.pop(name).http.aclose()

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.http.aclose()
        self._clients.clear()


class EncryptingProxy:
    """The ASGI application. ``make_transport`` creates the transport of one client for ``origin``."""

    def __init__(
        self, origin: str, make_transport: MakeTransport, *, max_body_bytes: int = DEFAULT_PROXY_BODY_BYTES
    ) -> None:
        self._origin = httpx.URL(origin)
        self._prefix = self._origin.raw_path.partition(b"?")[0].rstrip(b"/")
        self._max_body_bytes = max_body_bytes
        self._clients = _ClientCache(make_transport)

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        if not is_loopback(_host_of(dict(headers))):  # DNS rebinding: a web page's own host name
            await _fail(
                send, 403, "forbidden", "The proxy accepts only localhost and loopback addresses in the Host header."
            )
            return
        content = await self._read(receive)
        if content is None:
            await _fail(send, 413, "request_too_large", f"The request body may have {self._max_body_bytes} bytes.")
            return
        query: bytes = scope["query_string"]
        target: bytes = self._prefix + scope["raw_path"] + (b"?" + query if query else b"")
        request = httpx.Request(
            scope["method"],
            self._origin.copy_with(raw_path=target),
            headers=[(name, value) for name, value in headers if name not in _HOP_BY_HOP],
            content=content,
        )
        async with self._clients.use(bearer_of(request)) as http:
            await self._forward(http, request, send)

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            if not message.get("more_body"):
                return bytes(body)

    @staticmethod
    async def _forward(http: httpx.AsyncClient, request: httpx.Request, send: Send) -> None:
        try:
            reply = await http.send(request, stream=True)
        except CryptoFailure as error:
            await _fail(send, 502, error.code, _with_notes(error))
        except ConfigurationError as error:
            await _fail(send, 400, "not_encryptable", error.message)
        except httpx.TimeoutException:
            await _fail(send, 504, "upstream_timeout", "The service did not answer in time.")
        except httpx.TransportError as error:
            await _fail(send, 502, "upstream_error", f"The service cannot be reached ({type(error).__name__}).")
        else:
            await _relay(reply, send)


async def _relay(reply: httpx.Response, send: Send) -> None:
    """Pass a response on. If it breaks off, end an event stream with an error event; otherwise close the connection."""
    headers = [(name.lower(), value) for name, value in reply.headers.raw if name.lower() not in _HOP_BY_HOP]
    if reply.extensions.get(ENCRYPTED) is False:
        headers.append((b"x-ragsvc-encrypted", b"false"))
    await send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
    tail = b""
    try:
        async for piece in reply.aiter_bytes():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except (CryptoFailure, httpx.TransportError) as error:
        if not reply.headers.get("content-type", "").startswith(_EVENTS):
            return  # the server closes the connection of an unfinished response
        code = error.code if isinstance(error, CryptoFailure) else "upstream_error"
        tail = write_event(_error_body(code, "The encrypted response was truncated or changed."))
    finally:
        await reply.aclose()
    await send({"type": "http.response.body", "body": tail, "more_body": False})


def _host_of(headers: Mapping[bytes, bytes]) -> str:
    host = headers.get(b"host", b"").decode("latin-1")
    return httpx.URL(f"http://{host}").host if host else ""


def _with_notes(error: CryptoFailure) -> str:
    return " ".join([error.message, *getattr(error, "__notes__", ())])


def _error_body(code: str, message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "gateway_error", "param": None, "code": code}}).encode()


async def _fail(send: Send, status: int, code: str, message: str) -> None:
    body = _error_body(code, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers.append((b"x-should-retry", b"false" if status < 500 or code == CryptoFailure.code else b"true"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
