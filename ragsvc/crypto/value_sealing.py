"""Encrypts small database values: AES-256-GCM under a key derived from the master key, bound to the row."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ragsvc.crypto import hpke
from ragsvc.crypto.at_rest import MasterKey

_VERSION: Final = b"\x01"


class ValueSealer:
    """Encrypts values of one kind.

    ``purpose`` names the kind and selects the key. ``place`` (a row's key) is authenticated with each value, so that
    values cannot be exchanged between rows.
    """

    def __init__(self, master: MasterKey, purpose: str) -> None:
        self._aead = AESGCM(master.derive(purpose))

    def seal(self, plain: bytes, *, place: str) -> bytes:
        """Encrypt ``plain`` with a random nonce."""
        nonce = os.urandom(hpke.NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Decrypt a value.

        Raises:
            CryptoFailure: the value was changed, or it was sealed with another key or for another place.
        """
        nonce, rest = sealed[1 : 1 + hpke.NONCE_BYTES], sealed[1 + hpke.NONCE_BYTES :]
        return hpke.open_sealed(self._aead, nonce, rest, place.encode())
