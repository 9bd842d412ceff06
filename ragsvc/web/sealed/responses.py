"""Responses of the HPKE and EHBP modes: ASGI ``send`` callables that take a plain response and send it encrypted.

Headers are not encrypted, so only those that reveal nothing about the content pass. ``Content-Disposition``, which may
contain a file name, does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from litestar.types import HTTPResponseStartEvent, Message, Receive, Scope, Send

from ragsvc.crypto import ehbp, hpke_stream, sealed_headers, sealed_requests
from ragsvc.web.errors import RenderedError
from ragsvc.web.sealed.offloading import run_in_thread_if_large
from ragsvc.web.sealed.plain_requests import JSON_TYPE
from ragsvc.web.sealed.recognition import INNER_CONTENT_TYPE

Header = tuple[bytes, bytes]

EVENTS_TYPE: Final = b"text/event-stream"
PAD_EVENTS_TO: Final = 512
"""Server-sent events are padded to a multiple of this many bytes, so that lengths do not reveal tokens."""
_KEPT = frozenset(
    {
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
        b"www-authenticate",
        b"allow",
        b"location",
        b"preference-applied",
        b"vary",
        b"connection",
        b"x-accel-buffering",
    }
)
_NO_STORE = (b"cache-control", b"no-store")
_ONE_SHOT_TYPE = (b"content-type", sealed_headers.ONE_SHOT_MEDIA_TYPE.encode())
_STREAM_TYPE = (b"content-type", sealed_headers.STREAM_MEDIA_TYPE.encode())
_NONCE_HEADER = ehbp.RESPONSE_NONCE_HEADER.lower().encode()
_NO_CONTENT = 204


class _StreamRefusal(msgspec.Struct, frozen=True):
    """The error as the Oryxen document specifies it: its ``code`` is the HTTP status."""

    message: str = "Streaming is not supported with HPKE encryption. Set stream: false."
    type: str = "proxy_error"
    code: int = 400


STREAM_REFUSED: Final = msgspec.json.encode({"error": _StreamRefusal()})
"""The body of the error that answers ``stream: true`` in one-shot mode."""


class SealedResponse(Protocol):
    """ASGI ``send`` for the application: takes the messages of a plain response."""

    async def __call__(self, message: Message) -> None:
        """Seal the next message."""
        ...

    async def fail(self, error: RenderedError) -> None:
        """Seal the error that ended the application, where the format still allows it; else leave the answer cut."""
        ...


async def refuse_stream(_scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI application that answers ``stream: true`` in one-shot mode with the error of the Oryxen document."""
    headers = [(b"content-type", JSON_TYPE)]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": STREAM_REFUSED, "more_body": False})


class OneShotResponse:
    """Collects the response and seals it as one message.

    An event stream does not fit into one message: the client gets the error of ``refuse_stream``, and ``stop`` is
    called to end the application.
    """

    def __init__(self, pending: sealed_requests.PendingRequest, send: Send, stop: Callable[[], object]) -> None:
        self._pending = pending
        self._send = send
        self._stop = stop
        self._status = 200
        self._headers: list[Header] = []
        self._inner_type = JSON_TYPE
        self._body = bytearray()
        self._done = False

    async def __call__(self, message: Message) -> None:
        if self._done:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers, self._inner_type = _outer_headers(message)
            if self._inner_type.startswith(EVENTS_TYPE):
                await self._refuse_stream()
                self._stop()
        elif message["type"] == "http.response.body":
            self._body += message["body"]
            if not message["more_body"]:
                await self._finish()

    async def _refuse_stream(self) -> None:
        self._status, self._headers, self._inner_type = 400, [], JSON_TYPE
        self._body = bytearray(STREAM_REFUSED)
        await self._finish()

    async def fail(self, error: RenderedError) -> None:
        """Seal the error, unless the response was sent already."""
        if not self._done:
            self._status, self._inner_type = error.status, JSON_TYPE
            self._headers = _error_headers(error)
            self._body = bytearray(error.content)
            await self._finish()

    async def _finish(self) -> None:
        self._done = True
        sealed = await run_in_thread_if_large(self._pending.seal_response, bytes(self._body))
        self._body.clear()
        headers = [_ONE_SHOT_TYPE, (b"content-length", b"%d" % len(sealed)), (INNER_CONTENT_TYPE, self._inner_type)]
        await _start(self._send, self._status, [*headers, *self._headers])
        await self._send({"type": "http.response.body", "body": sealed, "more_body": False})


class StreamedResponse:
    """Seals the response while the application sends it; only a complete response gets the authenticated end."""

    def __init__(self, pending: sealed_requests.PendingRequest, send: Send) -> None:
        self._sealer = pending.stream_response()
        self._send = send
        self._events = False
        self._started = False

    async def __call__(self, message: Message) -> None:
        """Seal the next message: events are padded and sent at once, other bodies are sent in full chunks."""
        if message["type"] == "http.response.start":
            headers, inner_type = _outer_headers(message)
            await self._begin(message["status"], headers, inner_type)
        elif message["type"] == "http.response.body":
            await self._write(message["body"], last=not message["more_body"])

    async def fail(self, error: RenderedError) -> None:
        """Seal the error if nothing was sent; otherwise the missing authenticated end shows the failure."""
        if not self._started:
            await self._begin(error.status, _error_headers(error), JSON_TYPE)
            await self._write(error.content, last=True)

    async def _begin(self, status: int, headers: list[Header], inner_type: bytes) -> None:
        self._started = True
        self._events = inner_type.startswith(EVENTS_TYPE)
        await _start(self._send, status, [_STREAM_TYPE, (INNER_CONTENT_TYPE, inner_type), *headers])
        self._sealer.start_with_first_chunk()

    async def _write(self, body: bytes, *, last: bool) -> None:
        if self._events and body.endswith(b"\n\n"):
            body = hpke_stream.pad_event_stream(body, multiple=PAD_EVENTS_TO)
        sealed = self._sealer.finish(body) if last else self._sealer.write(body, flush=self._events)
        if sealed or last:
            await self._send({"type": "http.response.body", "body": sealed, "more_body": not last})


class EhbpResponse:
    """Seals the response into EHBP frames, one for each message. The protocol has no authenticated end."""

    def __init__(self, exchange: ehbp.ServerExchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers, inner_type = _outer_headers(message)
            await self._begin(message["status"], headers, inner_type)
        elif message["type"] == "http.response.body":
            sealed = await run_in_thread_if_large(self._exchange.seal_response, message["body"])
            await self._send({"type": "http.response.body", "body": sealed, "more_body": message["more_body"]})

    async def fail(self, error: RenderedError) -> None:
        """Seal the error, if nothing was sent."""
        if not self._started:
            await self._begin(error.status, _error_headers(error), JSON_TYPE)
            await self({"type": "http.response.body", "body": error.content, "more_body": False})

    async def _begin(self, status: int, headers: list[Header], inner_type: bytes) -> None:
        self._started = True
        nonce = (_NONCE_HEADER, self._exchange.response_nonce_header.encode())
        await _start(self._send, status, [(b"content-type", inner_type), nonce, *headers])


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    """Send status and headers; 204 becomes 200, because the sealed body is never empty."""
    status = 200 if status == _NO_CONTENT else status
    await send({"type": "http.response.start", "status": status, "headers": [*headers, _NO_STORE]})


def _outer_headers(message: HTTPResponseStartEvent) -> tuple[list[Header], bytes]:
    """The headers that stay outside the encryption, and the media type of the plain response."""
    kept: list[Header] = []
    inner_type = JSON_TYPE
    for name, value in message["headers"]:
        lower = name.lower()
        if lower == b"content-type":
            inner_type = value
        elif lower in _KEPT:
            kept.append((lower, value))
    return kept, inner_type


def _error_headers(error: RenderedError) -> list[Header]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    return [(name, value) for name, value in pairs if name in _KEPT]
