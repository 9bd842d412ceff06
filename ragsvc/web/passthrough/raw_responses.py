"""Responses whose bytes are complete, sent without encoding by Litestar."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from ragsvc.core.errors import RagsvcError
from ragsvc.core.gateway.event_stream import WholeEvents
from ragsvc.web.context import RequestContext, context_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.errors import is_unexpected, log_unexpected, render
from ragsvc.web.grace_period import take_cancellation

_PROVIDERS_OWN = re.compile(
    r"openai-(organization|project)|cf-.*|alt-svc|strict-transport-security|access-control-.*|via|nel|report-to|"
    r"server-timing|x-accel-.*|x-content-type-options|x-ratelimit-.*|retry-after.*|set-cookie.*|location|content-length",
    re.IGNORECASE,
)
"""Headers about the provider's account, infrastructure or limits, which are not passed on."""
_JSON_TYPE = (b"content-type", b"application/json")
EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def send_error(error: Exception, request_id: str, send: Send) -> str:
    """Send an error response outside of Litestar; returns its code."""
    rendered = render(error, request_id)
    headers = [(b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in rendered.headers.items()]
    content = rendered.content
    headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": rendered.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})
    return rendered.body.error.code


class JsonBytes(ASGIResponse):
    """A response with a body that is encoded JSON."""

    __slots__ = ("_headers",)

    def __init__(self, body: bytes, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        # the parent's __init__ prepares attributes that __call__ below does not use
        self.body = body
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [_JSON_TYPE, (b"content-length", b"%d" % len(self.body)), *self._headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class ClientGone(ASGIResponse):
    """The response to a client that has disconnected; status 499 (as in nginx) is for metrics and the access log."""

    __slots__ = ()

    def __init__(self) -> None:
        # see JsonBytes
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a status that only the middleware sees."""
        await send({"type": "http.response.start", "status": 499, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class ProviderAnswer(Protocol):
    """An answer of a provider, whose body is iterated."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content_type(self) -> str:
        """The content type in lower case."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives."""
        ...

    async def aclose(self) -> None: ...


class PassedThrough(ASGIResponse):
    """The unchanged answer of a provider. An event stream that breaks off ends with an error event, others are cut."""

    __slots__ = ("_answer", "_request_id")

    def __init__(self, answer: ProviderAnswer, *, request_id: str | None) -> None:
        # see JsonBytes
        self._answer = answer
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer
        has_events = answer.content_type.startswith("text/event-stream")
        try:
            headers = [
                (name.lower().encode(), value.encode(errors="surrogateescape"))  # as aiohttp decoded them
                for name, value in answer.headers.items()
                if not _PROVIDERS_OWN.fullmatch(name)
            ]
            if has_events:
                headers.append((b"x-accel-buffering", b"no"))
            with DisconnectWatcher(receive):
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                events = WholeEvents()
                try:
                    async for piece in answer:
                        block = events.feed(piece) if has_events else piece
                        if block:
                            await send({"type": "http.response.body", "body": block, "more_body": True})
                    rest = events.take_rest()
                except RagsvcError as error:
                    if not has_events:
                        raise
                    context_of(scope).note_stream_failure(error.code)
                    rest = render(error, self._request_id).event  # replaces an incomplete event
                except asyncio.CancelledError:
                    ended = take_cancellation(scope) if has_events else None
                    if ended is None:
                        raise
                    context_of(scope).note_stream_failure(ended.code)
                    rest = render(ended, self._request_id).event
                await send({"type": "http.response.body", "body": rest, "more_body": False})
        finally:
            await answer.aclose()


class EventBlocks(Protocol):
    """An iterator over blocks of whole server-sent events."""

    @property
    def finished(self) -> bool:
        """Whether iteration has yielded the last block."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


class EventStream(ASGIResponse):
    """Sends server-sent events as they arrive; a failure is sent as the last event, a disconnect closes the source."""

    __slots__ = ("_headers", "_request_id", "_source")

    def __init__(
        self, source: EventBlocks, *, request_id: str | None, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        # see JsonBytes
        self._source = source
        self._headers = headers
        self._request_id = request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source = self._source
        try:
            with DisconnectWatcher(receive):
                await send({"type": "http.response.start", "status": 200, "headers": [*EVENT_HEADERS, *self._headers]})
                try:
                    async for block in source:
                        await send({"type": "http.response.body", "body": block, "more_body": not source.finished})
                    rest = None if source.finished else b""
                except Exception as error:  # noqa: BLE001 - after the first byte every failure is sent as an event
                    rest = self._failure(error, context_of(scope))
                except asyncio.CancelledError:
                    ended = take_cancellation(scope)
                    if ended is None:
                        raise
                    rest = self._failure(ended, context_of(scope))
                if rest is not None:
                    await send({"type": "http.response.body", "body": rest, "more_body": False})
        finally:
            await source.aclose()

    def _failure(self, error: Exception, context: RequestContext) -> bytes:
        if is_unexpected(error):
            log_unexpected(error, request_id=self._request_id, encrypted=context.encrypted)
        rendered = render(error, self._request_id)
        context.note_stream_failure(rendered.body.error.code)
        return rendered.event
