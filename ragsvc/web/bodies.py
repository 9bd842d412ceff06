"""Reads bodies: whole ones as bytes, JSON strictly by its wire struct; no framework's conversions in between."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.types import Receive

from ragsvc.core.errors import TooLarge
from ragsvc.core.validation import decode_json

T = TypeVar("T")


async def read_json(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Read and validate a JSON body, whatever its ``Content-Type``. Raises as ``decode_json`` does."""
    return decode_json(await request.body(), decoder)


async def read_body(receive: Receive, limit: float) -> bytes | None:
    """The whole body; ``None`` when the client left before its end.

    Raises:
        TooLarge: over the limit, which a body without ``Content-Length`` shows only now.
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
            raise TooLarge(f"The request body may have {int(limit)} bytes.", limit_bytes=int(limit))
        if not message["more_body"]:
            return b"".join((*parts, part)) if parts else part
        parts.append(part)
