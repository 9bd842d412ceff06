"""The server's key sets: created, rotated with an overlap, and destroyed. Clock and randomness are injected.

A key set has an X25519 key (HPKE, EHBP) and an X-Wing key (RVENC) of the same age. Keys either exist in memory only, or
are derived from an operator's secret, so that several processes and later restarts have the same keys. Derived keys
need replay claims that survive a restart too: an old key with an empty claim store accepts each recorded request again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Callable
from threading import Lock
from typing import Final

from ragsvc.core.errors import ConfigurationError
from ragsvc.crypto import hpke
from ragsvc.crypto.xwing import XWingPrivateKey

SECRET_BYTES: Final = 32
DEFAULT_LIFETIME_S: Final = 24 * 3600
DEFAULT_OVERLAP_S: Final = 3600
CLOCK_SKEW_S: Final = 60
"""Largest difference between the clocks of processes that share a secret, in seconds."""
_LABEL = b"ragsvc-keyring-v1 "

Clock = Callable[[], float]
Randomness = Callable[[int], bytes]


class KeySet:
    """The keys of one period. ``key_id`` is 16 hexadecimal digits, derived from both public keys.

    Times are Unix seconds: clients should fetch the keys again at ``expires_at``; requests are accepted until
    ``accepted_until``. Both are ``None`` for keys that never rotate. ``repr`` shows only the id.
    """

    def __init__(self, seed: bytes, *, expires_at: float | None = None, accepted_until: float | None = None) -> None:
        self.hpke = hpke.derive_key_pair(hpke.expand(seed, _LABEL + b"x25519", 32))
        self.hpke_public = self.hpke.public_key().public_bytes_raw()
        self.xwing = XWingPrivateKey(hpke.expand(seed, _LABEL + b"xwing", 32))
        self.xwing_public = self.xwing.public_key
        self.key_id = hashlib.sha256(_LABEL + b"id" + self.hpke_public + self.xwing_public).hexdigest()[:16]
        self.expires_at = expires_at
        self.accepted_until = accepted_until

    def __repr__(self) -> str:
        return f"KeySet(key_id={self.key_id!r})"


class Keyring:
    """All key sets that are valid now. Thread-safe. Created by ``in_memory``, ``rotating`` or ``fixed``."""

    def __init__(
        self,
        seed_of_period: Callable[[int], bytes],
        *,
        clock: Clock,
        lifetime_s: float | None,
        overlap_s: float,
        skew_s: float = 0,
        knows_past: bool = True,
    ) -> None:
        if lifetime_s is not None and not 0 <= overlap_s < lifetime_s:
            raise ConfigurationError(["encryption_key_overlap_s must be shorter than encryption_key_lifetime_s"])
        self._seed_of_period = seed_of_period
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._overlap_s = overlap_s
        self._skew_s = skew_s
        self._first_period = 0 if knows_past else self._period_at(clock())
        self._lock = Lock()
        self._sets: dict[int, KeySet] = {}
        self._latest = -math.inf

    @classmethod
    def in_memory(
        cls,
        *,
        clock: Clock,
        randomness: Randomness,
        lifetime_s: float = DEFAULT_LIFETIME_S,
        overlap_s: float = DEFAULT_OVERLAP_S,
    ) -> Keyring:
        """Create keys that are never written to disk and end with the process."""
        return cls(
            lambda _: randomness(SECRET_BYTES),
            clock=clock,
            lifetime_s=lifetime_s,
            overlap_s=overlap_s,
            knows_past=False,
        )

    @classmethod
    def rotating(
        cls,
        secret: bytes,
        *,
        clock: Clock,
        claims_are_durable: bool,
        lifetime_s: float = DEFAULT_LIFETIME_S,
        overlap_s: float = DEFAULT_OVERLAP_S,
    ) -> Keyring:
        """Derive keys from a secret and the period; each process with the secret has the same keys.

        Raises:
            ConfigurationError: ``claims_are_durable`` is false, although the keys survive a restart.
        """
        _require_durable(claims_are_durable=claims_are_durable)
        prk = hpke.extract(_LABEL + b"rotating", secret)

        def seed_of_period(period: int) -> bytes:
            return hpke.expand(prk, period.to_bytes(8, "big"), SECRET_BYTES)

        return cls(seed_of_period, clock=clock, lifetime_s=lifetime_s, overlap_s=overlap_s, skew_s=CLOCK_SKEW_S)

    @classmethod
    def fixed(cls, secret: bytes, *, clock: Clock, claims_are_durable: bool) -> Keyring:
        """Derive a single key set that never changes, for clients that pin it. Raises as ``rotating`` does."""
        _require_durable(claims_are_durable=claims_are_durable)
        seed = hpke.expand(hpke.extract(_LABEL + b"fixed", secret), b"", SECRET_BYTES)
        return cls(lambda _: seed, clock=clock, lifetime_s=None, overlap_s=0)

    def current(self) -> KeySet:
        """The key set to publish; its ``expires_at`` is in the future."""
        with self._lock:
            now = self._advance()
            return self._sets[self._period_at(now)]

    def accepted(self) -> list[KeySet]:
        """The key sets that requests may be sealed for, the most likely first."""
        with self._lock:
            now = self._advance()
            current = self._period_at(now)
            return [self._sets[period] for period in sorted(self._sets, key=lambda period: abs(period - current))]

    def _advance(self) -> float:
        """Create and destroy key sets for the present time, and return that time.

        The time never decreases: a clock that is set back must not restore a destroyed key.
        """
        now = self._latest = max(self._clock(), self._latest)
        wanted = self._periods_at(now)
        for period in [period for period in self._sets if period not in wanted]:
            del self._sets[period]
        for period in wanted:
            if period not in self._sets:
                self._sets[period] = self._make(period)
        return now

    def _period_at(self, now: float) -> int:
        return 0 if self._lifetime_s is None else int(now // self._lifetime_s)

    def _periods_at(self, now: float) -> list[int]:
        first = max(self._first_period, self._period_at(now - self._overlap_s))
        return list(range(first, self._period_at(now + self._skew_s) + 1))

    def _make(self, period: int) -> KeySet:
        seed = self._seed_of_period(period)
        if self._lifetime_s is None:
            return KeySet(seed)
        end = (period + 1) * self._lifetime_s
        return KeySet(seed, expires_at=end, accepted_until=end + self._overlap_s)


def _require_durable(*, claims_are_durable: bool) -> None:
    if not claims_are_durable:
        raise ConfigurationError(
            ["encryption keys that survive a restart need a claim store that does too, or old requests can be replayed"]
        )


def parse_secret(content: bytes) -> bytes:
    r"""Parse 32 secret bytes: raw, as 64 hexadecimal digits, or as base64. Surrounding whitespace is ignored.

    Raises:
        ConfigurationError: the content has none of these forms. Passphrases are not supported; use random bytes.

    >>> parse_secret(b"00" * 32 + b"\n") == bytes(32)
    True
    """
    if len(content) == SECRET_BYTES:
        return content
    text = content.strip()
    for decode in (binascii.unhexlify, _decode_base64):
        try:
            secret = decode(text)
        except ValueError:
            continue
        if len(secret) == SECRET_BYTES:
            return secret
    raise ConfigurationError(["a key must be 32 random bytes: raw, as 64 hexadecimal digits, or as base64"])


def _decode_base64(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True)
