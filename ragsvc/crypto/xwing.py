"""X-Wing: the hybrid of ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem; KEM id 0x647a in HPKE).

This module has the combiner and the encodings; ML-KEM-768 and X25519 are those of ``cryptography``. The draft accepts
an all-zero X25519 output and ``cryptography`` refuses it. Only a malicious peer can produce that output.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ragsvc.core.errors import CryptoFailure

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 1216
CIPHERTEXT_BYTES: Final = 1120
SHARED_SECRET_BYTES: Final = 32
_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_CIPHERTEXT_BYTES = 1088
_LABEL = bytes.fromhex("5c2e2f2f5e5c")


def _combine(mlkem_secret: bytes, x25519_secret: bytes, x25519_ciphertext: bytes, x25519_public: bytes) -> bytes:
    return hashlib.sha3_256(mlkem_secret + x25519_secret + x25519_ciphertext + x25519_public + _LABEL).digest()


class XWingPrivateKey:
    """A decapsulation key, expanded from a 32-byte seed with SHAKE256."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("an X-Wing seed must have 32 bytes")
        expanded = hashlib.shake_256(seed).digest(96)
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self._x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self._x25519_public = self._x25519.public_key().public_bytes_raw()
        self.public_key = self._mlkem.public_key().public_bytes_raw() + self._x25519_public
        """1216 bytes."""

    @classmethod
    def generate(cls) -> XWingPrivateKey:
        return cls(os.urandom(SEED_BYTES))

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte shared secret that a 1120-byte ciphertext encapsulates.

        A changed ML-KEM part yields another secret instead of an error (implicit rejection). The AEAD that uses the
        secret detects this.

        Raises:
            CryptoFailure: the length is wrong, or the X25519 part is a point of low order.
        """
        if len(ciphertext) != CIPHERTEXT_BYTES:
            raise CryptoFailure
        mlkem_part, x25519_part = ciphertext[:_MLKEM_CIPHERTEXT_BYTES], ciphertext[_MLKEM_CIPHERTEXT_BYTES:]
        try:
            mlkem_secret = self._mlkem.decapsulate(mlkem_part)
            x25519_secret = self._x25519.exchange(X25519PublicKey.from_public_bytes(x25519_part))
        except ValueError as error:
            raise CryptoFailure from error
        return _combine(mlkem_secret, x25519_secret, x25519_part, self._x25519_public)


def encapsulate(public_key: bytes) -> tuple[bytes, bytes]:
    """Return ``(shared_secret, ciphertext)`` of 32 and 1120 bytes.

    Raises:
        CryptoFailure: ``public_key`` does not have 1216 bytes, its ML-KEM part is not reduced (FIPS 203 §7.2), or its
            X25519 part is a point of low order.
    """
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise CryptoFailure
    x25519_public = public_key[_MLKEM_PUBLIC_BYTES:]
    ephemeral = X25519PrivateKey.generate()
    x25519_ciphertext = ephemeral.public_key().public_bytes_raw()
    try:
        mlkem_secret, mlkem_ciphertext = MLKEM768PublicKey.from_public_bytes(
            public_key[:_MLKEM_PUBLIC_BYTES]
        ).encapsulate()
        x25519_secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(x25519_public))
    except ValueError as error:
        raise CryptoFailure from error
    shared_secret = _combine(mlkem_secret, x25519_secret, x25519_ciphertext, x25519_public)
    return shared_secret, mlkem_ciphertext + x25519_ciphertext
