"""The encrypted HTTP body protocol (EHBP) 0.3.1, compatible with the public npm and PyPI clients.

Framing and keys of requests and responses, for server and client. The protocol has two gaps: requests and responses
without a body are plaintext, and the end of a response is not authenticated, so truncation at a frame boundary is not
detected. The clients of this package use ``hpke_stream`` instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke
from ragsvc.crypto.framing import RESPONSE_NONCE_BYTES, ResponseKeys, require_bytes

REQUEST_INFO: Final = b"ehbp request"
EXPORT_LABEL: Final = b"ehbp response"
ENCAPSULATED_KEY_HEADER: Final = "Ehbp-Encapsulated-Key"
RESPONSE_NONCE_HEADER: Final = "Ehbp-Response-Nonce"
KEYS_PATH: Final = "/.well-known/hpke-keys"
KEYS_MEDIA_TYPE: Final = "application/ohttp-keys"
PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
KEY_CONFIG_PROBLEM: Final = "urn:ietf:params:ehbp:error:key-config"
"""The problem type, sent with status 422, after which a client fetches the key configuration again."""
KEY_CONFIG_BYTES: Final = 41
DEFAULT_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
_LENGTH_BYTES = 4
_CONFIG_HEAD = b"\x00" + hpke.KEM_ID.to_bytes(2, "big")
_CONFIG_TAIL = (4).to_bytes(2, "big") + hpke.KDF_ID.to_bytes(2, "big") + hpke.AEAD_ID.to_bytes(2, "big")


def encode_key_config(public_key: bytes) -> bytes:
    """Encode a key configuration of 41 bytes (RFC 9458 §3.1), without the length prefix that the npm client rejects."""
    return _CONFIG_HEAD + public_key + _CONFIG_TAIL


def decode_key_config(config: bytes) -> bytes:
    """Return the 32-byte public key of a key configuration.

    Raises:
        CryptoFailure: the configuration is malformed or names another cipher suite.
    """
    public_key = config[len(_CONFIG_HEAD) : len(_CONFIG_HEAD) + hpke.ENC_BYTES]
    if config != encode_key_config(public_key) or len(config) != KEY_CONFIG_BYTES:
        raise CryptoFailure
    return public_key


def encode_frame(sealed: bytes) -> bytes:
    """Encode a frame: a 32-bit big-endian length, then the sealed chunk."""
    return len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed


class FrameOpener:
    """Parses frames from slices of any size and opens each with ``open_chunk``; refuses frames over the limit."""

    def __init__(self, open_chunk: Callable[[bytes], bytes], *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self._open_chunk = open_chunk
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._closed = False
        self.opened_frames = 0

    @property
    def buffered_bytes(self) -> int:
        """Size of the incomplete frame that is buffered."""
        return len(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return the plaintext of the completed frames. Raises ``CryptoFailure``."""
        if self._closed:
            raise CryptoFailure
        self._buffer += data
        plaintext = bytearray()
        try:
            while (sealed := self._next_frame()) is not None:
                if sealed:  # an empty frame is skipped and does not use a sequence number
                    plaintext += self._open_chunk(sealed)
                    self.opened_frames += 1
        except CryptoFailure:
            self._closed = True
            raise
        return bytes(plaintext)

    def finish(self) -> None:
        """Check that the body ended at a frame boundary. Raises ``CryptoFailure`` otherwise."""
        if self._closed or self._buffer:
            self._closed = True
            raise CryptoFailure
        self._closed = True

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
        if length > self._max_frame_bytes or 0 < length < hpke.TAG_BYTES:
            raise CryptoFailure
        end = _LENGTH_BYTES + length
        if len(self._buffer) < end:
            return None
        sealed = bytes(self._buffer[_LENGTH_BYTES:end])
        del self._buffer[:end]
        return sealed


class ServerExchange:
    """The server's side of a request and its response.

    ``request`` opens the frames of the body. The first frame shows which of the accepted keys the client used
    (``key_index``). As long as ``request.opened_frames`` is 0, a failure means that the client used another key
    configuration (status 422).
    """

    def __init__(
        self,
        encapsulated_key: str | None,
        private_keys: Sequence[X25519PrivateKey],
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        response_nonce: bytes | None = None,
    ) -> None:
        """Parse the ``Ehbp-Encapsulated-Key`` header (64 hexadecimal digits). Raises ``CryptoFailure``."""
        self.enc = require_bytes(encapsulated_key, size=hpke.ENC_BYTES)
        self._contexts = [hpke.set_up_recipient(self.enc, key, REQUEST_INFO) for key in private_keys]
        self._nonce = os.urandom(RESPONSE_NONCE_BYTES) if response_nonce is None else response_nonce
        self._response_keys: ResponseKeys | None = None
        self.key_index: int | None = None
        self.request = FrameOpener(self._open_chunk, max_frame_bytes=max_frame_bytes)

    def _open_chunk(self, sealed: bytes) -> bytes:
        if self.key_index is not None:
            return self._contexts[self.key_index].open(sealed)
        for index, context in enumerate(self._contexts):
            try:
                plaintext = context.open(sealed)
            except CryptoFailure:
                continue
            self.key_index = index
            return plaintext
        raise CryptoFailure

    @property
    def response_nonce_header(self) -> str:
        """The value of ``Ehbp-Response-Nonce``."""
        return self._nonce.hex()

    def seal_response(self, plaintext: bytes) -> bytes:
        """Seal the next piece of the response into one frame; an empty piece yields no frame.

        Raises:
            RuntimeError: no frame of the request was opened, so nothing shows that its sender has the key.
        """
        if self.key_index is None:
            raise RuntimeError("the request must be opened before its response is sealed")
        if not plaintext:
            return b""
        if self._response_keys is None:
            secret = self._contexts[self.key_index].export(EXPORT_LABEL, 32)
            self._response_keys = ResponseKeys(secret, self.enc, self._nonce)
        return encode_frame(self._response_keys.seal(plaintext))


class ClientExchange:
    """The client's side of a request and its response."""

    def __init__(self, public_key: bytes, *, ephemeral: X25519PrivateKey | None = None) -> None:
        """Encapsulate to the server's 32-byte public key; ``ephemeral`` is for tests. Raises ``CryptoFailure``."""
        self._context = hpke.set_up_sender(public_key, REQUEST_INFO, ephemeral=ephemeral)

    @property
    def encapsulated_key_header(self) -> str:
        """The value of ``Ehbp-Encapsulated-Key``."""
        return self._context.enc.hex()

    def seal_request(self, plaintext: bytes) -> bytes:
        """Seal the next piece of the request body into one frame."""
        return encode_frame(self._context.seal(plaintext))

    def open_response(
        self, response_nonce: str | None, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> FrameOpener:
        """Start opening the response that has this ``Ehbp-Response-Nonce`` header. Raises ``CryptoFailure``."""
        nonce = require_bytes(response_nonce, size=RESPONSE_NONCE_BYTES)
        keys = ResponseKeys(self._context.export(EXPORT_LABEL, 32), self._context.enc, nonce)
        return FrameOpener(keys.open, max_frame_bytes=max_frame_bytes)
