"""Credentials and base URLs of providers that a request supplies itself."""

from __future__ import annotations

import msgspec


class UpstreamAccess(msgspec.Struct, frozen=True):
    """The headers ``X-Provider-Key`` and ``X-Provider-Base-URL`` of a request."""

    api_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        return f"UpstreamAccess(base_url={self.base_url!r})"


NO_ACCESS = UpstreamAccess()
