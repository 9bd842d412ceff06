"""The replay claim: what identifies a sealed request. ``store.replay_claims`` remembers claims, so each is taken once.

A replayed request that got a *different* response would have that response sealed under an AES-GCM key and nonce that
were used before, which reveals both responses. So a request is claimed after it opened and before any side effect, and
the claim is kept as long as the private key.
"""

from __future__ import annotations

import msgspec


class ReplayClaim(msgspec.Struct, frozen=True):
    """The key that a request was sealed for, and a SHA-256 that identifies the request under this key.

    ``expires_at`` is Unix seconds, ``None`` for a key that never expires.
    """

    key_id: str
    digest: bytes
    expires_at: float | None
