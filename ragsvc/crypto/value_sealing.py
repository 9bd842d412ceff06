"""Seals small values of the database: AES-256-GCM under a key derived from a sealing key, each bound to its place."""

from __future__ import annotations

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import hpke
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.crypto.keyring import parse_secret

_VERSION: Final = b"\x01"


class SealingKey:
    """The key of a data directory's sealed values. Not printed."""

    def __init__(self, secret: bytes) -> None:
        self._key = MasterKey(secret)  # for its derivation only, by which earlier releases sealed
        self.key_id = self._key.key_id

    @classmethod
    def from_bytes(cls, content: bytes) -> SealingKey:
        """Read a key file's content (see ``parse_secret``). Raises ``ConfigurationError``."""
        return cls(parse_secret(content))

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose, independent of every other purpose's."""
        return self._key.derive(purpose)

    def __repr__(self) -> str:
        """Name the key by its id."""
        return f"SealingKey(key_id={self.key_id.hex()})"


class SealingKeys:
    """The current sealing key, which seals, and former ones, which only open."""

    def __init__(self, current: SealingKey, *former: SealingKey) -> None:
        self.current = current
        self.former = former


class ValueSealer:
    """Seals values of one kind.

    ``purpose`` separates the values of a kind from all others; ``place`` (a row's key) separates them from each other.
    """

    def __init__(self, keys: SealingKeys, purpose: str) -> None:
        self._sealing = AESGCM(keys.current.derive(purpose))
        self._opening = [self._sealing, *(AESGCM(key.derive(purpose)) for key in keys.former)]

    def seal(self, plain: bytes, *, place: str) -> bytes:
        """Encrypt ``plain`` with a random nonce."""
        nonce = os.urandom(hpke.NONCE_BYTES)
        return _VERSION + nonce + self._sealing.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Decrypt a value.

        Raises:
            CryptoFailure: the value was changed, or it was sealed with another key or for another place.
        """
        nonce, rest = sealed[1 : 1 + hpke.NONCE_BYTES], sealed[1 + hpke.NONCE_BYTES :]
        for key in self._opening[:-1]:
            try:
                return hpke.open_sealed(key, nonce, rest, place.encode())
            except CryptoFailure:  # sealed with a former key
                continue
        return hpke.open_sealed(self._opening[-1], nonce, rest, place.encode())
