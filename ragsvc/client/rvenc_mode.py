"""The RVENC mode: chat completions only, sealed with X-Wing and XChaCha20-Poly1305, answered by encrypted events."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from threading import Lock
from typing import Any, Final

import httpx
import msgspec

from ragsvc.client.chunk_aggregation import aggregate_chunks
from ragsvc.client.encryption_mode import BodyOpener, bearer_of, carry_headers, refuse_plaintext
from ragsvc.client.server_keys import ServerKey, parse_key
from ragsvc.core.defaults import DEFAULT_MAX_BUFFER_BYTES
from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.core.gateway.event_stream import DONE, write_event
from ragsvc.crypto import rvenc, xwing
from ragsvc.crypto.rvenc_events import EventReader

DEFAULT_KEY_PATH: Final = "/rvenc/key"
EVENT_STREAM: Final = "text/event-stream"
MAX_CACHED_CLIENTS: Final = 256

_PROVIDER_HEADERS: Final = {
    "x-provider-key": rvenc.PROVIDER_KEY_FIELD,
    "x-provider-base-url": rvenc.PROVIDER_BASE_URL_FIELD,
}
"""Headers that are sent as fields of the encrypted body, because RVENC neither hides nor authenticates headers."""


class RvencBody:
    """Opens RVENC events into what an OpenAI client expects: plain events, or one JSON document."""

    def __init__(self, opener: rvenc.ResponseOpener, *, stream: bool, max_buffer_bytes: int) -> None:
        self._opener = opener
        self._reader = EventReader(max_buffer_bytes=max_buffer_bytes)
        self._stream = stream
        self._room = max_buffer_bytes
        self._chunks: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the response; return plain events, or ``b""`` while a document is being built."""
        plain = b"".join(self._take(self._opener.open(event)) for event in self._reader.feed(data))
        return plain if self._stream else b""

    def finish(self) -> bytes:
        """Return the document, at the end of the response. Raises ``CryptoFailure`` if the last event is missing."""
        self._reader.finish()
        self._opener.finish()
        if self._stream:
            return b""
        return json.dumps(self.error or aggregate_chunks(self._chunks)).encode()

    def _take(self, event: rvenc.OpenedEvent) -> bytes:
        if event.name is rvenc.EventName.DONE:
            return DONE
        try:
            document = json.loads(event.payload)
        except ValueError as error:
            raise CryptoFailure from error
        if not isinstance(document, dict):
            raise CryptoFailure
        if event.name is rvenc.EventName.ERROR:
            self.error = document
        elif not self._stream:
            self._room -= len(event.payload)
            if self._room < 0:
                raise CryptoFailure
            self._chunks.append(document)
        return write_event(json.dumps(document).encode())


class RvencExchange:
    """One chat request and its response."""

    def __init__(
        self,
        request: httpx.Request,
        content: bytes,
        keys: rvenc.EncryptionKeys,
        *,
        prefix: bytes,
        max_buffer_bytes: int,
    ) -> None:
        if request.method.upper() != "POST" or not request.url.path.endswith("/chat/completions"):
            raise ConfigurationError(
                [f"RVENC encrypts chat completions only; {request.method} {request.url.path} would be plaintext"]
            )
        self._keys = keys
        self._max_buffer_bytes = max_buffer_bytes
        self._stream = _asks_for_stream(content)
        self.buffered = not self._stream
        self._body: RvencBody | None = None
        sealed = rvenc.seal_request(keys, _with_provider_fields(content, request.headers))
        self._nonce = bytes.fromhex(sealed.nonce)
        headers = carry_headers(request.headers, "accept", "accept-encoding", *_PROVIDER_HEADERS)
        headers["Accept"] = EVENT_STREAM
        headers["Accept-Encoding"] = "identity"
        headers["Content-Type"] = "application/json"
        self.request = httpx.Request(
            "POST",
            request.url.copy_with(raw_path=prefix + rvenc.CHAT_PATH.encode()),
            headers=headers,
            content=msgspec.json.encode(sealed),
            extensions=request.extensions,
        )

    def begin(self, response: httpx.Response) -> tuple[httpx.Headers, BodyOpener]:
        """Accept a stream of encrypted events. Raises ``CryptoFailure`` for anything else."""
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        if response.has_redirect_location or media_type != EVENT_STREAM:
            raise refuse_plaintext(response)
        if not response.is_success:  # the error of a chat that did not start is a single event, also for streams
            self._stream, self.buffered = False, True
        opener = rvenc.ResponseOpener(
            self._keys.shared_secret,
            self._nonce,
            response_nonce_header=response.headers.get(rvenc.RESPONSE_NONCE_HEADER),
        )
        headers = carry_headers(response.headers, rvenc.RESPONSE_NONCE_HEADER.lower())
        headers["Content-Type"] = EVENT_STREAM if self._stream else "application/json"
        self._body = RvencBody(opener, stream=self._stream, max_buffer_bytes=self._max_buffer_bytes)
        return headers, self._body

    def status(self, response: httpx.Response) -> int:
        """The response's own status, or 502 if a chat that was not streamed ended with a sealed error."""
        if response.is_success and self._body is not None and self._body.error is not None:
            return int(httpx.codes.BAD_GATEWAY)
        return response.status_code


class Rvenc:
    """Encrypts chat completions. Keys are encapsulated once for each API key and server key, and reused.

    ``encryption_keys`` are pre-generated keys, made with ``rvenc.generate_encryption_keys``. ``max_buffer_bytes``
    bounds an event, and a response that is not streamed.
    """

    def __init__(
        self,
        *,
        key_path: str = DEFAULT_KEY_PATH,
        encryption_keys: rvenc.EncryptionKeys | None = None,
        max_buffer_bytes: int = DEFAULT_MAX_BUFFER_BYTES,
    ) -> None:
        self.key_path = key_path
        self._given_keys = encryption_keys
        self._max_buffer_bytes = max_buffer_bytes
        self._cached: OrderedDict[bytes, rvenc.EncryptionKeys] = OrderedDict()
        self._lock = Lock()

    def parse_key(self, content: bytes) -> ServerKey:
        """Parse the response of ``GET /rvenc/key``. Raises ``CryptoFailure``."""
        return parse_key(content, bytes.fromhex, size=xwing.PUBLIC_KEY_BYTES)

    def seal(self, request: httpx.Request, content: bytes, key: ServerKey, *, prefix: bytes = b"") -> RvencExchange:
        """Seal a chat request. Raises ``ConfigurationError`` for other routes, which RVENC cannot encrypt."""
        keys = self._given_keys or self._keys_for(bearer_of(request), key)
        return RvencExchange(request, content, keys, prefix=prefix, max_buffer_bytes=self._max_buffer_bytes)

    def _keys_for(self, api_key: str, key: ServerKey) -> rvenc.EncryptionKeys:
        """The keys for an API key. Two API keys never share a ``cipherText``, which would link them to one client."""
        name = hashlib.sha256(api_key.encode() + b"\x00" + key.public_key).digest()
        with self._lock:
            keys = self._cached.pop(name, None) or rvenc.generate_encryption_keys(key.public_key)
            self._cached[name] = keys
            while len(self._cached) > MAX_CACHED_CLIENTS:
                self._cached.popitem(last=False)
            return keys


def _with_provider_fields(content: bytes, headers: httpx.Headers) -> bytes:
    """The chat with the provider's key and base URL of the request's headers; an invalid chat is sent as it is."""
    given = {field: headers[name] for name, field in _PROVIDER_HEADERS.items() if headers.get(name)}
    if not given:
        return content
    try:
        fields = json.loads(content)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return content
    return json.dumps({**fields, **given}).encode()


def _asks_for_stream(content: bytes) -> bool:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ConfigurationError(["RVENC encrypts JSON requests only; the request body is not valid JSON"]) from error
    return isinstance(document, dict) and document.get("stream") is True
