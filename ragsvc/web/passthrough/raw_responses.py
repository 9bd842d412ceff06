"""Responses whose bytes are complete, sent without encoding by Litestar."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from ragsvc.core.errors import RagsvcError, UpstreamFailed
from ragsvc.core.gateway.event_stream import WholeEvents
from ragsvc.web.context import RequestContext, context_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.errors import ErrorDetail, is_unexpected, log_unexpected, render
from ragsvc.web.grace_period import take_cancellation
from ragsvc.web.headers import DROPPED_PASSAGES_HEADER
from ragsvc.web.keep_alive import KeepAlive

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


async def answer_error(error: Exception, context: RequestContext, send: Send) -> None:
    """Answer a request that failed before its response began, as on all routes."""
    if is_unexpected(error):
        log_unexpected(error, request_id=context.request_id, encrypted=context.encrypted)
    context.error_code = await send_error(error, context.request_id, send)


RenderFailure = Callable[[ErrorDetail], bytes | None]
"""Renders the failure of a stream as its last events; ``None`` for the format of all streams."""


def failure_event(error: Exception, context: RequestContext, render_failure: RenderFailure | None = None) -> bytes:
    """The last event of a stream that failed after its response began; ``render_failure`` is for other formats."""
    if is_unexpected(error):
        log_unexpected(error, request_id=context.request_id, encrypted=context.encrypted)
    rendered = render(error, context.request_id)
    context.note_stream_failure(rendered.body.error.code)
    events = None if render_failure is None else render_failure(rendered.body.error)
    return rendered.event if events is None else events


def dropped_header(passages: int) -> list[tuple[bytes, bytes]]:
    """The header that states how many passages did not fit into the context of the model."""
    return [(DROPPED_PASSAGES_HEADER, b"%d" % passages)] if passages else []


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


OpenAnswer = Callable[[Callable[[], None]], Awaitable[ProviderAnswer]]
"""Asks the provider; calls its argument when the request was admitted, and the provider is asked next."""


class PassedThrough(ASGIResponse):
    """The unchanged answer of a provider. An event stream that breaks off ends with an error event, others are cut.

    With ``expects_events``, the response begins as an event stream if the provider is silent, and a failure after that
    is an event as well.
    """

    __slots__ = ("_comment_every_s", "_expects_events", "_open", "_render_failure")

    def __init__(
        self,
        open_answer: OpenAnswer,
        *,
        comment_every_s: float,
        expects_events: bool = False,
        render_failure: RenderFailure | None = None,
    ) -> None:
        # see JsonBytes
        self._open = open_answer
        self._render_failure = render_failure
        self._comment_every_s = comment_every_s
        self._expects_events = expects_events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        alive = KeepAlive(send, EVENT_HEADERS, every_s=self._comment_every_s)
        answer: ProviderAnswer | None = None
        try:
            with DisconnectWatcher(receive) as watcher:
                try:
                    answer = await self._open(alive.watch if self._expects_events else _do_nothing)
                except Exception as error:  # noqa: BLE001 - rendered like the exceptions of all routes
                    await self._fail(error, alive, scope, send)
                except asyncio.CancelledError:
                    ended = take_cancellation(scope) if alive.started else None
                    if ended is None:
                        raise
                    await self._fail(ended, alive, scope, send)
                else:
                    await self._pass_on(answer, alive, scope, send)
            if watcher.left and not alive.started:
                await ClientGone()(scope, receive, send)
        finally:
            alive.stop()
            if answer is not None:
                await answer.aclose()

    async def _fail(self, error: Exception, alive: KeepAlive, scope: Scope, send: Send) -> None:
        await alive.settle()
        if alive.started:
            event = failure_event(error, context_of(scope), self._render_failure)
            await send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            await answer_error(error, context_of(scope), send)

    async def _pass_on(self, answer: ProviderAnswer, alive: KeepAlive, scope: Scope, send: Send) -> None:
        has_events = answer.content_type.startswith("text/event-stream")
        await alive.settle()
        if alive.started and not has_events:
            error = UpstreamFailed("The provider did not answer with an event stream, as the request demands.")
            await self._fail(error, alive, scope, send)
            return
        headers = [
            (name.lower().encode(), value.encode(errors="surrogateescape"))  # as aiohttp decoded them
            for name, value in answer.headers.items()
            if not _PROVIDERS_OWN.fullmatch(name)
        ]
        if has_events:
            headers.append((b"x-accel-buffering", b"no"))
        await alive.begin(status=answer.status, headers=headers)
        if has_events:
            alive.watch()
        try:
            rest = await _send_pieces(answer, alive, send, has_events=has_events)
        except RagsvcError as error:
            if not has_events:
                raise
            rest = failure_event(error, context_of(scope), self._render_failure)  # replaces an incomplete event
        except asyncio.CancelledError:
            ended = take_cancellation(scope) if has_events else None
            if ended is None:
                raise
            rest = failure_event(ended, context_of(scope), self._render_failure)
        await alive.settle()
        await send({"type": "http.response.body", "body": rest, "more_body": False})


async def _send_pieces(answer: ProviderAnswer, alive: KeepAlive, send: Send, *, has_events: bool) -> bytes:
    """Send the body as it arrives, of events only whole ones; returns the rest."""
    events = WholeEvents()
    async for piece in answer:
        block = events.feed(piece) if has_events else piece
        if block:
            if alive.comment is not None:
                await alive.settle()
            alive.busy = True
            await send({"type": "http.response.body", "body": block, "more_body": True})
            alive.sent()
    return events.take_rest()


def _do_nothing() -> None:
    """The provider's answer decides whether the response is an event stream."""


class EventBlocks(Protocol):
    """An iterator over blocks of whole server-sent events."""

    @property
    def finished(self) -> bool:
        """Whether iteration has yielded the last block."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


OpenBlocks = Callable[[Callable[[int], None]], Awaitable[EventBlocks]]
"""Opens a stream; calls its argument, with the number of dropped passages, before a model is asked."""


class EventStream(ASGIResponse):
    """Sends server-sent events as they arrive; a failure is sent as the last event, a disconnect closes the source.

    A failure before the response has begun is answered with its own status. The response begins with the first block,
    or with a comment if the model is silent.
    """

    __slots__ = ("_comment_every_s", "_headers", "_open", "_render_failure")

    def __init__(
        self,
        open_blocks: OpenBlocks,
        *,
        comment_every_s: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
        render_failure: RenderFailure | None = None,
    ) -> None:
        # see JsonBytes
        self._open = open_blocks
        self._render_failure = render_failure
        self._comment_every_s = comment_every_s
        self._headers = [*EVENT_HEADERS, *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        alive = KeepAlive(send, self._headers, every_s=self._comment_every_s)
        source: EventBlocks | None = None

        def prepared(dropped_passages: int) -> None:
            alive.headers = [*self._headers, *dropped_header(dropped_passages)]
            alive.watch()

        try:
            with DisconnectWatcher(receive) as watcher:
                try:
                    source = await self._open(prepared)
                    await alive.begin()
                    await _send_blocks(source, alive, send)
                    rest = None if source.finished else b""
                except Exception as error:  # noqa: BLE001 - after the first byte every failure is sent as an event
                    await alive.settle()
                    rest = failure_event(error, context, self._render_failure) if alive.started else None
                    if rest is None:
                        await answer_error(error, context, send)
                except asyncio.CancelledError:
                    ended = take_cancellation(scope) if alive.started else None
                    if ended is None:
                        raise
                    rest = failure_event(ended, context, self._render_failure)
                if rest is not None:
                    await alive.settle()
                    await send({"type": "http.response.body", "body": rest, "more_body": False})
            if watcher.left and not alive.started:
                await ClientGone()(scope, receive, send)
        finally:
            alive.stop()
            if source is not None:
                await source.aclose()


async def _send_blocks(source: EventBlocks, alive: KeepAlive, send: Send) -> None:
    async for block in source:
        if alive.comment is not None:
            await alive.settle()
        alive.busy = True
        await send({"type": "http.response.body", "body": block, "more_body": not source.finished})
        alive.sent()
