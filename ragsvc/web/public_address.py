"""The address of the service as its client sees it, for absolute URLs in responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragsvc.web.context import context_of


def service_url(scope: Mapping[str, Any]) -> str:
    """Scheme, host and path prefix of a request, without a slash at the end.

    The server has set the scheme that a trusted proxy states. Without ``Host``, which only HTTP/1.0 may leave out, the
    address on which the request arrived is used.
    """
    host = context_of(scope).headers.get(b"host", b"").decode("latin-1")
    if not host:
        name, port = scope.get("server") or ("localhost", None)
        host = name if port is None else f"{name}:{port}"
    return f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}".rstrip("/")
