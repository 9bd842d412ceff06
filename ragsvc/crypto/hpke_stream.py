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
_MAX_VARINT_BYTES = 8


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
        self._head = b""
        self._started = False
        self._finished = False

    @property
    def pending_bytes(self) -> int:
        """Size of the plaintext that ``flush`` would seal."""
        return len(self._pending)

    def start(self) -> bytes:
        """Return the first bytes of the body."""
        self.start_with_first_chunk()
        self._head = b""
        return self._nonce

    def start_with_first_chunk(self) -> None:
        """As ``start``, but the first bytes are returned together with the first chunk.

        A message of their own costs a system call here and another one at the client.
        """
        if self._started:
            raise RuntimeError("the stream has been started already")
        self._started = True
        self._head = self._nonce

    def write(self, data: bytes, *, flush: bool = False) -> bytes:
        """Take plaintext; return the chunks that are full now, often none (``b""``); ``flush``: also the rest."""
        self._require_open()
        if not flush and len(self._pending) + len(data) < MAX_CHUNK_BYTES:
            self._pending += data
            return b""
        frames: list[bytes] = []
        rest = self._seal_full(data, frames)
        if flush and len(rest):
            self._frame(rest, frames)
        else:
            self._pending += rest
        return self._joined(frames)

    def flush(self) -> bytes:
        """Seal the collected plaintext as one chunk; ``b""`` if there is none."""
        return self.write(b"", flush=True)

    def finish(self, data: bytes = b"") -> bytes:
        """Seal ``data`` and the rest, which is the final chunk. The sealer cannot be used afterwards."""
        self._require_open()
        frames: list[bytes] = []
        rest = self._seal_full(data, frames)
        self._finished = True
        frames += (b"\x00", self._keys.seal(rest, _FINAL))
        return self._joined(frames)

    def _joined(self, frames: list[bytes]) -> bytes:
        if not frames or not self._head:
            return b"".join(frames)
        head, self._head = self._head, b""
        return b"".join((head, *frames))

    def _seal_full(self, data: bytes, frames: list[bytes]) -> bytes | memoryview:
        """Add the full chunks of the collected plaintext and ``data`` to ``frames``; return the rest, not collected.

        Chunks are sealed from ``data`` in place: a copy of a large body costs as much as its encryption.
        """
        begin = 0
        if self._pending:
            begin = MAX_CHUNK_BYTES - len(self._pending)
            joined = b"".join((self._pending, memoryview(data)[:begin]))
            self._pending.clear()
            if len(joined) < MAX_CHUNK_BYTES:
                return joined
            self._frame(joined, frames)
        view = memoryview(data)
        full_end = begin + (len(data) - begin) // MAX_CHUNK_BYTES * MAX_CHUNK_BYTES
        for start in range(begin, full_end, MAX_CHUNK_BYTES):
            self._frame(view[start : start + MAX_CHUNK_BYTES], frames)
        return view[full_end:]

    def _frame(self, plaintext: bytes | memoryview, frames: list[bytes]) -> None:
        sealed = self._keys.seal(plaintext)
        frames += (encode_varint(len(sealed)), sealed)

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
        self._needed_bytes = RESPONSE_NONCE_BYTES
        """With fewer bytes in the buffer there is nothing to open: slices of any size are copied once."""
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
            return self._drain(data)
        except CryptoFailure:
            self._closed = True
            raise

    def _drain(self, data: bytes) -> bytes:
        """Open the complete chunks of the buffer and ``data``; keep the rest in the buffer."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed_bytes:
                return b""
            data = bytes(self._buffer)
            self._buffer.clear()
        position, plaintext = 0, b""
        keys = self._keys
        if keys is None and len(data) >= RESPONSE_NONCE_BYTES:
            position = RESPONSE_NONCE_BYTES
            secret = self._context.export(EXPORT_LABEL, 32)
            keys = self._keys = ResponseKeys(secret, self._context.enc, data[:position])
            self._needed_bytes = 0
        if keys is not None and not self._final:
            opened, position = self._open_frames(keys, data, position)
            plaintext = b"".join(opened)
        self._buffer += memoryview(data)[position:]
        if self._final and len(self._buffer) > _MAX_SEALED_BYTES:
            raise CryptoFailure
        return plaintext

    def _open_frames(self, keys: ResponseKeys, data: bytes, position: int) -> tuple[list[bytes], int]:
        """Open the complete chunks from ``position`` on; returns them and where the rest begins.

        Chunks are opened in place: copies of a large body cost as much as its decryption.
        """
        opened: list[bytes] = []
        view = memoryview(data)
        while (header := decode_varint(data[position : position + _MAX_VARINT_BYTES])) is not None:
            length, used = header
            if length == 0:
                self._final, self._needed_bytes = True, _MAX_SEALED_BYTES + 1
                return opened, position + used
            if not hpke.TAG_BYTES < length <= _MAX_SEALED_BYTES:
                raise CryptoFailure
            end = position + used + length
            if end > len(data):
                self._needed_bytes = end - position
                break
            opened.append(keys.open(view[position + used : end]))
            position, self._needed_bytes = end, 0
        return opened, position


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
