"""Replay protection: what was sealed once is accepted once.

A replayed request that got a *different* answer would have its answer sealed under a used AES-GCM key and nonce, which
gives both answers away. So a claim is taken after a successful open and before any side effect, and it lasts as long as
the private key does.
"""

from __future__ import annotations

from threading import Lock
from typing import Protocol

import msgspec


class ReplayClaim(msgspec.Struct, frozen=True):
    """What makes a request unique: the key it was sealed for and a SHA-256. ``expires_at`` is Unix seconds.

    ``expires_at`` is ``None`` for a key that never retires.
    """

    key_id: str
    digest: bytes
    expires_at: float | None


class ClaimStore(Protocol):
    """Remembers claims. Must outlive the process when the keys do."""

    def claim(self, key_id: str, digest: bytes, expires_at: float | None) -> bool:
        """Insert or fail, atomically across all writers: ``True`` for exactly one caller per ``(key_id, digest)``."""
        ...

    def forget(self, key_id: str) -> None:
        """Drop the claims of a key that was destroyed."""
        ...


class MemoryClaims:
    """Claims in this process's memory: right for keys that live in this process's memory too, and only for those."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._digests: dict[str, set[bytes]] = {}

    def claim(self, key_id: str, digest: bytes, expires_at: float | None) -> bool:
        """Insert or fail, atomically."""
        with self._lock:
            digests = self._digests.setdefault(key_id, set())
            if digest in digests:
                return False
            digests.add(digest)
            return True

    def forget(self, key_id: str) -> None:
        """Drop the claims of a key that was destroyed."""
        with self._lock:
            self._digests.pop(key_id, None)

    def __len__(self) -> int:
        """How many claims are remembered."""
        with self._lock:
            return sum(map(len, self._digests.values()))
