"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), built from ciphers of ``cryptography``, which does not have it.

Only the derivation of the subkey is arithmetic of our own, and that reads HChaCha20 from a block of ChaCha20. libsodium
has the whole construction, but its Python package would be larger than all other needs of the client together.
"""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from ragsvc.core.errors import CryptoFailure

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16

_HCHACHA_NONCE_BYTES = 16
_BLOCK_BYTES = 64
_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_WORD = 0xFFFFFFFF


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Encrypt; returns the ciphertext and its tag. Raises ``ValueError`` for a key or nonce of another length."""
    cipher, inner_nonce = _inner(key, nonce)
    return cipher.encrypt(inner_nonce, plaintext, aad)


def open_sealed(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """Decrypt what ``seal`` returns.

    Raises:
        CryptoFailure: the ciphertext was changed or truncated, or key, nonce or ``aad`` are others.
        ValueError: the key or the nonce has another length.
    """
    cipher, inner_nonce = _inner(key, nonce)
    try:
        return cipher.decrypt(inner_nonce, ciphertext, aad)
    except InvalidTag as error:
        raise CryptoFailure from error


def derive_subkey(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 (§2.2) of a key of 32 bytes and a nonce of 16 bytes.

    A block of ChaCha20 is the sum of its state after the rounds and its first state (RFC 8439 §2.3). HChaCha20 is the
    first and the last four words after the rounds, so the first state is subtracted again: there the words are the
    constants and the nonce.
    """
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(_BLOCK_BYTES))
    words = struct.unpack("<16I", block)
    first_state = (*_CONSTANTS, *struct.unpack("<4I", nonce))
    last_state = (*words[:4], *words[12:])
    return struct.pack("<8I", *((last - first) & _WORD for last, first in zip(last_state, first_state, strict=True)))


def _inner(key: bytes, nonce: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    """The cipher of RFC 8439 with the subkey, and its nonce."""
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"XChaCha20-Poly1305 has keys of {KEY_BYTES} bytes and nonces of {NONCE_BYTES} bytes")
    subkey = derive_subkey(key, nonce[:_HCHACHA_NONCE_BYTES])
    return ChaCha20Poly1305(subkey), bytes(4) + nonce[_HCHACHA_NONCE_BYTES:]
