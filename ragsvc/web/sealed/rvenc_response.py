"""Responses of the RVENC mode: a plain chat's event stream becomes RVENC events."""

from __future__ import annotations

from typing import Final, Protocol

from litestar.types import HTTPResponseStartEvent, Message, Send

from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.event_stream import DONE, split_events
from ragsvc.crypto import rvenc, sealed_requests
from ragsvc.web.errors import RenderedError, render
from ragsvc.web.passthrough.raw_responses import EVENT_HEADERS
from ragsvc.web.sealed.responses import EVENTS_TYPE, Header

PAD_CHUNKS_TO: Final = 512
"""Chunks are padded with blanks after their JSON to a multiple of this many bytes, so lengths do not reveal tokens."""
_DATA = b"data: "
_KEEP_ALIVE = b":\n\n"
_NONCE_HEADER = rvenc.RESPONSE_NONCE_HEADER.lower().encode()
_OF_THE_PLAIN_BODY = frozenset({b"content-type", b"content-length"})


class RvencEventSealer(Protocol):
    """Writes the events of one response."""

    def data(self, chunk: bytes) -> bytes:
        """Seal one chat chunk."""
        ...

    def error(self, error: bytes) -> bytes:
        """Seal the last event of a failed response."""
        ...

    def done(self) -> bytes:
        """Seal the last event of a complete response."""
        ...


class RvencResponse:
    """Seals a chat's event stream event by event; any other response is an error and becomes a single ``error`` event.

    A failed chat always ends with a sealed ``error`` event. ``insecure_literal`` seals as the document says; see
    ``rvenc.seal_insecure_literal_chunk`` for the reasons against it.
    """

    def __init__(
        self, pending: sealed_requests.PendingInference, send: Send, *, request_id: str, insecure_literal: bool
    ) -> None:
        self._send = send
        self._request_id = request_id
        self._sealer: RvencEventSealer
        self._nonce_headers: list[Header] = []
        if insecure_literal:
            self._sealer = pending.seal_insecure_literal_events()
        else:
            self._sealer = sealer = pending.seal_events()
            self._nonce_headers.append((_NONCE_HEADER, sealer.response_nonce_header.encode()))
        self._failed_start: HTTPResponseStartEvent | None = None
        self._failed_body = bytearray()
        self._started = False
        self._finished = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            if headers.get(b"content-type", b"").startswith(EVENTS_TYPE):
                await self._start(message["status"], [*message["headers"], *self._nonce_headers])
            else:
                self._failed_start = message
        elif message["type"] == "http.response.body":
            if self._failed_start is None:
                await self._seal_block(message["body"], last=not message["more_body"])
            else:
                self._failed_body += message["body"]
                if not message["more_body"]:
                    await self._send_error(self._failed_start)

    async def fail(self, error: RenderedError) -> None:
        """Seal the error as the last event, unless the last event was sent already."""
        if self._finished:
            return
        if not self._started:
            advice = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await self._start(error.status, [*EVENT_HEADERS, *self._nonce_headers, *advice])
        await self._send_last(self._seal_error(error.content))

    async def _send_error(self, start: HTTPResponseStartEvent) -> None:
        """Send the error of a chat that did not start, with the status and headers of the plain error."""
        advice = [(name, value) for name, value in start["headers"] if name not in _OF_THE_PLAIN_BODY]
        await self._start(start["status"], [*EVENT_HEADERS, *self._nonce_headers, *advice])
        await self._send_last(self._seal_error(bytes(self._failed_body)))

    async def _start(self, status: int, headers: list[Header]) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _seal_block(self, block: bytes, *, last: bool) -> None:
        """Seal a block of complete events. A stream that ends without ``[DONE]`` gets an error as its last event."""
        if self._finished:
            return
        sealed = b"".join([self._seal_event(event) for event in split_events(block)])
        if last and not self._finished:
            sealed += self._seal_error(render(UpstreamFailed("The answer broke off."), self._request_id).content)
        if self._finished:
            await self._send_last(sealed)
        elif sealed:
            await self._send({"type": "http.response.body", "body": sealed, "more_body": True})

    def _seal_event(self, event: bytes) -> bytes:
        if self._finished or not event.startswith(_DATA):
            return _KEEP_ALIVE
        if event == DONE:
            self._finished = True
            return self._sealer.done()
        payload = event.removeprefix(_DATA).removesuffix(b"\n\n")
        if payload.startswith(b'{"error"'):
            return self._seal_error(payload)
        return self._sealer.data(payload + b" " * (-len(payload) % PAD_CHUNKS_TO))

    def _seal_error(self, error: bytes) -> bytes:
        self._finished = True
        return self._sealer.error(error)

    async def _send_last(self, sealed: bytes) -> None:
        await self._send({"type": "http.response.body", "body": sealed, "more_body": False})
