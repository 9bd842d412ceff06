"""Performs calls with ``httpx.AsyncClient``; ``calls`` decides what is sent, read and repeated."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx

from ragsvc.client.calls import Call, OnBytes, Pause, Retries, is_error, unreachable
from ragsvc.client.document_following import Following
from ragsvc.client.event_decoding import EventDecoder, Json
from ragsvc.client.pagination import ListPage, PagedCall
from ragsvc.client.service_errors import ServiceError

T = TypeVar("T")


class AsyncConnection:
    """Sends calls; repeats those that the service refused for now, for at most ``patience_s`` seconds."""

    def __init__(
        self, http: httpx.AsyncClient, *, patience_s: float, on_pause: Callable[[Pause], None] | None = None
    ) -> None:
        self.http = http
        self.patience_s = patience_s
        self.on_pause = on_pause

    @property
    def url(self) -> str:
        """The base URL, without ``/v1``."""
        return str(self.http.base_url).rstrip("/")

    async def send(self, call: Call[T]) -> T:
        """Perform a call. Raises ``ServiceError``."""
        response = await self.fetch(call)
        return call.read(str(response.request.url), response.content)

    async def fetch(self, call: Call[Any]) -> httpx.Response:
        """Perform a call; returns the response, which has been read. Raises ``ServiceError``."""
        async with self._open(call, whole=True) as response:
            return response

    @asynccontextmanager
    async def bytes_of(self, call: Call[Any]) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a response whose bytes are iterated. Raises ``ServiceError``, also while they are read."""
        try:
            async with self._open(call) as response:
                yield response.aiter_bytes()
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    @asynccontextmanager
    async def events(self, call: Call[Any], on_bytes: OnBytes | None = None) -> AsyncGenerator[AsyncIterator[Json]]:
        """Open a stream of events with JSON objects; ``on_bytes`` is called whenever some of it arrives.

        Raises:
            ServiceError: also while the events are read.
        """
        try:
            async with self._open(call) as response:
                yield read_events_async(response, on_bytes)
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    @asynccontextmanager
    async def answer_of(self, call: Call[Any], headers: Mapping[str, str]) -> AsyncGenerator[httpx.Response]:
        """Send a call once, with other headers; the response may have any status. Raises ``ServiceUnreachable``."""
        request = self._request(call)
        request.headers.update(headers)
        try:
            response = await self.http.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    async def entries(self, listed: PagedCall[T]) -> AsyncIterator[T]:
        """Iterate over all entries of a list. Raises ``ServiceError``."""
        call: Call[ListPage[T]] | None = listed.first()
        while call is not None:
            page = await self.send(call)
            for entry in page.data:
                yield entry
            call = listed.next(page)

    async def follow(self, following: Following) -> AsyncIterator[Json]:
        """Iterate over the states of a document until it is ready or failed; lost streams are opened again.

        Raises:
            DocumentUnfinished: the document was deleted, or the time is up.
            ServiceError: see ``Following``.
        """
        while True:
            try:
                async with self.events(following.stream, following.check_time) as events:
                    async for event in events:
                        yield following.take(event)
                        if following.ended:
                            return
            except ServiceError as error:
                await anyio.sleep(following.after_break(error))
            else:
                following.after_end()
            yield following.take(await self.send(following.look))
            if following.ended:
                return

    @asynccontextmanager
    async def _open(self, call: Call[Any], *, whole: bool = False) -> AsyncGenerator[httpx.Response]:
        """The response of a call, read already if ``whole``: a connection lost meanwhile is a reason to repeat."""
        retries = Retries(call, url=self.url, patience_s=self.patience_s)
        while True:
            try:
                response = await self.http.send(self._request(call), stream=True)
                try:
                    failed = is_error(response.status_code)
                    if failed or whole:
                        await response.aread()
                except BaseException:
                    await response.aclose()
                    raise
            except httpx.TransportError as error:
                pause = retries.after_failure(error)
            else:
                if not failed:
                    break
                pause = retries.after_answer(response.status_code, response.headers, response.content)
            if self.on_pause is not None:
                self.on_pause(pause)
            await anyio.sleep(pause.seconds)
        try:
            yield response
        finally:
            await response.aclose()

    def _request(self, call: Call[Any]) -> httpx.Request:
        return self.http.build_request(
            call.method,
            call.path,
            params=call.params,
            content=call.content if call.body is None else call.body.slices_async(),
            headers=call.sent_headers,
            timeout=call.timeout,
        )


async def read_events_async(response: httpx.Response, on_bytes: OnBytes | None = None) -> AsyncIterator[Json]:
    """The objects of an event stream, up to ``[DONE]``. Raises ``UnexpectedAnswer``."""
    decoder = EventDecoder(str(response.request.url), response.headers.get("content-type", ""))
    async for data in response.aiter_bytes():
        if on_bytes is not None:
            on_bytes()
        for event in decoder.feed(data):
            yield event
        if decoder.done:
            return
