"""httpx transports that encrypt every request, or send none.

They never fall back to plaintext: another origin, a redirect, an unencrypted success or a key that is not pinned is an
error. Only errors (status 400 and up) may come in plaintext, since a server that cannot open a request cannot encrypt;
they are marked ``response.extensions["ragsvc_encrypted"] = False`` and bounded in size.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Final

import httpx

from ragsvc.client.encryption_mode import BodyOpener, EncryptionMode, SealedExchange, refuse_plaintext
from ragsvc.client.server_keys import Clock, KeyCache, ServerKey, VerifyKey, is_encryption_error
from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.core.network import is_loopback

MAX_PLAIN_BYTES: Final = 64 * 1024
"""Bound of what is read unencrypted: keys and error bodies."""
ENCRYPTED: Final = "ragsvc_encrypted"
_FIRST_ERROR_STATUS = 400


class _Core:
    """What both transports share: judging origins, keys, timeouts; building requests. No I/O."""

    def __init__(
        self,
        origin: str,
        mode: EncryptionMode,
        *,
        pinned_keys: Collection[str] | None,
        verify_key: VerifyKey | None,
        request_timeout_s: float | None,
        clock: Clock,
    ) -> None:
        self.origin = httpx.URL(origin)
        self.mode = mode
        self.keys = KeyCache(clock=clock, pinned_keys=pinned_keys, verify_key=verify_key)
        self._timeout_s = request_timeout_s
        if self.origin.scheme != "https" and not (self.keys.trusts_beyond_tls or is_loopback(self.origin.host)):
            raise ConfigurationError(["a server without TLS needs pinned keys: anybody on the way could swap its key"])

    def check(self, request: httpx.Request) -> None:
        """Refuse requests to elsewhere, redirects included."""
        if _place(request.url) != _place(self.origin):
            raise ConfigurationError([f"this transport encrypts for {self.origin} only, not for {request.url.host}"])
        if self._timeout_s is not None:
            given: dict[str, float | None] = request.extensions.get("timeout", {})
            names = ("connect", "read", "write", "pool")
            limits = {name: _smaller(given.get(name), self._timeout_s) for name in names}
            request.extensions = {**request.extensions, "timeout": limits}

    def key_request(self, request: httpx.Request) -> httpx.Request:
        """The request for the server's key; it carries no credentials."""
        url = self.origin.copy_with(raw_path=self.mode.key_path.encode())
        headers = {"Host": request.headers.get("host", url.netloc.decode()), "Accept-Encoding": "identity"}
        return httpx.Request("GET", url, headers=headers, extensions=request.extensions)

    def take_key(self, response: httpx.Response, content: bytes) -> ServerKey:
        """Judge and hold a fetched key. Raises ``CryptoFailure``."""
        if not response.is_success:
            failure = CryptoFailure()
            failure.add_note(f"The server's key cannot be fetched: status {response.status_code}.")
            raise failure
        return self.keys.put(self.mode.parse_key(content))

    def begin(self, response: httpx.Response, exchange: SealedExchange) -> tuple[httpx.Headers, BodyOpener] | None:
        """How to open the answer; ``None`` for an error in plaintext. Raises ``CryptoFailure``."""
        try:
            return exchange.begin(response)
        except CryptoFailure:
            if response.status_code >= _FIRST_ERROR_STATUS:
                return None
            raise

    def rotated(self, content: bytes, used: ServerKey, current: ServerKey) -> bool:
        """Whether a refused request should be sealed again, for a key the server has changed meanwhile."""
        return is_encryption_error(content) and used.public_key != current.public_key


class _OpenedStream(httpx.SyncByteStream):
    """The plain body of an answer, opened as it comes."""

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
    """The plain body of an answer, opened as it comes."""

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
    """Encrypts for one server. ``origin`` is ``https://host[:port]``; ``mode`` is ``HpkeStream()`` or ``Rvenc()``.

    ``pinned_keys`` are fingerprints (see ``fingerprint``) of keys to accept; ``verify_key`` judges a fetched key.
    ``request_timeout_s`` caps each wait: for a connection, for a write, and between bytes of an answer.

    Requests raise ``CryptoFailure`` (with a note) when an answer is not what the server sealed, and
    ``ConfigurationError`` when a request cannot be encrypted; network failures stay httpx's.
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
        self._core = _Core(
            origin,
            mode,
            pinned_keys=pinned_keys,
            verify_key=verify_key,
            request_timeout_s=request_timeout_s,
            clock=clock,
        )
        self._inner = inner if inner is not None else httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Seal, send, open."""
        self._core.check(request)
        content = request.read()
        key = self._core.keys.get() or self._fetch_key(request)
        answer, error = self._attempt(request, content, key)
        if error is not None and is_encryption_error(error):
            self._core.keys.drop()
            current = self._fetch_key(request)
            if self._core.rotated(error, key, current):
                answer, _ = self._attempt(request, content, current)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _attempt(self, request: httpx.Request, content: bytes, key: ServerKey) -> tuple[httpx.Response, bytes | None]:
        """One exchange; the second value is the body of an error that came in plaintext."""
        exchange = self._core.mode.seal(request, content, key)
        response = self._inner.handle_request(exchange.request)
        try:
            opened = self._core.begin(response, exchange)
            if opened is None:
                error = _read_bounded(response)
                return _plain_error(response, error), error
            headers, body = opened
            stream = _OpenedStream(response, body)
            if exchange.buffered:
                plain = b"".join(stream)
                response.close()
                return _answer(exchange.status(response), headers, content=plain), None
        except BaseException:
            response.close()
            raise
        return _answer(exchange.status(response), headers, stream=stream), None

    def _fetch_key(self, request: httpx.Request) -> ServerKey:
        response = self._inner.handle_request(self._core.key_request(request))
        try:
            return self._core.take_key(response, _read_bounded(response))
        finally:
            response.close()


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
        self._core = _Core(
            origin,
            mode,
            pinned_keys=pinned_keys,
            verify_key=verify_key,
            request_timeout_s=request_timeout_s,
            clock=clock,
        )
        self._inner = inner if inner is not None else httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Seal, send, open."""
        self._core.check(request)
        content = await request.aread()
        key = self._core.keys.get() or await self._fetch_key(request)
        answer, error = await self._attempt(request, content, key)
        if error is not None and is_encryption_error(error):
            self._core.keys.drop()
            current = await self._fetch_key(request)
            if self._core.rotated(error, key, current):
                answer, _ = await self._attempt(request, content, current)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _attempt(
        self, request: httpx.Request, content: bytes, key: ServerKey
    ) -> tuple[httpx.Response, bytes | None]:
        """One exchange; the second value is the body of an error that came in plaintext."""
        exchange = self._core.mode.seal(request, content, key)
        response = await self._inner.handle_async_request(exchange.request)
        try:
            opened = self._core.begin(response, exchange)
            if opened is None:
                error = await _aread_bounded(response)
                return _plain_error(response, error), error
            headers, body = opened
            stream = _AsyncOpenedStream(response, body)
            if exchange.buffered:
                plain = b"".join([data async for data in stream])
                await response.aclose()
                return _answer(exchange.status(response), headers, content=plain), None
        except BaseException:
            await response.aclose()
            raise
        return _answer(exchange.status(response), headers, stream=stream), None

    async def _fetch_key(self, request: httpx.Request) -> ServerKey:
        response = await self._inner.handle_async_request(self._core.key_request(request))
        try:
            return self._core.take_key(response, await _aread_bounded(response))
        finally:
            await response.aclose()


def _answer(
    status: int,
    headers: httpx.Headers,
    *,
    content: bytes | None = None,
    stream: httpx.SyncByteStream | httpx.AsyncByteStream | None = None,
) -> httpx.Response:
    return httpx.Response(status, headers=headers, content=content, stream=stream, extensions={ENCRYPTED: True})


def _plain_error(response: httpx.Response, content: bytes) -> httpx.Response:
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() != "content-length"]
    return httpx.Response(response.status_code, headers=headers, content=content, extensions={ENCRYPTED: False})


def _sync_body(response: httpx.Response) -> httpx.SyncByteStream:
    """The body as the inner transport gives it, undecoded."""
    if not isinstance(response.stream, httpx.SyncByteStream):
        raise TypeError("the inner transport is not a synchronous one")
    return response.stream


def _async_body(response: httpx.Response) -> httpx.AsyncByteStream:
    """The body as the inner transport gives it, undecoded."""
    if not isinstance(response.stream, httpx.AsyncByteStream):
        raise TypeError("the inner transport is not an asynchronous one")
    return response.stream


def _read_bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    for data in _sync_body(response):
        content += data
        if len(content) > MAX_PLAIN_BYTES:
            raise refuse_plaintext(response)
    response.close()
    return bytes(content)


async def _aread_bounded(response: httpx.Response) -> bytes:
    content = bytearray()
    async for data in _async_body(response):
        content += data
        if len(content) > MAX_PLAIN_BYTES:
            raise refuse_plaintext(response)
    await response.aclose()
    return bytes(content)


def _place(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _smaller(given: float | None, limit: float) -> float:
    return limit if given is None else min(given, limit)
