"""Seals small values of the database: AES-256-GCM under a key of the master key's, each bound to its place."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ragsvc.crypto import hpke
from ragsvc.crypto.at_rest import MasterKey

_VERSION: Final = b"\x01"


class ValueSealer:
    """``purpose`` separates the values of one kind from all others; ``place`` (a row's key) those from each other."""

    def __init__(self, master: MasterKey, purpose: str) -> None:
        self._aead = AESGCM(master.derive(purpose))

    def seal(self, plain: bytes, *, place: str) -> bytes:
        """Encrypt with a random nonce."""
        nonce = os.urandom(hpke.NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Decrypt. Raises ``CryptoFailure`` for another key, another place, a changed value."""
        nonce, rest = sealed[1 : 1 + hpke.NONCE_BYTES], sealed[1 + hpke.NONCE_BYTES :]
        return hpke.open_sealed(self._aead, nonce, rest, place.encode())
