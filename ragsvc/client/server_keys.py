"""The server's public key at the client: read, pinned, cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from typing import Final, cast

import msgspec

from ragsvc.core.errors import CryptoFailure

MAX_AGE_S: Final = 3600.0
"""A key is fetched again after this time even when it lasts longer."""

Clock = Callable[[], float]


class ServerKey(msgspec.Struct, frozen=True):
    """A key the server handed out; ``expires_at`` is Unix seconds, ``None`` for a key that does not rotate."""

    public_key: bytes
    key_id: str = ""
    expires_at: float | None = None


VerifyKey = Callable[[ServerKey], None]
"""Judges a fetched key (by attestation, say) and raises to refuse it."""


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the raw public key in hexadecimal: what ``pinned_keys`` holds."""
    return hashlib.sha256(public_key).hexdigest()


def parse_key(content: bytes, decode: Callable[[str], bytes], *, size: int) -> ServerKey:
    """Read a key endpoint's JSON; ``decode`` turns ``public_key`` into ``size`` bytes. Raises ``CryptoFailure``."""
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
    """The one key a transport uses now. Assignments are atomic; two concurrent fetches do no harm."""

    def __init__(self, *, clock: Clock, pinned_keys: Collection[str] | None, verify_key: VerifyKey | None) -> None:
        self._clock = clock
        self._pins = None if pinned_keys is None else frozenset(pin.lower() for pin in pinned_keys)
        self._verify_key = verify_key
        self._held: tuple[ServerKey, float] | None = None

    @property
    def trusts_beyond_tls(self) -> bool:
        """Whether a key is judged by more than the connection it came over."""
        return self._pins is not None or self._verify_key is not None

    def get(self) -> ServerKey | None:
        """The key, unless there is none or it is due."""
        held = self._held
        return held[0] if held is not None and self._clock() < held[1] else None

    def put(self, key: ServerKey) -> ServerKey:
        """Judge a fetched key and hold it.

        Raises:
            CryptoFailure: it is not among the pinned ones.
        """
        if self._pins is not None and fingerprint(key.public_key) not in self._pins:
            failure = CryptoFailure()
            failure.add_note("The server's key is not among the pinned ones.")
            raise failure
        if self._verify_key is not None:
            self._verify_key(key)
        due = self._clock() + MAX_AGE_S
        self._held = (key, due if key.expires_at is None else min(due, key.expires_at))
        return key

    def drop(self) -> None:
        """Forget the key: the server no longer opens what is sealed for it."""
        self._held = None


def is_encryption_error(content: bytes) -> bool:
    """Whether an error body is the server's word that it could not open the request."""
    try:
        document = cast("object", json.loads(content))
    except ValueError:
        return False
    error = cast("dict[str, object]", document).get("error") if isinstance(document, dict) else None
    return isinstance(error, dict) and cast("dict[str, object]", error).get("code") == CryptoFailure.code
