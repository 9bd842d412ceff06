"""The service client of the commands: calls with untyped JSON, whose failures are ``CommandFailed``.

``client.async_connection`` sends, repeats and reads; commands print the JSON of the service with all its fields.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from ragsvc.cli.service_failures import failure_of_answer, failure_of_service
from ragsvc.client import operations
from ragsvc.client.async_connection import AsyncConnection, read_events_async
from ragsvc.client.calls import DEFAULT_TIMEOUT_S, SILENCE_S, Call, Pause, decoder_of
from ragsvc.client.event_decoding import EVENTS, Json
from ragsvc.client.pagination import ListPage, PagedCall, last_id
from ragsvc.client.service_errors import ServiceError
from ragsvc.client.upload_bodies import UploadBody

_DOCUMENTS = "/v1/rag/documents"


class ServiceClient:
    """A client of one service. A request retries 429 and 503 for at most ``patience_s`` seconds."""

    def __init__(self, http: httpx.AsyncClient, *, patience_s: float = 0.0) -> None:
        self._http = http
        self._connection = AsyncConnection(http, patience_s=patience_s, on_pause=self._pause)
        self.on_pause: Callable[[float, str], None] | None = None

    @property
    def url(self) -> str:
        """The base URL, without ``/v1``."""
        return self._connection.url

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        return await self._send(_call("GET", path, params=params))

    async def post(self, path: str, document: object = msgspec.UNSET, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Json:
        return await self._send(_call("POST", path, document=document, timeout_s=timeout_s))

    async def patch(self, path: str, document: object) -> Json:
        return await self._send(_call("PATCH", path, document=document))

    async def delete(self, path: str) -> Json:
        return await self._send(_call("DELETE", path))

    async def upload(self, file: Path, size_bytes: int, *, media_type: str, params: Mapping[str, Any]) -> Json:
        """Upload a file; returns when the document is stored, or ready within ``params['wait_s']``."""
        headers = {"content-type": media_type, "content-length": str(size_bytes)}
        call = Call(
            method="POST",
            path=_DOCUMENTS,
            params=params,
            body=UploadBody(file),
            headers=headers,
            decode=decoder_of(Json),
        )
        with _command_failures():
            response = await self._connection.fetch(call)
            return {**call.read(str(response.request.url), response.content), "http_status": response.status_code}

    async def pages(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[Json]:
        """Iterate over all entries of a paginated list."""
        listed: PagedCall[Json] = PagedCall(
            path=path, params={"limit": 100, **(params or {})}, decode=decoder_of(ListPage[Json]), position=last_id
        )
        with _command_failures():
            async for entry in self._connection.entries(listed):
                yield entry

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> httpx.Response:
        """Send a request. Retries 429, 503 and lost connections within ``patience_s``.

        Raises:
            CommandFailed: the service answered with an error, or cannot be reached.
        """
        with _command_failures():
            return await self._connection.fetch(_call(method, path, params=params, timeout_s=timeout_s))

    @asynccontextmanager
    async def events(
        self, method: str, path: str, document: object = msgspec.UNSET, *, silence_s: float = SILENCE_S
    ) -> AsyncGenerator[AsyncIterator[Json]]:
        """Open a stream of server-sent events with JSON objects as data; ``[DONE]`` ends it.

        Raises:
            CommandFailed: the service answered with an error, cannot be reached, or ended the stream early.
        """
        call = _call(method, path, document=document, timeout_s=silence_s)
        with _command_failures():
            async with self._connection.events(call) as events:
                yield events

    async def follow(self, document: Json, watch: Callable[[Json], None] | None = None) -> Json:
        """Follow a document until it is ready or failed; return its last state. Lost streams are opened again.

        Raises:
            CommandFailed: the document was deleted, or the service cannot be reached.
        """
        last = document
        with _command_failures():
            following = operations.follow_document(document["id"], timeout_s=None)
            async for last in self._connection.follow(following):
                if watch is not None:
                    watch(last)
        return last

    @asynccontextmanager
    async def messages(
        self, path: str, message: Json, *, headers: Mapping[str, str], silence_s: float
    ) -> AsyncGenerator[AsyncIterator[Json]]:
        """Send a JSON-RPC message; the answers are those of an event stream, a JSON object, or none.

        Raises:
            CommandFailed: the service cannot be reached, or answered with an error that is no JSON-RPC message.
        """
        call = _call("POST", path, document=message, timeout_s=silence_s)
        with _command_failures():
            async with self._connection.answer_of(call, headers) as response:
                if response.headers.get("content-type", "").startswith(EVENTS):
                    yield read_events_async(response)
                else:
                    yield _read_message(response.status_code, response.headers, await response.aread())

    @asynccontextmanager
    async def download(self, path: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a response whose bytes are iterated.

        Raises:
            CommandFailed: the service answered with an error, cannot be reached, or ended the response early.
        """
        with _command_failures():
            async with self._connection.bytes_of(_call("GET", path, timeout_s=SILENCE_S)) as pieces:
                yield pieces

    async def alive(self) -> bool:
        """Whether the service answers ``/livez``."""
        try:
            return (await self._http.get("/livez", timeout=5.0)).status_code == 200
        except httpx.TransportError:
            return False

    async def _send(self, call: Call[Json]) -> Json:
        with _command_failures():
            return await self._connection.send(call)

    def _pause(self, pause: Pause) -> None:
        if self.on_pause is not None:
            self.on_pause(pause.seconds, failure_of_service(pause.error).message)


def _call(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    document: object = msgspec.UNSET,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Call[Json]:
    return Call(
        method=method, path=path, params=params, document=document, decode=decoder_of(Json), timeout_s=timeout_s
    )


@contextmanager
def _command_failures() -> Generator[None]:
    """Raise failures of commands for the errors of the client."""
    try:
        yield
    except ServiceError as error:
        raise failure_of_service(error) from error


async def _read_message(status: int, headers: httpx.Headers, content: bytes) -> AsyncIterator[Json]:
    """The JSON-RPC message of a response, if it has one. Raises ``CommandFailed`` for an error of the service."""
    message: Json = {}
    with contextlib.suppress(msgspec.DecodeError):
        message = msgspec.json.decode(content, type=Json)
    if "jsonrpc" in message:
        yield message
    elif status >= 400:
        raise failure_of_answer(status, headers, content)


__all__ = ["Json", "ServiceClient"]
