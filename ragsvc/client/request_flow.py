"""What a transport sends and how it reads the responses, decided without I/O.

The synchronous and the asynchronous transport perform the same steps.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Final, NamedTuple

import httpx

from ragsvc.client.encryption_mode import BodyOpener, EncryptionMode, SealedExchange
from ragsvc.client.server_keys import Clock, KeyCache, ServerKey, VerifyKey, is_encryption_error
from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.core.network import is_loopback

ENCRYPTED: Final = "ragsvc_encrypted"
"""Response extension: ``True`` if the response was encrypted."""
_FIRST_ERROR_STATUS = 400


class RequestStep(NamedTuple):
    """A request to send; ``exchange`` opens its response, ``None`` for a response in plaintext."""

    request: httpx.Request
    exchange: SealedExchange | None


class ResponseReading(NamedTuple):
    """How to read a response: with ``body``, or in plaintext when it is ``None``; ``buffered``: to its end."""

    headers: httpx.Headers
    body: BodyOpener | None
    buffered: bool


class StepReply(NamedTuple):
    """A response that was read: ``content`` completely, or ``stream`` to be read by the caller."""

    response: httpx.Response
    reading: ResponseReading
    content: bytes = b""
    stream: httpx.SyncByteStream | httpx.AsyncByteStream | None = None


class RequestFlow:
    """The steps of each request to one server: fetch its key, seal, send, and once more after a change of key."""

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
        self._origin = httpx.URL(origin)
        self._prefix = self._origin.raw_path.partition(b"?")[0].rstrip(b"/")
        self._mode = mode
        self._keys = KeyCache(clock=clock, pinned_keys=pinned_keys, verify_key=verify_key)
        self._timeout_s = request_timeout_s
        if self._origin.scheme != "https" and not (self._keys.trusts_beyond_tls or is_loopback(self._origin.host)):
            raise ConfigurationError(
                ["a server without TLS needs pinned keys: anybody between client and server could replace its key"]
            )

    def check(self, request: httpx.Request) -> None:
        """Apply the timeout. Raises ``ConfigurationError`` for another origin or path prefix, redirects included."""
        inside = request.url.raw_path.startswith(self._prefix + b"/")
        if _origin_of(request.url) != _origin_of(self._origin) or not inside:
            raise ConfigurationError(
                [f"this transport encrypts for {self._origin} only, not for {_shown(request.url)}"]
            )
        if self._timeout_s is not None:
            given: dict[str, float | None] = request.extensions.get("timeout", {})
            names = ("connect", "read", "write", "pool")
            limits = {name: _smaller(given.get(name), self._timeout_s) for name in names}
            request.extensions = {**request.extensions, "timeout": limits}

    def run(self, request: httpx.Request, content: bytes) -> Generator[RequestStep, StepReply, httpx.Response]:
        """Yield the steps of a request, take their replies, and return the opened response.

        A request that the server cannot open is sealed and sent once more, if the server has changed its key.
        """
        key = self._keys.get()
        if key is None:
            key = yield from self._fetch_key(request)
        response, error = yield from self._send(request, content, key)
        if error is not None and is_encryption_error(error):
            self._keys.drop()
            current = yield from self._fetch_key(request)
            if current.public_key != key.public_key:
                response, _ = yield from self._send(request, content, current)
        return response

    def plan_reading(self, step: RequestStep, response: httpx.Response) -> ResponseReading:
        """Decide from status and headers how to read a response. Raises ``CryptoFailure``."""
        plain = ResponseReading(response.headers, None, buffered=True)
        if step.exchange is None:
            return plain
        try:
            headers, body = step.exchange.begin(response)
        except CryptoFailure:
            if response.status_code >= _FIRST_ERROR_STATUS:
                return plain
            raise
        return ResponseReading(headers, body, buffered=step.exchange.buffered)

    def _fetch_key(self, request: httpx.Request) -> Generator[RequestStep, StepReply, ServerKey]:
        """Fetch the server's key, without credentials, and check it. Raises ``CryptoFailure``."""
        url = self._origin.copy_with(raw_path=self._prefix + self._mode.key_path.encode())
        headers = {"Host": request.headers.get("host", url.netloc.decode()), "Accept-Encoding": "identity"}
        reply = yield RequestStep(httpx.Request("GET", url, headers=headers, extensions=request.extensions), None)
        if not reply.response.is_success:
            failure = CryptoFailure()
            failure.add_note(f"The server's key cannot be fetched: status {reply.response.status_code}.")
            raise failure
        return self._keys.put(self._mode.parse_key(reply.content))

    def _send(
        self, request: httpx.Request, content: bytes, key: ServerKey
    ) -> Generator[RequestStep, StepReply, tuple[httpx.Response, bytes | None]]:
        """Seal and send a request; the second value is the body of an error response in plaintext."""
        exchange = self._mode.seal(request, content, key, prefix=self._prefix)
        response, reading, plain, stream = yield RequestStep(exchange.request, exchange)
        if reading.body is None:
            return _plain_error(response, plain), plain
        opened = httpx.Response(
            exchange.status(response),
            headers=reading.headers,
            content=plain if stream is None else None,
            stream=stream,
            extensions={ENCRYPTED: True},
        )
        return opened, None


def _plain_error(response: httpx.Response, content: bytes) -> httpx.Response:
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() != "content-length"]
    return httpx.Response(response.status_code, headers=headers, content=content, extensions={ENCRYPTED: False})


def _origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _shown(url: httpx.URL) -> str:
    """A URL in an error message: without its query, which may hold secrets."""
    return str(url.copy_with(query=None, username=None, password=None))


def _smaller(given: float | None, limit: float) -> float:
    return limit if given is None else min(given, limit)
