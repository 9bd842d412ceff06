"""The endpoint family of a request that failed before its handler reserved or counted anything."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.crypto import rvenc

_FAMILIES: Final = frozenset(Family)
_OTHERS: Final = {
    "/v1/chat/completions": Family.CHAT.value,
    "/chat/completions": Family.CHAT.value,
    "/api/chat/completions": Family.CHAT.value,
    rvenc.CHAT_PATH: Family.CHAT.value,
    "/v2/rerank": Family.RERANK.value,
    "/v1/rag/search": "search",
    "/v1/vector_stores/{vector_store_id}/search": "search",
    "/v1/rag/documents": "documents",
    "/v1/files": "files",
    "/v1/uploads/{upload_id}/complete": "files",
}


@lru_cache(1024)
def family_of_route(method: str, route: str) -> str | None:
    """The family whose errors a request belongs to; ``None`` for reading and administration.

    >>> family_of_route("POST", "/v1/images/generations")
    'images'
    >>> family_of_route("POST", "/v1/responses/{response_id}/cancel")
    >>> family_of_route("GET", "/v1/models")
    """
    if method != "POST":
        return None
    if (known := _OTHERS.get(route)) is not None:
        return known
    first = route.removeprefix("/v1").removeprefix("/").partition("/")[0]
    return first if first in _FAMILIES and "{" not in route else None
