"""An httpx transport that calls an ASGI application in this process and streams its responses.

``httpx.ASGITransport`` buffers the whole response, so progress and streamed answers would arrive all at once.
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
    """Runs each request to ``app`` as a task in ``tasks`` (ASGI 3, HTTP only)."""

    def __init__(self, app: AsgiApp, tasks: anyio.abc.TaskGroup) -> None:
        self._app = app
        self._tasks = tasks

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; returns when the response headers are known."""
        running = _RunningRequest(self._app, request)
        self._tasks.start_soon(running.run)
        await running.started.wait()
        if running.status is None:
            running.chunks.close()
            raise httpx.RemoteProtocolError("the application ended without a response", request=request)
        return httpx.Response(running.status, headers=running.headers, stream=_AnswerBody(running))


class _RunningRequest:
    """A request in progress, and its response."""

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
        except Exception:  # noqa: BLE001, S110 - the application has logged it; the caller sees an incomplete response
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
    """The bytes of the response; closing it early disconnects."""

    def __init__(self, running: _RunningRequest) -> None:
        self._running = running

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._running.chunks:
            yield chunk
        if not self._running.complete:
            raise httpx.RemoteProtocolError("the application ended its response early")

    async def aclose(self) -> None:
        self._running.ended.set()
        self._running.chunks.close()


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
