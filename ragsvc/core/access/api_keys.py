"""API keys: their text form, limits and permissions. Knows neither storage nor HTTP.

A key has the form ``rag_<id part>_<secret>``: 12 hexadecimal digits identify the row, followed by 32 random bytes in
URL-safe base64. Only the SHA-256 of the whole text is stored; a random 256-bit secret needs no slow hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from enum import StrEnum

import msgspec

from ragsvc.core.access.principal import Principal, Scope
from ragsvc.core.ids import KeyId, TenantId

PREFIX = "rag_"
_ID_BYTES = 6
_SECRET_BYTES = 32
_MAX_KEY_CHARACTERS = 256


class KeyState(StrEnum):
    """The state of a key as set by an operator; expiry follows from the time and is not a state."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    REVOKED = "revoked"


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a key; ``None`` means unlimited. ``token_balance`` decreases, ``tokens_per_day`` renews at 0:00 UTC.

    ``money_balance`` and ``money_per_day`` are the same in millionths of a unit of money.
    """

    requests_per_minute: int | None = 60
    requests_per_hour: int | None = 1000
    tokens_per_day: int | None = None
    token_balance: int | None = None
    money_per_day: int | None = None
    money_balance: int | None = None
    max_parallel_requests: int | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key; times are Unix seconds.

    ``token_grant`` and ``money_grant`` are the balances that an operator last set.

    After a rotation ``previous_secret_hash`` is accepted until ``previous_expires_at``.
    """

    id: KeyId
    tenant: TenantId
    label: str
    secret_hash: bytes
    state: KeyState = KeyState.ACTIVE
    scopes: frozenset[Scope] = frozenset()
    allowed_models: tuple[str, ...] = ()
    allowed_collections: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    token_grant: int | None = None
    money_grant: int | None = None
    expires_at: int | None = None
    previous_secret_hash: bytes | None = None
    previous_expires_at: int | None = None
    created_at: int = 0
    updated_at: int = 0
    revision: int = 0

    def principal(self) -> Principal:
        """The caller that this key authenticates."""
        return Principal(
            key_id=self.id,
            tenant=self.tenant,
            label=self.label,
            scopes=self.scopes,
            allowed_models=self.allowed_models,
            allowed_collections=self.allowed_collections,
        )

    def accepts(self, text: bytes, *, now: float) -> bool:
        """Whether ``text`` is the current secret, or the previous one during the overlap; in constant time."""
        return self.accepts_hash(hashlib.sha256(text).digest(), now=now)

    def accepts_hash(self, digest: bytes, *, now: float) -> bool:
        """As ``accepts``, for the SHA-256 of a text."""
        if hmac.compare_digest(digest, self.secret_hash):
            return True
        previous = self.previous_secret_hash
        if previous is None or self.previous_expires_at is None or now >= self.previous_expires_at:
            return False
        return hmac.compare_digest(digest, previous)

    def expired(self, now: float) -> bool:
        """Whether the key has expired; ``now`` is in Unix seconds."""
        return self.expires_at is not None and now >= self.expires_at


class NewSecret(msgspec.Struct, frozen=True):
    """A new key text and its stored form. ``text`` is shown once and never stored."""

    key_id: KeyId
    text: str
    digest: bytes


def draw_secret(random_bytes: Callable[[int], bytes], *, key_id: KeyId | None = None) -> NewSecret:
    """Generate the text of a new key or, with ``key_id``, a new secret of an existing key."""
    part = random_bytes(_ID_BYTES).hex() if key_id is None else key_id.removeprefix("key_")
    secret = base64.urlsafe_b64encode(random_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
    text = f"{PREFIX}{part}_{secret}"
    return NewSecret(KeyId(f"key_{part}"), text, hashlib.sha256(text.encode()).digest())


def key_id_of(text: bytes) -> KeyId | None:
    """Read the id from a key text; ``None`` if the text does not have the form of a key.

    >>> key_id_of(b"rag_0123456789ab_c2VjcmV0X3dpdGhfdW5kZXJzY29yZXM")
    'key_0123456789ab'
    >>> key_id_of(b"sk-something")
    """
    if not text.startswith(b"rag_") or len(text) > _MAX_KEY_CHARACTERS:
        return None
    part, separator, secret = text[4:].partition(b"_")
    if not separator or not secret or not part.isalnum() or not part.isascii():
        return None
    return KeyId("key_" + part.decode("ascii"))
