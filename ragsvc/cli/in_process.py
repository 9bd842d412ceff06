"""Calls the application without a socket, as httpx calls a server; unlike httpx's own transport it streams answers.

``httpx.ASGITransport`` returns after the last byte, which would turn every stream of progress or words into one lump.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import anyio
import anyio.abc
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
_CHUNKS_AHEAD = 16


class InProcessTransport(httpx.AsyncBaseTransport):
    """Runs each request of ``app`` as a task of ``tasks`` (ASGI 3, HTTP only)."""

    def __init__(self, app: AsgiApp, tasks: anyio.abc.TaskGroup) -> None:
        self._app = app
        self._tasks = tasks

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; returns with the answer's head."""
        exchange = _Exchange(self._app, request)
        self._tasks.start_soon(exchange.run)
        await exchange.started.wait()
        if exchange.status is None:
            exchange.chunks.close()
            raise httpx.RemoteProtocolError("the application ended without an answer", request=request)
        return httpx.Response(exchange.status, headers=exchange.headers, stream=_AnswerBody(exchange))


class _Exchange:
    """One request and its answer on the way."""

    def __init__(self, app: AsgiApp, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)  # noqa: S101 - an AsyncClient sends no other
        self._app = app
        self._scope = _scope_of(request)
        self._body: AsyncIterator[bytes] = aiter(request.stream)
        self._body_sent = False
        self._chunks_in: MemoryObjectSendStream[bytes]
        self.chunks: MemoryObjectReceiveStream[bytes]
        self._chunks_in, self.chunks = anyio.create_memory_object_stream[bytes](_CHUNKS_AHEAD)
        self.started = anyio.Event()
        self.ended = anyio.Event()
        self.complete = False
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []

    async def run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception:  # noqa: BLE001, S110 - the application's edge logged it; the caller sees a broken answer
            pass
        finally:
            self.started.set()
            self._chunks_in.close()

    async def _receive(self) -> Message:
        if not self._body_sent:
            try:
                return {"type": "http.request", "body": await anext(self._body), "more_body": True}
            except StopAsyncIteration:
                self._body_sent = True
                return {"type": "http.request", "body": b"", "more_body": False}
        await self.ended.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            self.started.set()
        elif message["type"] == "http.response.body":
            if message.get("body"):
                try:
                    await self._chunks_in.send(bytes(message["body"]))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
            if not message.get("more_body", False):
                self.complete = True
                self.ended.set()
                self._chunks_in.close()


class _AnswerBody(httpx.AsyncByteStream):
    """The answer's bytes; closing it early is a disconnect."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._exchange.chunks:
            yield chunk
        if not self._exchange.complete:
            raise httpx.RemoteProtocolError("the application broke off its answer")

    async def aclose(self) -> None:
        self._exchange.ended.set()
        self._exchange.chunks.close()


def _scope_of(request: httpx.Request) -> Message:
    path = request.url.raw_path.split(b"?")[0]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": path,
        "root_path": "",
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 0),
        "server": (request.url.host, request.url.port or 80),
        "state": {},
    }
