"""Reads bodies: whole ones as bytes, JSON strictly by its wire struct; no framework's conversions in between."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Request
from litestar.types import Receive

from ragsvc.core.errors import InvalidRequest, TooLarge
from ragsvc.web.errors import invalid_json

T = TypeVar("T")


async def read_json(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Read and validate the body; a ``Content-Type`` other than JSON is forgiven when the body is JSON.

    Raises:
        InvalidRequest: empty, not JSON, or not of this shape (``param`` names the field).
    """
    return decode_json(await request.body(), decoder)


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Validate a body that was read; raises as ``read_json`` does."""
    if not body:
        raise InvalidRequest("The request needs a JSON body.")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(error) from error


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


def _refusal(error: Exception) -> InvalidRequest:
    if isinstance(error, msgspec.DecodeError):
        return invalid_json(error)
    return InvalidRequest("The body is not valid UTF-8.")
