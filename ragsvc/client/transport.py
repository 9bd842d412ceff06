"""httpx transports that encrypt every request and never fall back to plaintext.

A request to another origin, a redirect, a success response without encryption and a key that is not pinned are errors.
Only error responses (status 400 and higher) may arrive in plaintext, because a server that cannot open a request cannot
encrypt its response. They are marked with ``response.extensions["ragsvc_encrypted"] = False`` and bounded in size.

This module does the I/O. ``request_flow`` decides what to send and how to read the responses.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Final

import httpx

from ragsvc.client.encryption_mode import BodyOpener, EncryptionMode, refuse_plaintext
from ragsvc.client.request_flow import ENCRYPTED, RequestFlow, RequestStep, StepReply
from ragsvc.client.server_keys import Clock, VerifyKey
from ragsvc.core.errors import CryptoFailure

MAX_PLAIN_BYTES: Final = 64 * 1024
"""Largest plaintext body that is read: of key responses and error responses."""


class _OpenedStream(httpx.SyncByteStream):
    """The plaintext body of a response, opened while it is read."""

    def __init__(self, response: httpx.Response, body: BodyOpener) -> None:
        self._response = response
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        try:
            for data in _sync_body(self._response):
                if plain := self._body.feed(data):
                    yield plain
            if plain := self._body.finish():
                yield plain
        except CryptoFailure:
            self._response.close()
            raise

    def close(self) -> None:
        self._response.close()


class _AsyncOpenedStream(httpx.AsyncByteStream):
    """The plaintext body of a response, opened while it is read."""

    def __init__(self, response: httpx.Response, body: BodyOpener) -> None:
        self._response = response
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in _async_body(self._response):
                if plain := self._body.feed(data):
                    yield plain
            if plain := self._body.finish():
                yield plain
        except CryptoFailure:
            await self._response.aclose()
            raise

    async def aclose(self) -> None:
        await self._response.aclose()


class EncryptedTransport(httpx.BaseTransport):
    """Encrypts for one server. ``origin`` is ``https://host[:port][/prefix]``, of which a proxy removes the prefix.

    ``mode`` is ``HpkeStream()`` or ``Rvenc()``.

    ``pinned_keys`` are the fingerprints (see ``fingerprint``) of the keys to accept; ``verify_key`` checks a fetched
    key. ``request_timeout_s`` caps each wait: for a connection, for a write, and between bytes of a response.

    Requests raise ``CryptoFailure`` (with a note) when a response was not sealed by the server or was changed, and
    ``ConfigurationError`` when a request cannot be encrypted. Network failures raise httpx's exceptions.
    """

    def __init__(
        self,
        origin: str,
        mode: EncryptionMode,
        *,
        inner: httpx.BaseTransport | None = None,
        pinned_keys: Collection[str] | None = None,
        verify_key: VerifyKey | None = None,
        request_timeout_s: float | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._flow = RequestFlow(
            origin,
            mode,
            pinned_keys=pinned_keys,
            verify_key=verify_key,
            request_timeout_s=request_timeout_s,
            clock=clock,
        )
        self._inner = inner if inner is not None else httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Seal and send a request, and open its response."""
        self._flow.check(request)
        steps = self._flow.run(request, request.read())
        try:
            step = next(steps)
            while True:
                step = steps.send(self._perform(step))
        except StopIteration as end:
            response: httpx.Response = end.value
            return response

    def close(self) -> None:
        self._inner.close()

    def _perform(self, step: RequestStep) -> StepReply:
        response = self._inner.handle_request(step.request)
        try:
            reading = self._flow.plan_reading(step, response)
            if reading.body is None:
                reply = StepReply(response, reading, _read_bounded(response))
            elif not reading.buffered:
                return StepReply(response, reading, stream=_OpenedStream(response, reading.body))
            else:
                reply = StepReply(response, reading, b"".join(_OpenedStream(response, reading.body)))
        except BaseException:
            response.close()
            raise
        response.close()
        return reply


class AsyncEncryptedTransport(httpx.AsyncBaseTransport):
    """``EncryptedTransport`` for ``httpx.AsyncClient``."""

    def __init__(
        self,
        origin: str,
        mode: EncryptionMode,
        *,
        inner: httpx.AsyncBaseTransport | None = None,
        pinned_keys: Collection[str] | None = None,
        verify_key: VerifyKey | None = None,
        request_timeout_s: float | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._flow = RequestFlow(
            origin,
            mode,
            pinned_keys=pinned_keys,
            verify_key=verify_key,
            request_timeout_s=request_timeout_s,
            clock=clock,
        )
        self._inner = inner if inner is not None else httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Seal and send a request, and open its response."""
        self._flow.check(request)
        steps = self._flow.run(request, await request.aread())
        try:
            step = next(steps)
            while True:
                step = steps.send(await self._perform(step))
        except StopIteration as end:
            response: httpx.Response = end.value
            return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _perform(self, step: RequestStep) -> StepReply:
        response = await self._inner.handle_async_request(step.request)
        try:
            reading = self._flow.plan_reading(step, response)
            if reading.body is None:
                reply = StepReply(response, reading, await _aread_bounded(response))
            elif not reading.buffered:
                return StepReply(response, reading, stream=_AsyncOpenedStream(response, reading.body))
            else:
                opened = _AsyncOpenedStream(response, reading.body)
                reply = StepReply(response, reading, b"".join([data async for data in opened]))
        except BaseException:
            await response.aclose()
            raise
        await response.aclose()
        return reply


def _sync_body(response: httpx.Response) -> httpx.SyncByteStream:
    """The body as the inner transport delivers it, undecoded."""
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("the inner transport is not synchronous")
    return response.stream


def _async_body(response: httpx.Response) -> httpx.AsyncByteStream:
    """The body as the inner transport delivers it, undecoded."""
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("the inner transport is not asynchronous")
    return response.stream


def _read_bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    for data in _sync_body(response):
        content += data
        if len(content) > MAX_PLAIN_BYTES:
            raise refuse_plaintext(response)
    return bytes(content)


async def _aread_bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for data in _async_body(response):
        content += data
        if len(content) > MAX_PLAIN_BYTES:
            raise refuse_plaintext(response)
    return bytes(content)


__all__ = ["ENCRYPTED", "MAX_PLAIN_BYTES", "AsyncEncryptedTransport", "EncryptedTransport"]
