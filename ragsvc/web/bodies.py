"""Reads JSON bodies strictly by their wire struct, without a framework's conversions in between."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Request

from ragsvc.core.errors import InvalidRequest
from ragsvc.web.errors import invalid_json

T = TypeVar("T")


async def read_json(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[T]) -> T:
    """Read and validate the body; a ``Content-Type`` other than JSON is forgiven when the body is JSON.

    Raises:
        InvalidRequest: empty, not JSON, or not of this shape (``param`` names the field).
    """
    body = await request.body()
    if not body:
        raise InvalidRequest("The request needs a JSON body.")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> InvalidRequest:
    if isinstance(error, msgspec.DecodeError):
        return invalid_json(error)
    return InvalidRequest("The body is not valid UTF-8.")
