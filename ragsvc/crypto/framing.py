"""Shared by the streaming formats: the keys of a streamed response, QUIC varints, and hexadecimal headers.

``hpke_stream`` uses varint lengths and a final frame, ``ehbp`` 32-bit lengths and no final frame.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke

RESPONSE_NONCE_BYTES: Final = 32


class ResponseKeys:
    """Key and nonce sequence of one streamed response (the construction of chunked OHTTP, RFC 9458 §4.4)."""

    def __init__(self, secret: bytes, enc: bytes, response_nonce: bytes) -> None:
        prk = hpke.extract(enc + response_nonce, secret)
        self._aead = AESGCM(hpke.expand(prk, b"key", hpke.KEY_BYTES))
        self._base_nonce = hpke.expand(prk, b"nonce", hpke.NONCE_BYTES)
        self._sequence = 0

    def _take_nonce(self) -> bytes:
        nonce = hpke.nonce_at(self._base_nonce, self._sequence)
        self._sequence += 1
        return nonce

    def seal(self, plaintext: bytes | memoryview, aad: bytes = b"") -> bytes:
        """Encrypt the next chunk; the result is 16 bytes longer than ``plaintext``."""
        return self._aead.encrypt(self._take_nonce(), plaintext, aad)

    def open(self, ciphertext: bytes | memoryview, aad: bytes = b"") -> bytes:
        """Decrypt the next chunk. Raises ``CryptoFailure``."""
        return hpke.open_sealed(self._aead, self._take_nonce(), ciphertext, aad)


def encode_varint(value: int) -> bytes:
    """Encode as a QUIC variable-length integer in the fewest bytes (RFC 9000 §16).

    >>> encode_varint(37).hex(), encode_varint(15293).hex(), encode_varint(494878333).hex()
    ('25', '7bbd', '9d7f3e7d')
    """
    for exponent in range(4):
        length = 1 << exponent
        if value < 1 << (8 * length - 2):
            return (value | exponent << (8 * length - 2)).to_bytes(length, "big")
    raise OverflowError("a QUIC varint has at most 62 bits")


def decode_varint(buffer: bytes | bytearray) -> tuple[int, int] | None:
    """Decode ``(value, bytes used)`` from the start of ``buffer``; ``None`` if ``buffer`` is too short.

    Only the shortest encoding is accepted, so that each stream has exactly one encoding.

    Raises:
        CryptoFailure: the encoding is longer than necessary.

    >>> decode_varint(bytes.fromhex("7bbdff"))
    (15293, 2)
    """
    if not buffer:
        return None
    exponent = buffer[0] >> 6
    length = 1 << exponent
    if len(buffer) < length:
        return None
    value = int.from_bytes(buffer[:length], "big") & ((1 << (8 * length - 2)) - 1)
    if exponent and value < 1 << (4 * length - 2):
        raise CryptoFailure
    return value, length


def require_bytes(text: str | None, *, size: int) -> bytes:
    """Decode hexadecimal text of exactly ``size`` bytes. Raises ``CryptoFailure``."""
    try:
        decoded = bytes.fromhex(text or "")
    except ValueError as error:
        raise CryptoFailure from error
    if len(decoded) != size or len(text or "") != 2 * size:  # fromhex ignores whitespace
        raise CryptoFailure
    return decoded
