"""Performs calls with ``httpx.Client``; ``calls`` decides what is sent, read and repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from ragsvc.client.calls import Call, OnBytes, Pause, Retries, is_error, unreachable
from ragsvc.client.document_following import Following
from ragsvc.client.event_decoding import EventDecoder, Json
from ragsvc.client.pagination import ListPage, PagedCall
from ragsvc.client.service_errors import ServiceError

T = TypeVar("T")


class SyncConnection:
    """Sends calls; repeats those that the service refused for now, for at most ``patience_s`` seconds."""

    def __init__(
        self, http: httpx.Client, *, patience_s: float, on_pause: Callable[[Pause], None] | None = None
    ) -> None:
        self.http = http
        self.patience_s = patience_s
        self.on_pause = on_pause

    @property
    def url(self) -> str:
        """The base URL, without ``/v1``."""
        return str(self.http.base_url).rstrip("/")

    def send(self, call: Call[T]) -> T:
        """Perform a call. Raises ``ServiceError``."""
        response = self.fetch(call)
        return call.read(str(response.request.url), response.content)

    def fetch(self, call: Call[Any]) -> httpx.Response:
        """Perform a call; returns the response, which has been read. Raises ``ServiceError``."""
        with self._open(call, whole=True) as response:
            return response

    @contextmanager
    def bytes_of(self, call: Call[Any]) -> Generator[Iterator[bytes]]:
        """Open a response whose bytes are iterated. Raises ``ServiceError``, also while they are read."""
        try:
            with self._open(call) as response:
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    @contextmanager
    def events(self, call: Call[Any], on_bytes: OnBytes | None = None) -> Generator[Iterator[Json]]:
        """Open a stream of events with JSON objects; ``on_bytes`` is called whenever some of it arrives.

        Raises:
            ServiceError: also while the events are read.
        """
        try:
            with self._open(call) as response:
                yield read_events(response, on_bytes)
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    def entries(self, listed: PagedCall[T]) -> Iterator[T]:
        """Iterate over all entries of a list. Raises ``ServiceError``."""
        call: Call[ListPage[T]] | None = listed.first()
        while call is not None:
            page = self.send(call)
            yield from page.data
            call = listed.next(page)

    def follow(self, following: Following) -> Iterator[Json]:
        """Iterate over the states of a document until it is ready or failed; lost streams are opened again.

        Raises:
            DocumentUnfinished: the document was deleted, or the time is up.
            ServiceError: see ``Following``.
        """
        while True:
            try:
                with self.events(following.stream, following.check_time) as events:
                    for event in events:
                        yield following.take(event)
                        if following.ended:
                            return
            except ServiceError as error:
                time.sleep(following.after_break(error))
            else:
                following.after_end()
            yield following.take(self.send(following.look))
            if following.ended:
                return

    @contextmanager
    def _open(self, call: Call[Any], *, whole: bool = False) -> Generator[httpx.Response]:
        """The response of a call, read already if ``whole``: a connection lost meanwhile is a reason to repeat."""
        retries = Retries(call, url=self.url, patience_s=self.patience_s)
        while True:
            try:
                response = self.http.send(self._request(call), stream=True)
                try:
                    failed = is_error(response.status_code)
                    if failed or whole:
                        response.read()
                except BaseException:
                    response.close()
                    raise
            except httpx.TransportError as error:
                pause = retries.after_failure(error)
            else:
                if not failed:
                    break
                pause = retries.after_answer(response.status_code, response.headers, response.content)
            if self.on_pause is not None:
                self.on_pause(pause)
            time.sleep(pause.seconds)
        try:
            yield response
        finally:
            response.close()

    def _request(self, call: Call[Any]) -> httpx.Request:
        return self.http.build_request(
            call.method,
            call.path,
            params=call.params,
            content=call.content if call.body is None else call.body.slices(),
            headers=call.sent_headers,
            timeout=call.timeout,
        )


def read_events(response: httpx.Response, on_bytes: OnBytes | None = None) -> Iterator[Json]:
    """The objects of an event stream, up to ``[DONE]``. Raises ``UnexpectedAnswer``."""
    decoder = EventDecoder(str(response.request.url), response.headers.get("content-type", ""))
    for data in response.iter_bytes():
        if on_bytes is not None:
            on_bytes()
        yield from decoder.feed(data)
        if decoder.done:
            return
