"""Answers whose bytes are ready: sent as they are, without a framework's encoding in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from ragsvc.web.context import context_of
from ragsvc.web.errors import is_unexpected, log_unexpected, render
from ragsvc.web.presence import ClientPresence

_JSON_TYPE = (b"content-type", b"application/json")
_EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def send_error(error: Exception, request_id: str, send: Send) -> None:
    """Answer with an error, outside a framework."""
    rendered = render(error, request_id)
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in rendered.headers.items()]
    content = rendered.content
    headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": rendered.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


class JsonBytes(ASGIResponse):
    """A body that is JSON already."""

    __slots__ = ()

    def __init__(self, body: bytes) -> None:
        # the parent's __init__ only prepares what __call__ below does without
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [_JSON_TYPE, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class ClientGone(ASGIResponse):
    """Nobody is there to read this; the status (nginx's 499) is for metrics and the access log."""

    __slots__ = ()

    def __init__(self) -> None:
        # see JsonBytes
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the books of the request."""
        await send({"type": "http.response.start", "status": 499, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventSource(Protocol):
    """Blocks of whole server-sent events."""

    @property
    def finished(self) -> bool:
        """Whether the last block has been handed out."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The source itself."""
        ...

    async def __anext__(self) -> bytes:
        """The next block."""
        ...

    async def aclose(self) -> None:
        """Stop; always called."""
        ...


class EventStream(ASGIResponse):
    """Server-sent events as they come; a failure becomes a last event, a client that leaves ends the source."""

    __slots__ = ("_extra", "_request_id", "_source", "_status")

    def __init__(
        self,
        source: EventSource,
        *,
        request_id: str | None,
        status: int = 200,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        # see JsonBytes
        self._source = source
        self._request_id = request_id
        self._status = status
        self._extra = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        source = self._source
        try:
            with ClientPresence(receive):
                headers = [*_EVENT_HEADERS, *self._extra]
                await send({"type": "http.response.start", "status": self._status, "headers": headers})
                try:
                    async for block in source:
                        await send({"type": "http.response.body", "body": block, "more_body": not source.finished})
                    rest = None if source.finished else b""
                except Exception as error:  # noqa: BLE001 - after the first byte every failure must become an event
                    rest = self._failure(error, encrypted=context_of(scope).encrypted)
                if rest is not None:
                    await send({"type": "http.response.body", "body": rest, "more_body": False})
        finally:
            await source.aclose()

    def _failure(self, error: Exception, *, encrypted: bool) -> bytes:
        if is_unexpected(error):
            log_unexpected(error, request_id=self._request_id, encrypted=encrypted)
        return render(error, self._request_id).event
