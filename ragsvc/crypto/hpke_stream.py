"""Streamed responses over HPKE: an extension of the Oryxen format, with the construction of chunked OHTTP.

The body is ``response_nonce(32) || (varint(len) || chunk)* || 0x00 || last chunk``. The last chunk is sealed with the
AAD ``final`` and extends to the end of the body, so truncation is always detected. A chunk has at most 16 KiB of
plaintext. This module knows neither HTTP nor the content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke
from ragsvc.crypto.framing import RESPONSE_NONCE_BYTES, ResponseKeys, decode_varint, encode_varint

EXPORT_LABEL: Final = b"oryxen-hpke-e2ee-v1 stream response"
REQUEST_LABEL: Final = b"oryxen-hpke-e2ee-v1 stream request"
STEERING_HEADERS: Final = ("x-provider-key", "x-provider-base-url", "x-ragsvc-use-rag", "x-ragsvc-collection")
"""Headers that choose the provider, its key or the documents of a request; their order is that of the AAD."""
MAX_CHUNK_BYTES: Final = 16 * 1024
_FINAL = b"final"
_MAX_SEALED_BYTES = MAX_CHUNK_BYTES + hpke.TAG_BYTES


def bind_request(
    *, method: str, target: str, content_type: str, api_key: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the request's AAD: the parts that a gateway must not change, above all the account that pays.

    ``target`` is path and query as sent (``/v1/search?x=1``), ``content_type`` the media type of the plaintext (may be
    empty), ``api_key`` the bearer token without its scheme. Each part has a 16-bit length prefix; the API key is hashed
    instead. Name and value of each of the ``STEERING_HEADERS`` in ``headers`` follow; a request without them has the
    AAD of earlier releases.

    Raises:
        CryptoFailure: a part is longer than 65,535 bytes.
    """
    steering = [] if headers is None else [(name, headers[name]) for name in STEERING_HEADERS if name in headers]
    account = hashlib.sha256(api_key.encode("utf-8", "surrogateescape")).digest()
    bound = _with_lengths(method.upper(), target, content_type) + account
    return REQUEST_LABEL + b"\x00" + bound + b"".join(_with_lengths(*header) for header in steering)


def _with_lengths(*parts: str) -> bytes:
    encoded = [part.encode("utf-8", "surrogateescape") for part in parts]
    if any(len(part) > 0xFFFF for part in encoded):
        raise CryptoFailure
    return b"".join(len(part).to_bytes(2, "big") + part for part in encoded)


class StreamSealer:
    """Seals one streamed response: call ``start`` first, then ``write`` and ``flush``, then ``finish`` exactly once.

    Chunks of single tokens would reveal the tokens' lengths, so plaintext is collected: ``write`` returns full chunks
    only, ``flush`` (called when the caller decides) and ``finish`` return the rest.
    """

    def __init__(self, context: hpke.RecipientContext, *, response_nonce: bytes | None = None) -> None:
        self._nonce = os.urandom(RESPONSE_NONCE_BYTES) if response_nonce is None else response_nonce
        self._keys = ResponseKeys(context.export(EXPORT_LABEL, 32), context.enc, self._nonce)
        self._pending = bytearray()
        self._started = False
        self._finished = False

    @property
    def pending_bytes(self) -> int:
        """Size of the plaintext that ``flush`` would seal."""
        return len(self._pending)

    def start(self) -> bytes:
        """Return the first bytes of the body."""
        if self._started:
            raise RuntimeError("the stream has been started already")
        self._started = True
        return self._nonce

    def write(self, data: bytes) -> bytes:
        """Take plaintext; return the chunks that are full now, often none (``b""``)."""
        self._require_open()
        self._pending += data
        frames = bytearray()
        while len(self._pending) >= MAX_CHUNK_BYTES:
            frames += self._frame(bytes(self._pending[:MAX_CHUNK_BYTES]))
            del self._pending[:MAX_CHUNK_BYTES]
        return bytes(frames)

    def flush(self) -> bytes:
        """Seal the collected plaintext as one chunk; ``b""`` if there is none."""
        self._require_open()
        if not self._pending:
            return b""
        frame = self._frame(bytes(self._pending))
        self._pending.clear()
        return frame

    def finish(self) -> bytes:
        """Seal the rest as the final chunk. The sealer cannot be used afterwards."""
        self._require_open()
        self._finished = True
        return b"\x00" + self._keys.seal(bytes(self._pending), _FINAL)

    def _frame(self, plaintext: bytes) -> bytes:
        sealed = self._keys.seal(plaintext)
        return encode_varint(len(sealed)) + sealed

    def _require_open(self) -> None:
        if not self._started or self._finished:
            raise RuntimeError("the stream has not been started, or it is finished")


class StreamOpener:
    """Opens one streamed response from slices of any size; each returned byte is authenticated.

    After the first failure every call fails. Buffers less than one chunk plus the last slice.
    """

    def __init__(self, context: hpke.SenderContext) -> None:
        self._context = context
        self._keys: ResponseKeys | None = None
        self._buffer = bytearray()
        self._final = False
        self._closed = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return the plaintext of the completed chunks. Raises ``CryptoFailure``."""
        return self._advance(data)

    def finish(self) -> bytes:
        """Return the plaintext of the final chunk, after the last ``feed``.

        Raises:
            CryptoFailure: the stream was truncated or changed. The plaintext returned so far is genuine but incomplete.
        """
        tail = self._advance(b"")
        if not self._final or self._keys is None or self._closed:
            self._closed = True
            raise CryptoFailure
        self._closed = True
        return tail + self._keys.open(bytes(self._buffer), _FINAL)

    def _advance(self, data: bytes) -> bytes:
        if self._closed:
            raise CryptoFailure
        try:
            self._buffer += data
            return self._drain()
        except CryptoFailure:
            self._closed = True
            raise

    def _drain(self) -> bytes:
        keys = self._keys or self._read_nonce()
        if keys is None:
            return b""
        plaintext = bytearray()
        while not self._final and (sealed := self._next_frame()) is not None:
            plaintext += keys.open(sealed)
        if self._final and len(self._buffer) > _MAX_SEALED_BYTES:
            raise CryptoFailure
        return bytes(plaintext)

    def _read_nonce(self) -> ResponseKeys | None:
        if len(self._buffer) < RESPONSE_NONCE_BYTES:
            return None
        nonce = bytes(self._buffer[:RESPONSE_NONCE_BYTES])
        del self._buffer[:RESPONSE_NONCE_BYTES]
        self._keys = ResponseKeys(self._context.export(EXPORT_LABEL, 32), self._context.enc, nonce)
        return self._keys

    def _next_frame(self) -> bytes | None:
        """Take the next complete chunk from the buffer; ``None`` if it is incomplete or the final chunk has started."""
        header = decode_varint(self._buffer)
        if header is None:
            return None
        length, used = header
        if length == 0:
            del self._buffer[:used]
            self._final = True
            return None
        if not hpke.TAG_BYTES < length <= _MAX_SEALED_BYTES:
            raise CryptoFailure
        if len(self._buffer) < used + length:
            return None
        sealed = bytes(self._buffer[used : used + length])
        del self._buffer[: used + length]
        return sealed


def pad_event_stream(events: bytes, *, multiple: int) -> bytes:
    r"""Pad server-sent events to a multiple of ``multiple`` bytes with a comment line, which clients ignore.

    ``events`` must end with a blank line. The padding hides the lengths of tokens. A comment is a line that starts with
    a colon (HTML standard §9.2.6).

    >>> pad_event_stream(b"data: hi\n\n", multiple=16)
    b'data: hi\n\n:   \n\n'
    """
    missing = -len(events) % multiple
    if missing == 0:
        return events
    smallest = len(b":\n\n")
    while missing < smallest:
        missing += multiple
    return events + b":" + b" " * (missing - smallest) + b"\n\n"
