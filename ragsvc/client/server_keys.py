"""The server's public key on the client: parsed, compared with pinned keys, and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from typing import Final, cast

import msgspec

from ragsvc.core.errors import CryptoFailure

MAX_AGE_S: Final = 3600.0
"""A key is fetched again after this time, even if it expires later."""

Clock = Callable[[], float]


class ServerKey(msgspec.Struct, frozen=True):
    """A public key from the server. ``expires_at`` is Unix seconds, ``None`` for a key that does not rotate."""

    public_key: bytes
    key_id: str = ""
    expires_at: float | None = None


VerifyKey = Callable[[ServerKey], None]
"""Checks a fetched key (for example by attestation); raises an exception to refuse the key."""


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the raw public key in hexadecimal, as in ``pinned_keys``."""
    return hashlib.sha256(public_key).hexdigest()


def parse_key(content: bytes, decode: Callable[[str], bytes], *, size: int) -> ServerKey:
    """Parse a key endpoint's JSON; ``decode`` turns ``public_key`` into ``size`` bytes. Raises ``CryptoFailure``."""
    try:
        document = json.loads(content)
        public_key = decode(document["public_key"])
        expires_at = document.get("expires_at")
        key = ServerKey(public_key, str(document.get("key_id", "")), None if expires_at is None else float(expires_at))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CryptoFailure from error
    if len(key.public_key) != size:
        raise CryptoFailure
    return key


class KeyCache:
    """The server key that a transport uses. Assignments are atomic; concurrent fetches are harmless."""

    def __init__(self, *, clock: Clock, pinned_keys: Collection[str] | None, verify_key: VerifyKey | None) -> None:
        self._clock = clock
        self._pins = None if pinned_keys is None else frozenset(pin.lower() for pin in pinned_keys)
        self._verify_key = verify_key
        self._held: tuple[ServerKey, float] | None = None

    @property
    def trusts_beyond_tls(self) -> bool:
        """Whether keys are checked by more than the TLS connection they were fetched over."""
        return self._pins is not None or self._verify_key is not None

    def get(self) -> ServerKey | None:
        """The cached key; ``None`` if there is none or it must be fetched again."""
        held = self._held
        return held[0] if held is not None and self._clock() < held[1] else None

    def put(self, key: ServerKey) -> ServerKey:
        """Check a fetched key and cache it.

        Raises:
            CryptoFailure: the key is not pinned.
        """
        if self._pins is not None and fingerprint(key.public_key) not in self._pins:
            failure = CryptoFailure()
            failure.add_note("The server's key is not among the pinned keys.")
            raise failure
        if self._verify_key is not None:
            self._verify_key(key)
        due = self._clock() + MAX_AGE_S
        self._held = (key, due if key.expires_at is None else min(due, key.expires_at))
        return key

    def drop(self) -> None:
        """Discard the key, because the server does not accept it any more."""
        self._held = None


def is_encryption_error(content: bytes) -> bool:
    """Return whether an error body says that the server could not open the request."""
    try:
        document = cast("object", json.loads(content))
    except ValueError:
        return False
    error = cast("dict[str, object]", document).get("error") if isinstance(document, dict) else None
    return isinstance(error, dict) and cast("dict[str, object]", error).get("code") == CryptoFailure.code
