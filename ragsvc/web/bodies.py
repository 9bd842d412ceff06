"""Reads request bodies: as bytes, or as JSON that is strictly decoded into a struct, without Litestar's conversions."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.types import Receive

from ragsvc.core.validation import decode_json
from ragsvc.web.auth import body_too_large

T = TypeVar("T")


async def read_json(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Read and validate a JSON body, regardless of its ``Content-Type``. Raises as ``decode_json`` does."""
    return decode_json(await request.body(), decoder)


async def read_body(receive: Receive, limit: float) -> bytes | None:
    """Read the whole body; ``None`` if the client disconnects before its end.

    Raises:
        TooLarge: more than ``limit`` bytes; for bodies sent without ``Content-Length``.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = message["body"]
        size += len(part)
        if size > limit:
            raise body_too_large(limit)
        if not message["more_body"]:
            return b"".join((*parts, part)) if parts else part
        parts.append(part)
