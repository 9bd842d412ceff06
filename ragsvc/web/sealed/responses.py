"""Answers on their way out, sealed: ASGI ``send`` callables that take a plain answer and send an encrypted one.

Headers stay outside the encryption, so only those that say nothing of the content pass; ``Content-Disposition``, which
may name a file, does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import anyio.to_thread
import msgspec
from litestar.types import HTTPResponseStartEvent, Message, Send

from ragsvc.crypto import ehbp, hpke_stream, sealed_requests
from ragsvc.web.errors import RenderedError

Header = tuple[bytes, bytes]
T = TypeVar("T")

OFFLOAD_BYTES: Final = 1 << 20
"""Larger bodies are sealed and opened in a worker thread; a MiB takes about 1 ms."""
PAD_EVENTS_TO: Final = 512
"""Server-sent events are padded to a multiple of this, so that lengths do not tell tokens apart."""
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
_INNER_TYPE = sealed_requests.CONTENT_TYPE_HEADER.lower().encode()
_ONE_SHOT_TYPE = (b"content-type", sealed_requests.ONE_SHOT_MEDIA_TYPE.encode())
_STREAM_TYPE = (b"content-type", sealed_requests.STREAM_MEDIA_TYPE.encode())
_NONCE_HEADER = ehbp.RESPONSE_NONCE_HEADER.lower().encode()
_JSON = b"application/json"
_EVENTS = b"text/event-stream"
_NO_CONTENT = 204


class _StreamRefusal(msgspec.Struct, frozen=True):
    """An error in exactly the shape of the Oryxen document, whose ``code`` is the status."""

    message: str = "Streaming is not supported with HPKE encryption. Set stream: false."
    type: str = "proxy_error"
    code: int = 400


STREAM_REFUSED: Final = msgspec.json.encode({"error": _StreamRefusal()})
"""What a one-shot request gets that asks for a stream."""


class SealedAnswer(Protocol):
    """Takes ASGI messages of a plain answer."""

    async def __call__(self, message: Message) -> None:
        """Take one."""
        ...

    async def fail(self, error: RenderedError) -> None:
        """The application ended with an error: say so if there is still room to, else leave the answer cut off."""
        ...


class OneShotAnswer:
    """Gathers an answer and seals it as one message; an event stream is refused, and ``stop`` called."""

    def __init__(self, pending: sealed_requests.PendingRequest, send: Send, stop: Callable[[], object]) -> None:
        self._pending = pending
        self._send = send
        self._stop = stop
        self._status = 200
        self._headers: list[Header] = []
        self._inner_type = _JSON
        self._body = bytearray()
        self._done = False

    async def __call__(self, message: Message) -> None:
        """Take one message; the last one sends everything."""
        if self._done:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers, self._inner_type = _outer_headers(message)
            if self._inner_type.startswith(_EVENTS):
                await self.refuse_stream()
                self._stop()
        elif message["type"] == "http.response.body":
            self._body += message["body"]
            if not message["more_body"]:
                await self._finish()

    async def refuse_stream(self) -> None:
        """Answer with the document's words for a request that asks for a stream."""
        self._status, self._headers, self._inner_type = 400, [], _JSON
        self._body = bytearray(STREAM_REFUSED)
        await self._finish()

    async def fail(self, error: RenderedError) -> None:
        """Seal the error, unless the answer was given."""
        if not self._done:
            self._status, self._inner_type = error.status, _JSON
            self._headers = _error_headers(error)
            self._body = bytearray(error.content)
            await self._finish()

    async def _finish(self) -> None:
        self._done = True
        sealed = await in_thread_if_long(self._pending.seal_response, bytes(self._body))
        self._body.clear()
        headers = [_ONE_SHOT_TYPE, (b"content-length", b"%d" % len(sealed)), (_INNER_TYPE, self._inner_type)]
        await _start(self._send, self._status, [*headers, *self._headers])
        await self._send({"type": "http.response.body", "body": sealed, "more_body": False})


class StreamedAnswer:
    """Seals an answer as it comes; only a whole one gets its authenticated end."""

    def __init__(self, pending: sealed_requests.PendingRequest, send: Send) -> None:
        self._sealer = pending.stream_response()
        self._send = send
        self._events = False
        self._started = False

    async def __call__(self, message: Message) -> None:
        """Take one message; events leave at once, padded; other bodies in whole chunks."""
        if message["type"] == "http.response.start":
            headers, inner_type = _outer_headers(message)
            await self._begin(message["status"], headers, inner_type)
        elif message["type"] == "http.response.body":
            await self._write(message["body"], last=not message["more_body"])

    async def fail(self, error: RenderedError) -> None:
        """Seal the error if nothing was sent; otherwise the missing end tells."""
        if not self._started:
            await self._begin(error.status, _error_headers(error), _JSON)
            await self._write(error.content, last=True)

    async def _begin(self, status: int, headers: list[Header], inner_type: bytes) -> None:
        self._started = True
        self._events = inner_type.startswith(_EVENTS)
        await _start(self._send, status, [_STREAM_TYPE, (_INNER_TYPE, inner_type), *headers])
        await self._send({"type": "http.response.body", "body": self._sealer.start(), "more_body": True})

    async def _write(self, body: bytes, *, last: bool) -> None:
        if self._events and body.endswith(b"\n\n"):
            body = hpke_stream.pad_event_stream(body, multiple=PAD_EVENTS_TO)
        sealed = self._sealer.write(body)
        if last:
            sealed += self._sealer.finish()
        elif self._events:
            sealed += self._sealer.flush()
        if sealed or last:
            await self._send({"type": "http.response.body", "body": sealed, "more_body": not last})


class EhbpAnswer:
    """Seals an answer into EHBP frames, one for each message. The protocol has no authenticated end."""

    def __init__(self, exchange: ehbp.ServerExchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._started = False

    async def __call__(self, message: Message) -> None:
        """Take one message."""
        if message["type"] == "http.response.start":
            headers, inner_type = _outer_headers(message)
            await self._begin(message["status"], headers, inner_type)
        elif message["type"] == "http.response.body":
            sealed = await in_thread_if_long(self._exchange.seal_response, message["body"])
            await self._send({"type": "http.response.body", "body": sealed, "more_body": message["more_body"]})

    async def fail(self, error: RenderedError) -> None:
        """Seal the error if nothing was sent."""
        if not self._started:
            await self._begin(error.status, _error_headers(error), _JSON)
            await self({"type": "http.response.body", "body": error.content, "more_body": False})

    async def _begin(self, status: int, headers: list[Header], inner_type: bytes) -> None:
        self._started = True
        nonce = (_NONCE_HEADER, self._exchange.response_nonce_header.encode())
        await _start(self._send, status, [(b"content-type", inner_type), nonce, *headers])


async def in_thread_if_long(function: Callable[[bytes], T], data: bytes, *, size_bytes: int | None = None) -> T:
    """Run a cipher over ``data`` (``size_bytes`` of work), off the event loop when it takes long."""
    if (len(data) if size_bytes is None else size_bytes) < OFFLOAD_BYTES:
        return function(data)
    return await anyio.to_thread.run_sync(function, data)


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    """Begin the answer; 204 becomes 200, since there is a sealed body."""
    status = 200 if status == _NO_CONTENT else status
    await send({"type": "http.response.start", "status": status, "headers": [*headers, _NO_STORE]})


def _outer_headers(message: HTTPResponseStartEvent) -> tuple[list[Header], bytes]:
    """What may be seen of an answer's headers, and its media type."""
    kept: list[Header] = []
    inner_type = _JSON
    for name, value in message["headers"]:
        lower = name.lower()
        if lower == b"content-type":
            inner_type = value
        elif lower in _KEPT or lower.startswith(b"access-control-"):
            kept.append((lower, value))
    return kept, inner_type


def _error_headers(error: RenderedError) -> list[Header]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    return [(name, value) for name, value in pairs if name in _KEPT]
