"""The HTTP client of the commands, over any httpx transport: requests, uploads and event streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
from httpx_sse import EventSource, SSEError

from ragsvc.cli.failures import CommandFailed, ExitCode, failure_of_answer

_READ_BYTES = 1 << 18
_BUSY = frozenset({429, 503})
_LONGEST_PAUSE_S = 300.0
_FIRST_PAUSE_S = 0.25
_CONNECT_TRIES = 4

Json = dict[str, Any]
Body = Callable[[], AsyncIterator[bytes]]


class ServiceClient:
    """A client of one service. A request retries 429 and 503 for at most ``patience_s`` seconds."""

    def __init__(self, http: httpx.AsyncClient, *, patience_s: float = 0.0) -> None:
        self._http = http
        self.patience_s = patience_s
        self.on_pause: Callable[[float, str], None] | None = None

    @property
    def url(self) -> str:
        """The base URL, without ``/v1``."""
        return str(self._http.base_url).rstrip("/")

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        return _object(await self.request("GET", path, params=params))

    async def post(self, path: str, document: object | None = None, *, timeout_s: float = 300.0) -> Json:
        return _object(await self.request("POST", path, document=document, timeout_s=timeout_s))

    async def patch(self, path: str, document: object) -> Json:
        return _object(await self.request("PATCH", path, document=document))

    async def delete(self, path: str) -> Json:
        return _object(await self.request("DELETE", path))

    async def upload(self, file: Path, size_bytes: int, *, media_type: str, params: Mapping[str, Any]) -> Json:
        """Upload a file; returns when the document is stored, or ready within ``params['wait_s']``."""
        headers = {"content-type": media_type, "content-length": str(size_bytes)}
        response = await self.request(
            "POST", "/v1/rag/documents", params=params, body=lambda: _file_chunks(file), headers=headers
        )
        return {**_object(response), "http_status": response.status_code}

    async def pages(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[Json]:
        """Iterate over all entries of a paginated list."""
        asked: dict[str, Any] = {"limit": 100, **(params or {})}
        while True:
            page = await self.get(path, asked)
            for entry in page["data"]:
                yield entry
            if not page.get("has_more"):
                return
            asked["after"] = page["last_id"]

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        document: object | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 300.0,
    ) -> httpx.Response:
        """Send a request. Retries 429, 503 and lost connections within ``patience_s``.

        Raises:
            CommandFailed: the service answered with an error, or cannot be reached.
        """
        waited_s, tries = 0.0, 0
        while True:
            content = body() if body is not None else None if document is None else msgspec.json.encode(document)
            sent = dict(headers or {})
            if document is not None:
                sent["content-type"] = "application/json"
            try:
                response = await self._http.request(
                    method, path, params=params, content=content, headers=sent, timeout=_timeout(timeout_s)
                )
            except httpx.TransportError as error:
                tries += 1
                failure = _unreachable(self.url, error)
                pause_s = _FIRST_PAUSE_S * 4**tries
                if not self.patience_s or tries >= _CONNECT_TRIES:
                    raise failure from error
            else:
                if response.status_code < 400:
                    return response
                failure = failure_of_answer(response.status_code, response.headers, response.content)
                pause_s = min(failure.retry_after_s or 1.0, _LONGEST_PAUSE_S)
                if response.status_code not in _BUSY or waited_s + pause_s > self.patience_s:
                    raise failure
            if self.on_pause is not None:
                self.on_pause(pause_s, failure.message)
            waited_s += pause_s
            await anyio.sleep(pause_s)

    @asynccontextmanager
    async def events(
        self, method: str, path: str, document: object | None = None, *, silence_s: float = 60.0
    ) -> AsyncGenerator[AsyncIterator[Json]]:
        """Open a stream of server-sent events with JSON objects as data; ``[DONE]`` ends it.

        Raises:
            CommandFailed: the service answered with an error, cannot be reached, or ended the stream early.
        """
        headers = {} if document is None else {"content-type": "application/json"}
        content = None if document is None else msgspec.json.encode(document)
        try:
            async with self._http.stream(
                method, path, content=content, headers=headers, timeout=_timeout(silence_s)
            ) as response:
                if response.status_code >= 400:
                    raise failure_of_answer(response.status_code, response.headers, await response.aread())
                yield _read_events(response)
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error

    @asynccontextmanager
    async def messages(
        self, path: str, message: Json, *, headers: Mapping[str, str], silence_s: float
    ) -> AsyncGenerator[AsyncIterator[Json]]:
        """Send a JSON-RPC message; the answers are those of an event stream, a JSON object, or none.

        Raises:
            CommandFailed: the service cannot be reached, or answered with an error that is no JSON-RPC message.
        """
        sent = {**headers, "content-type": "application/json"}
        try:
            async with self._http.stream(
                "POST", path, content=msgspec.json.encode(message), headers=sent, timeout=_timeout(silence_s)
            ) as response:
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    yield _read_events(response)
                else:
                    yield _read_message(response.status_code, response.headers, await response.aread())
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error

    @asynccontextmanager
    async def download(self, path: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a response whose bytes are iterated.

        Raises:
            CommandFailed: the service answered with an error, cannot be reached, or ended the response early.
        """
        try:
            async with self._http.stream("GET", path, timeout=_timeout(60.0)) as response:
                if response.status_code >= 400:
                    raise failure_of_answer(response.status_code, response.headers, await response.aread())
                yield response.aiter_raw()
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error

    async def alive(self) -> bool:
        """Whether the service answers ``/livez``."""
        try:
            return (await self._http.get("/livez", timeout=5.0)).status_code == 200
        except httpx.TransportError:
            return False


async def _read_events(response: httpx.Response) -> AsyncIterator[Json]:
    try:
        async for event in EventSource(response).aiter_sse():
            if event.data == "[DONE]":
                return
            if event.data:
                yield msgspec.json.decode(event.data, type=Json)
    except (SSEError, msgspec.DecodeError) as error:
        raise CommandFailed(
            f"the answer of {response.request.url} is not an event stream of ragsvc; is the URL right?",
            code="bad_answer",
        ) from error


async def _read_message(status: int, headers: httpx.Headers, content: bytes) -> AsyncIterator[Json]:
    """The JSON-RPC message of a response, if it has one. Raises ``CommandFailed`` for an error of the service."""
    message: Json = {}
    with contextlib.suppress(msgspec.DecodeError):
        message = msgspec.json.decode(content, type=Json)
    if "jsonrpc" in message:
        yield message
    elif status >= 400:
        raise failure_of_answer(status, headers, content)


async def _file_chunks(file: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(file, "rb") as opened:
        while chunk := await opened.read(_READ_BYTES):
            yield chunk


def _timeout(silence_s: float) -> httpx.Timeout:
    return httpx.Timeout(silence_s, connect=5.0, pool=None)


def _object(response: httpx.Response) -> Json:
    try:
        return msgspec.json.decode(response.content, type=Json)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CommandFailed(
            f"{response.request.url} did not answer with JSON; check the URL of the service", code="bad_answer"
        ) from error


def _unreachable(url: str, error: httpx.TransportError) -> CommandFailed:
    reason = str(error) or type(error).__name__
    return CommandFailed(
        f"no service answers at {url} ({reason}); start it with 'ragsvc serve', or check the URL",
        code="service_unreachable",
        exit_code=ExitCode.UNREACHABLE,
    )
