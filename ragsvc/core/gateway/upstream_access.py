"""Credentials and addresses that a request brings for its provider."""

from __future__ import annotations

import msgspec


class UpstreamAccess(msgspec.Struct, frozen=True):
    """What one request brings for its provider: a key of the caller's own, and an address instead of a known name."""

    api_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        """Keeps the key."""
        return f"UpstreamAccess(base_url={self.base_url!r})"


NO_ACCESS = UpstreamAccess()
